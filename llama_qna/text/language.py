"""Which language a text is in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache, lru_cache

KANA = "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff"
HANGUL = "\u1100-\u11ff\uac00-\ud7af"
HAN = "\u3005\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# scripts that put no space between words
UNSPACED = f"{KANA}{HAN}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # the last are Thai, Lao, Burmese and Khmer
LETTERS_PER_CHARACTER = 3  # one character of East Asia says about as much as three letters
SLICE, SLICES = 350, 5  # characters that the detector reads at once; how many such parts of a text it is given
LEAST_GAP = 0.01  # between the scores of the two best languages
LEAST_SHARE, LEAST_BYTES = 0.05, 40  # of some texts, for a language to be one that they are written in
# What no other language has so much of; they spare most English texts the detector.
ENGLISH = re.compile(r"\b(?:the|and|which|that|with|from)\b", re.IGNORECASE)
ENGLISH_SHARE = 0.05


def language_of(text: str) -> str:
    """The language that a text is mostly in, as its ISO 639-1 code, or an empty string where that cannot be told.

    >>> language_of("Wie groß ist das Moor?")
    'de'

    Chinese, Japanese and Korean are known by their characters, others by their n-grams in up to five slices (`eld`).
    """
    count = min(SLICES, 1 + len(text) // 2000)
    starts = (max(0, len(text) * (2 * n + 1) // (2 * count) - SLICE // 2) for n in range(count))
    return _language_of_slices(tuple(text[start : start + SLICE] for start in starts))


@cache
def _language_of_slices(slices: tuple[str, ...]) -> str:
    small = sum(len(ENGLISH.findall(text)) for text in slices)
    if small > 1 and small >= ENGLISH_SHARE * sum(len(text.split()) for text in slices):
        return "en"
    return _east_asian("".join(slices)) or _by_ngrams(slices)


def languages_of(texts: Iterable[str]) -> list[str]:
    """The language of each text of a collection.

    A text has the main language where its own cannot be told, or where too little is in that to believe it; English
    where there is no main one.
    """
    texts = tuple(texts)
    main, *others = _main_languages(texts) or ["en"]
    found = map(language_of, texts)
    return [language if language in others else main for language in found]


def main_language(texts: Iterable[str]) -> str:
    """The language that most of some texts is in, English where that cannot be told."""
    return (_main_languages(tuple(texts)) or ["en"])[0]


@lru_cache(maxsize=16)
def _main_languages(texts: tuple[str, ...]) -> list[str]:
    """The languages that enough of some texts is in, the most frequent first.

    Sizes are in bytes: a character of East Asia says more, and has more of them.
    """
    sizes = Counter()
    for text in texts:
        sizes[language_of(text)] += len(text.encode(errors="ignore"))
    enough = max(LEAST_BYTES, LEAST_SHARE * sizes.total())
    return [language for language, size in sizes.most_common() if language and size >= enough]


def _east_asian(text: str) -> str:
    kana, hangul, han = (len(re.findall(f"[{script}]", text)) for script in (KANA, HANGUL, HAN))
    characters = kana + hangul + han
    others = len(re.findall(r"[^\W\d_]", text)) - characters
    if not characters or LETTERS_PER_CHARACTER * characters < others:
        return ""
    if hangul > kana:
        return "ko"
    return "ja" if 10 * kana >= characters else "zh"  # Chinese may quote a Japanese name


def _by_ngrams(slices: tuple[str, ...]) -> str:
    scores = Counter()
    for text in slices:
        scores.update(_detector().detect(text).scores())
    (language, best), (_, second) = (scores.most_common(2) + [("", 0)] * 2)[:2]
    return language if best - second >= LEAST_GAP else ""


@cache
def _detector():
    from eld import LanguageDetector

    return LanguageDetector()
