"""The sentences of a corpus that a question is answered from, with their neighbours: what a small reader is given.

A chunk of 1,024 characters holds one sentence that matters and seven that do not. So sentences are found, not chunks,
each judged by its own words and by those around it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llama_qna.answering.retrieval import Source
from llama_qna.text.search import Search
from llama_qna.text.words import CITATION, sentences_of

AROUND = (0, 1, 3)  # neighbours on each side whose words count too; found on the dev questions (docs/experiments.md)
LONGEST_OVERLAP = 400  # characters that two chunks may share


@dataclass(frozen=True)
class Sentence:
    """A sentence and where it stands; `place` counts the sentences of its section."""

    text: str
    chunk_id: str
    document: str
    page: int  # counts from 1
    section: str
    place: int


class Sentences:
    """The sentences of a corpus, and the indexes over them.

    Args:
        chunks: a table with the columns of `project.data.CHUNK_COLUMNS`.

    Raises:
        UserError: no sentence has a word to search for.
    """

    def __init__(self, chunks: pd.DataFrame):
        body = chunks[chunks.kind == "body"]
        sections = body.groupby(["document", "section"], sort=False)
        self.all = [sentence for _, section in sections for sentence in _sentences(section)]
        names = [str(n) for n in range(len(self.all))]
        self._indexes = [Search(names, [self._window(n, around) for n in range(len(self.all))]) for around in AROUND]

    def find(self, question: str, count: int) -> list[int]:
        """The numbers of the sentences that have the most to do with a question, the best first, at most `count`."""
        scores = self.scores(question)
        return [int(n) for n in np.argsort(-scores, kind="stable")[:count] if scores[n] > 0]

    def passage(self, n: int, around: int = 1) -> Source:
        """A sentence with its neighbours, as a passage."""
        here = self.all[n]
        return Source(here.chunk_id, here.document, here.page, here.section, self._window(n, around))

    def scores(self, question: str) -> np.ndarray:
        """How much each sentence and its neighbours have to do with a question: the sum of their BM25 scores, (N,)."""
        return sum(index.scores(question) for index in self._indexes)

    def _window(self, n: int, around: int) -> str:
        here = self.all[n]
        near = self.all[max(0, n - around) : n + around + 1]
        same = [s.text for s in near if (s.document, s.section) == (here.document, here.section)]
        return " ".join(same)


def _sentences(chunks: pd.DataFrame) -> list[Sentence]:
    """The sentences of a section, each with the chunk in which it begins."""
    text, begins = "", []  # where each chunk begins in the section's text
    for chunk in chunks.text:
        plain = " ".join(CITATION.sub("", chunk).split())
        shared = _overlap(text, plain)
        begins.append(len(text) - shared if shared else len(text) + 1)
        text += plain[shared:] if shared else f" {plain}"
    found, position, rows = [], 0, list(chunks.itertuples())
    for place, sentence in enumerate(sentences_of(text)):
        position = text.index(sentence, position)
        row = rows[max(0, bisect_right(begins, position) - 1)]
        found.append(Sentence(sentence, row.chunk_id, row.document, int(row.page), row.section, place))
        position += len(sentence)
    return found


def _overlap(before: str, after: str) -> int:
    """How many characters at the end of one text are the beginning of the next."""
    longest = min(len(before), len(after), LONGEST_OVERLAP)
    return next((n for n in range(longest, 0, -1) if before.endswith(after[:n])), 0)
