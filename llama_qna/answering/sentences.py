"""The sentences of a corpus that a question is answered from, with their neighbours: what a small reader is given.

A chunk of 1,024 characters holds one sentence that matters and seven that do not. So sentences are found, not chunks,
each judged by its own words and by those around it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import replace

import numpy as np
import pandas as pd

from llama_qna.answering.retrieval import Source
from llama_qna.text.language import languages_of
from llama_qna.text.windows import Windows
from llama_qna.text.words import sentences_of, without_marks

AROUND = (0, 1, 3)  # neighbours on each side whose words count too; found on the dev questions (docs/experiments.md)
LONGEST_OVERLAP = 400  # characters that two chunks may share


class Sentences:
    """The sentences of a corpus, and the index over them and their neighbours.

    Args:
        chunks: a table with the columns of `project.data.CHUNK_COLUMNS`.

    Raises:
        UserError: no sentence has a word to search for.
    """

    def __init__(self, chunks: pd.DataFrame):
        sections = chunks[chunks.kind == "body"].groupby(["document", "section"], sort=False)
        parts = [_sentences(list(rows.itertuples())) for _, rows in sections]
        self.all = [sentence for part in parts for sentence in part]
        languages = languages_of(" ".join(sentence.text for sentence in part) for part in parts)
        sizes = [len(part) for part in parts]
        self._index = Windows(
            [sentence.text for sentence in self.all],
            np.repeat(np.arange(len(parts)), sizes),
            [language for language, size in zip(languages, sizes, strict=True) for _ in range(size)],
            AROUND,
        )

    def find(self, question: str, count: int) -> list[int]:
        """The numbers of the sentences that have the most to do with a question, the best first, at most `count`."""
        scores = self.scores(question)
        return [int(n) for n in np.argsort(-scores, kind="stable")[:count] if scores[n] > 0]

    def passage(self, n: int, around: int = 1) -> Source:
        """A sentence with its neighbours in its section, as a passage."""
        here, near = self.all[n], self.all[max(0, n - around) : n + around + 1]
        same = [s.text for s in near if (s.document, s.section) == (here.document, here.section)]
        return replace(here, text=" ".join(same))

    def scores(self, question: str) -> np.ndarray:
        """How much each sentence and its neighbours have to do with a question: the sum of their BM25 scores, (N,)."""
        return self._index.scores(question)

    def share(self, question: str, n: int) -> float:
        """How many of a question's words stand in a sentence and three neighbours on each side: a share, 0 to 1."""
        return self._index.share(question, n)


def _sentences(chunks: list) -> list[Source]:
    """The sentences of a section, each with the chunk in which it begins."""
    text, begins = "", []  # where each chunk begins in the section's text
    for chunk in chunks:
        plain = without_marks(chunk.text)
        shared = _overlap(text, plain)
        begins.append(len(text) - shared if shared else len(text) + 1)
        text += plain[shared:] if shared else f" {plain}"
    found, position = [], 0
    for sentence in sentences_of(text):
        position = text.index(sentence, position)
        row = chunks[max(0, bisect_right(begins, position) - 1)]
        found.append(Source(row.chunk_id, row.document, int(row.page), row.section, sentence))
        position += len(sentence)
    return found


def _overlap(before: str, after: str) -> int:
    """How many characters at the end of one text are the beginning of the next; whole words, as chunks are cut."""
    end = f" {before[-LONGEST_OVERLAP:]}"
    for space in re.finditer(" ", end):
        if after.startswith(end[space.end() :]):
            return len(end) - space.end()
    return 0
