"""The passages that a question is answered from: body chunks that share words with it, as many as fit into a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from llama_qna.models.prompts import CONTEXT_TOKENS, fit_chunks
from llama_qna.text.search import Search


@dataclass(frozen=True)
class Source:
    """A passage of the corpus."""

    chunk_id: str
    document: str
    page: int  # counts from 1
    section: str
    text: str

    @property
    def place(self) -> str:
        """Document, page and, where it has one, section, in words."""
        return f"{self.document}, page {self.page}" + (f", {self.section}" if self.section else "")


@dataclass(frozen=True)
class Evidence:
    """The sentence that an answer was taken from, and its passage."""

    sentence: str
    source: Source


@dataclass(frozen=True)
class Answer:
    """What a system says, the passages that it was given, and the evidence that it shows, where it does."""

    text: str
    sources: tuple[Source, ...] = ()
    evidence: Evidence | None = None
    said_not: bool = False  # it says that the documents do not tell


class Passages:
    """The body chunks of a corpus, and the index over them.

    Args:
        chunks: the table of `project.data.read_chunks`.

    Raises:
        UserError: no chunk has a word to search for.
    """

    def __init__(self, chunks: pd.DataFrame):
        body = chunks[chunks.kind == "body"]
        self.sources = {
            row.chunk_id: Source(row.chunk_id, row.document, int(row.page), row.section, row.text)
            for row in body.itertuples()
        }
        self._index = Search(list(self.sources), [source.text for source in self.sources.values()])

    def find(self, questions: list[str], count: int) -> list[list[Source]]:
        """For each question the passages that share the most words with it, the best first, at most `count`."""
        searched = self._index.search(questions, count)
        return [[self.sources[chunk_id] for chunk_id, _ in found] for found in searched]


def fitted_prompt(tokenizer, question: str, sources: Sequence[Source]) -> tuple[list[int], list[Source]]:
    """`input_ids` of a question with its passages, (T,), T <= CONTEXT_TOKENS, and the passages that are in it.

    Raises:
        UserError: the question alone is longer than that.
    """
    input_ids, count = fit_chunks(tokenizer, question, [source.text for source in sources], CONTEXT_TOKENS)
    return input_ids, list(sources[:count])
