"""The sentences of a corpus that a question is answered from, with their neighbours: what a small reader is given.

A chunk of 1,024 characters holds one sentence that matters and seven that do not. So sentences are found, not chunks,
each judged by its own words and by those around it.
"""

from __future__ import annotations

import re
import textwrap
from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate, groupby, pairwise

import numpy as np
import pandas as pd

from llama_qna.answering.retrieval import Source
from llama_qna.text.language import languages_of
from llama_qna.text.windows import Windows
from llama_qna.text.words import CITATION, OTHER_STOPS, sentences_of

AROUND = (0, 1, 3)  # neighbours on each side whose words count too; found on the dev questions (docs/experiments.md)
LONGEST = 800  # characters of a sentence; a list or a log may have no full stop from its beginning to its end
START = re.compile(rf"(?<![^\s{OTHER_STOPS}])\S")  # where chunks are cut: at words, and behind such a stop


class Sentences:
    """The sentences of a corpus, and the index over them and their neighbours.

    Args:
        chunks: a table with the columns of `project.data.CHUNK_COLUMNS`.

    Raises:
        UserError: no sentence has a word to search for.
    """

    def __init__(self, chunks: pd.DataFrame):
        body = chunks[chunks.kind == "body"]
        # a title may come again in a document, so it is not enough to tell its sections apart
        sections = [list(rows) for _, rows in groupby(body.itertuples(), lambda row: (row.document, row.section))]
        parts = [part for part in map(_sentences, sections) if part]
        self.all = [sentence for part in parts for sentence in part]
        self._sections = [number for number, part in enumerate(parts) for _ in part]
        languages = languages_of(" ".join(sentence.text for sentence in part) for part in parts)
        self._index = Windows(
            [sentence.text for sentence in self.all],
            self._sections,
            [languages[number] for number in self._sections],
            AROUND,
        )

    def find(self, question: str, count: int) -> list[int]:
        """The numbers of the sentences that have the most to do with a question, the best first, at most `count`."""
        scores = self.scores(question)
        return [int(n) for n in np.argsort(-scores, kind="stable")[:count] if scores[n] > 0]

    def passage(self, n: int, around: int = 1) -> Source:
        """A sentence with its neighbours in its section, as a passage."""
        near = range(max(0, n - around), min(n + around + 1, len(self.all)))
        same = [self.all[place].text for place in near if self._sections[place] == self._sections[n]]
        return replace(self.all[n], text=" ".join(same))

    def scores(self, question: str) -> np.ndarray:
        """How much each sentence and its neighbours have to do with a question: the sum of their BM25 scores, (N,)."""
        return self._index.scores(question)

    def share(self, question: str, n: int) -> float:
        """How many of a question's words stand in a sentence and three neighbours on each side: a share, 0 to 1."""
        return self._index.share(question, n)


def _sentences(chunks: list) -> list[Source]:
    """The sentences of a section, each with the chunk in which it begins.

    Places are counted in letters: what is not a gap, nor in a citation mark. The text has them in the order of the
    sentences, which have lost the marks and the line breaks.
    """
    text, begins, apart = "", [], []  # where each chunk begins in the section's text, and those that share nothing
    for chunk in chunks:
        shared = _overlap(text, chunk.text)
        text += "" if shared else " "
        begins.append(len(text) - shared)
        apart += [] if shared else begins[-1:]
        text += chunk.text[shared:]
    kept = CITATION.sub(lambda mark: " " * len(mark[0]), text)
    begins = _letters_before(kept, begins)
    lines = set(_letters_before(kept, sorted([*apart, *(line.end() for line in re.finditer("\n", kept))])))
    found, place = [], 0
    for sentence in filter(None, sentences_of(text)):
        for part in _parts(sentence, place, lines):
            row = chunks[bisect_right(begins, place) - 1]
            found.append(Source(row.chunk_id, row.document, int(row.page), row.section, part))
            place += _letters(part)
    return found


def _parts(sentence: str, place: int, lines: set[int]) -> list[str]:
    """A sentence as it is or, if it is too long for one, its lines, and those too long for one cut between words.

    Args:
        lines: the places at which lines begin.
    """
    if len(sentence) <= LONGEST:
        return [sentence]
    found = []
    for word in sentence.split():
        if place in lines or not found:
            found.append([])
        found[-1].append(word)
        place += len(word)
    return [part for line in found for part in textwrap.wrap(" ".join(line), LONGEST, break_on_hyphens=False)]


def _letters(text: str) -> int:
    return len("".join(text.split()))


def _letters_before(text: str, places: list[int]) -> list[int]:
    """How many letters of a text stand before each of some places, which are in their order."""
    return list(accumulate(_letters(text[start:end]) for start, end in pairwise([0, *places])))


def _overlap(before: str, after: str) -> int:
    """How many characters at the end of one text are the beginning of the next; whole words, as chunks are cut."""
    for start in START.finditer(before, max(0, len(before) - len(after))):
        if after.startswith(before[start.start() :]):
            return len(before) - start.start()
    return 0
