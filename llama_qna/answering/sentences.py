"""The sentences of a corpus that a question is answered from, with their neighbours: what a small reader is given.

A chunk of 1,024 characters holds one sentence that matters and seven that do not. So sentences are found, not chunks,
each judged by its own words and by those around it, and given in runs, as they stand in the document.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

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

    def find(self, question: str, max_tokens: int, length: Callable[[str], int]) -> list[Source]:
        """The runs of sentences that share the most words with a question, the best first, of at most `max_tokens`.

        Args:
            length: tokens of a text.
        """
        scores, chosen, used = self.scores(question), [], 0
        for n in np.argsort(-scores, kind="stable"):
            tokens = length(self.all[n].text)
            if scores[n] <= 0 or used + tokens > max_tokens and chosen:
                break
            chosen.append(int(n))
            used += tokens
        runs = [[n for _, n in run] for _, run in groupby(enumerate(sorted(chosen)), key=lambda pair: self._run(*pair))]
        runs.sort(key=lambda run: min(map(chosen.index, run)))
        return [self._source(run) for run in runs]

    def scores(self, question: str) -> np.ndarray:
        """How much each sentence and its neighbours have to do with a question: the sum of their BM25 scores, (N,)."""
        return sum(index.scores(question) for index in self._indexes)

    def _run(self, count: int, n: int) -> tuple:
        """The same for sentences that follow each other in one section."""
        sentence = self.all[n]
        return sentence.document, sentence.section, n - count

    def _source(self, run: list[int]) -> Source:
        first = self.all[run[0]]
        text = " ".join(self.all[n].text for n in run)
        return Source(first.chunk_id, first.document, first.page, first.section, text)

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
