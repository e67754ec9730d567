"""What a word, a sentence and a name is, and whether one text supports another."""

from __future__ import annotations

import re
from functools import cache

STOPWORDS = set(
    "a about after all also an and any are as at be because been before between both but by can did do does each for "
    "from had has have he her his how if in into is it its may more most must no not of on one only or other out over "
    "she so some such than that the their them then there these they this those to two under up very was we were what "
    "when where which who why will with would you your many much long year percentage".split()
)


def supported(text: str, words: frozenset[str], source: frozenset[str], share: float) -> bool:
    """Whether numbers, names and at least a share of the content words of a text stand in its source."""
    return claims(text) <= source and len(words & source) >= share * len(words)


def similarity(first: str, second: str) -> float:
    """F1 of the content words of two answers, from 0 to 1."""
    one, other = content_words(first), content_words(second)
    return 2 * len(one & other) / max(1, len(one) + len(other))


def claims(text: str) -> frozenset[str]:
    """Numbers, and names: words with a capital that do not begin a sentence."""
    names = re.findall(r"(?<=[a-z,;] )[A-Z]\w+", text)
    numbers = re.findall(r"(?<!\w)(?:\d[\d.,]*\d|\d)\b", text)
    return content_words(" ".join(names + numbers))


@cache
def content_words(text: str) -> frozenset[str]:
    """The stems (Porter's) of the words that carry meaning, in lower case; numbers whole."""
    words = re.findall(r"\d[\d.,]*\d|\w+", re.sub(r"['’]s\b", "", text.lower()))
    return frozenset(_stem(word) for word in words if word not in STOPWORDS)


@cache
def _stem(word: str) -> str:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer().stem(word)


CITATION = re.compile(r" ?\[\d[\d, –-]*\]")


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, without citation marks and line breaks."""
    return re.split(r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!et al\.)\s+(?=[A-Z\"“(])", " ".join(CITATION.sub("", text).split()))


@cache
def english() -> dict[str, int]:
    """English words in lower case with their frequencies, from the list that pyspellchecker ships (160,000 words)."""
    from spellchecker import SpellChecker

    return SpellChecker(language="en").word_frequency.dictionary
