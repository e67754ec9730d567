"""Find sentences by their own words and those of their neighbours, however many there are.

A window is a sentence with its neighbours. How often a word stands in a window is a sum over its sentences, so that
windows of every width are scored from one index of the sentences, and none of them is ever written down.
"""

from __future__ import annotations

import math
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from llama_qna import UserError
from llama_qna.text.words import content_words

K1, B = 1.5, 0.75  # within 1.2 to 2 and 0.5 to 0.8, which Robertson and Zaragoza (2009) found good


class Windows:
    """BM25 over the windows of sentences (Robertson and Zaragoza 2009), with Lucene's idf, which is never negative.

    A word counts by its stem in the language of its text; stop words do not count. A word of a question counts by its
    stems in every language of the sentences.

    Args:
        texts: the N sentences of all sections, section after section.
        sections: the number of each one's section; a window ends with its section.
        languages: of each sentence.
        around: for each width of a window, how many neighbours it has on each side.

    Raises:
        UserError: no sentence has a word to search for.
    """

    def __init__(self, texts: Sequence[str], sections: Sequence[int], languages: Sequence[str], around: Sequence[int]):
        self._language, self._languages = list(languages), tuple(sorted(set(languages)))
        self._numbers: dict[str, int] = {}  # of the stems
        words, counts = array("i"), array("i")
        for text, language in zip(texts, languages, strict=True):
            before = len(words)
            words.extend(self._numbers.setdefault(stem, len(self._numbers)) for stem in stems(text, (language,)))
            counts.append(len(words) - before)
        if not words:
            raise UserError("there is nothing to search: no text has a word that is not a stop word")
        words, lengths = np.asarray(words), np.asarray(counts)  # (T,) of the T words of all sentences; (N,)
        self._standing = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)[np.argsort(words, kind="stable")]
        self._begins = np.concatenate([[0], np.cumsum(np.bincount(words))])  # of each stem's sentences in `_standing`
        self._borders = [_borders(np.asarray(sections), width) for width in around]
        # what a count is compared with in each window, (N,): it grows with the window's length
        sizes = [_within(lengths, borders) for borders in self._borders]
        self._norms = [K1 * (1 - B + B * size / size.mean()) for size in sizes]

    def scores(self, question: str) -> np.ndarray:
        """How much each sentence and its neighbours have to do with a question: BM25 summed over the widths, (N,)."""
        count = len(self._norms[0])
        scores = np.zeros(count)
        for stem, times in sorted(Counter(stems(question, self._languages)).items()):
            if (number := self._numbers.get(stem)) is None:
                continue
            sentences = self._standing[self._begins[number] : self._begins[number + 1]]
            standing = np.bincount(sentences, minlength=count)  # (N,): how often the word stands in each sentence
            for borders, norm in zip(self._borders, self._norms, strict=True):
                frequency = _within(standing, borders)  # (N,)
                having = np.count_nonzero(frequency)
                idf = math.log(1 + (count - having + 0.5) / (having + 0.5))
                scores += times * idf * frequency / (frequency + norm)
        return scores

    def share(self, question: str, n: int) -> float:
        """How many of a question's words stand in a sentence's widest window: a share, 0 to 1.

        The words are those of the sentence's language; a question of nothing but stop words has the share 0.
        """
        first, behind = (int(borders[n]) for borders in self._borders[-1])
        asked = set(stems(question, (self._language[n],)))
        numbers = [self._numbers[stem] for stem in asked if stem in self._numbers]
        standing = [self._standing[self._begins[number] : self._begins[number + 1]] for number in numbers]
        near = [bool(np.any((first <= sentences) & (sentences < behind))) for sentences in standing]
        return sum(near) / len(asked) if asked else 0.0


def _borders(sections: np.ndarray, around: int) -> tuple[np.ndarray, np.ndarray]:
    """The first sentence of every window, and the one after its last: two of (N,)."""
    places = np.arange(len(sections), dtype=np.int32)
    changes = np.flatnonzero(np.diff(sections)) + 1
    starts, ends = np.concatenate([[0], changes]), np.concatenate([changes, [len(sections)]])
    sizes = ends - starts
    first, behind = np.repeat(starts, sizes), np.repeat(ends, sizes)  # of the section of each sentence
    return np.maximum(places - around, first), np.minimum(places + around + 1, behind)


def _within(counts: np.ndarray, borders: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The sum of the counts of the sentences of every window, (N,)."""
    up_to = np.concatenate([[0], np.cumsum(counts)])
    first, behind = borders
    return up_to[behind] - up_to[first]


def stems(text: str, languages: tuple[str, ...]) -> Iterator[str]:
    """The content words of a text, each as often as it stands there, by their stems in each language."""
    for word in unicodedata.normalize("NFKC", text).split():  # an accent or a ligature can be written in two ways
        yield from frozenset().union(*(content_words(word, language) for language in languages))
