"""What a word, a sentence and a name is, and whether one text supports another.

Everywhere `language` is an ISO 639-1 code, as `text.language` tells it; a language without rules here has the ones that
hold for all.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache
from itertools import pairwise

from llama_qna.text.language import HANGUL, UNSPACED, language_of
from llama_qna.text.stopwords import NAMES, PARTICLES, stopwords

# Vowel marks, accents and joiners, which Python takes for no part of a word; whole blocks of India's scripts.
MARK = (
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0711\u0730-\u074a"
    "\u07a6-\u07b0\u0900-\u0963\u0966-\u0dff\u0f71-\u0f84\u200c\u200d]"
)
LETTER = rf"[^\W{UNSPACED}]"  # or digit, of a script that puts spaces between words
# a number, a word, or a run of a script without spaces
PIECE = re.compile(rf"\d[\d.,]*\d|{LETTER}+(?:{MARK}{LETTER}*)*|[{UNSPACED}]+(?:{MARK}[{UNSPACED}]*)*")
CHARACTER = re.compile(rf"[{UNSPACED}]{MARK}*")
WORD = rf"{LETTER}+(?:{MARK}{LETTER}*)*"
TOKEN = re.compile(rf"{CHARACTER.pattern}|{WORD}")
IN_PAIRS = re.compile(rf"[{UNSPACED}{HANGUL}]")  # Korean has spaces, but hangs its particles on the words
NUMBER = re.compile(rf"(?<!{LETTER})(?:\d[\d.,]*\d|\d)(?!{LETTER})")
CAPITALIZED = re.compile(r"(?<=[\w,;] )[^\W\d_a-z]\w+")
# 10⁹ is not 109, nor is a formula's 𝐀 an article
KEPT = re.compile("((?<=[0-9])[²³¹⁰-ⁿ¼-¾⅐-⅞]+|[\U0001d400-\U0001d7ff]+)")
CITATION = re.compile(r" ?\[\d[\d, –-]*\]")
SPACED_STOPS, OTHER_STOPS = ".!?؟۔।॥։።", "。！？｡"  # what ends a sentence, before a space or not
FULL_STOP = re.compile(rf"[{SPACED_STOPS};]\s+(?=\S)|[{OTHER_STOPS}][」』”’）)]*\s*(?=.)")
ENDED = re.compile(rf"[{SPACED_STOPS}{OTHER_STOPS}…][\"'”’“»«」』）)\]*]*$")
ABBREVIATIONS = "Abb|Aufl|Bd|Dr|Dra|Fig|Jh|Kap|Mio|Mme|Mrd|Nr|Prof|Sig|Sr|Sra|St|Str|Tab|bzw|ca|vgl|núm|рис|табл|им|гг?"


def normalized(text: str) -> str:
    """A text in lower case and with one spelling for what looks alike (Unicode's NFKC and case folding)."""
    if text.isascii():
        return text.lower()
    parts = KEPT.split(text)
    return "".join(part if n % 2 else unicodedata.normalize("NFKC", part) for n, part in enumerate(parts)).casefold()


def supported(text: str, words: frozenset[str], source: frozenset[str], share: float, language: str) -> bool:
    """Whether numbers, names and at least a share of the content words of a text stand in its source."""
    return claims(text, language) <= source and len(words & source) >= share * len(words)


def similarity(first: str, second: str, language: str) -> float:
    """F1 of the content words of two answers, from 0 to 1."""
    one, other = content_words(first, language), content_words(second, language)
    return 2 * len(one & other) / max(1, len(one) + len(other))


@cache
def claims(text: str, language: str) -> frozenset[str]:
    """Numbers, and names: words with a capital that do not begin a sentence; in German every noun has one."""
    found = NUMBER.findall(text)
    for match in CAPITALIZED.finditer(text) if language != "de" else ():
        before = text[match.start() - 2]
        if match[0][0].isupper() and (before.islower() or before in ",;"):
            found.append(match[0])
    return content_words(" ".join(found), language)


@cache
def content_words(text: str, language: str) -> frozenset[str]:
    """The stems of the words that carry meaning, in lower case; numbers whole.

    Stems are Porter's for English and Snowball's for others (Porter 1980, 2001; `nltk`). Chinese, Japanese, Korean and
    other scripts without borders of words give pairs of neighbouring characters.
    """
    text = re.sub(r"['’]s\b", "", normalized(text))
    if language in PARTICLES:
        text = re.sub(PARTICLES[language], " ", text)
    pieces = set(PIECE.findall(text)) - stopwords(language)
    runs = {piece for piece in pieces if IN_PAIRS.match(piece)} if IN_PAIRS.search(text) else set()
    return frozenset(_stem(piece, language) for piece in pieces - runs).union(*map(_pairs, runs))


def _pairs(run: str) -> set[str]:
    return {sys.intern(run[n : n + 2]) for n in range(max(1, len(run) - 1))}


@cache
def _stem(word: str, language: str) -> str:
    stemmer = _stemmer(language)
    return stemmer.stem(word) if stemmer else word


@cache
def _stemmer(language: str):
    from nltk.stem.porter import PorterStemmer
    from nltk.stem.snowball import SnowballStemmer

    if language == "en":
        return PorterStemmer()
    name = NAMES.get(language)
    return SnowballStemmer(name) if name in SnowballStemmer.languages else None


def without_marks(text: str) -> str:
    """A text without citation marks, and with single spaces for gaps and line breaks."""
    return " ".join(CITATION.sub("", text).split())


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, as parts of the text `without_marks`."""
    language, text = language_of(text) or "en", without_marks(text)
    ends = [match.end() for match in FULL_STOP.finditer(text) if _is_end(text, match, language)]
    return [text[start:end].rstrip() for start, end in pairwise([0, *ends, len(text)])]


def _is_end(text: str, match: re.Match, language: str) -> bool:
    """Whether a mark that can end a sentence does: the next one begins with a capital, or its script has none."""
    mark, before, after = match[0][0], text[max(0, match.start() - 8) : match.start() + 1], text[match.end()]
    if mark in OTHER_STOPS:
        return True
    if mark == ";" and not "\u0370" <= before[-2:-1] <= "\u1fff":  # the question mark of Greek
        return False
    begins = after in '"“(«„¿¡' or (after.isalpha() and not after.islower())
    return begins and not _no_full_stop(language).search(before)


@cache
def _no_full_stop(language: str) -> re.Pattern:
    """What has a full stop within a sentence: initials, abbreviations (z. B.), and in German ordinals (3. Oktober)."""
    inside = r"\b[^\W\d_a-z]|et al"
    if language != "en":
        inside += rf"|\b(?:[^\W\d_]|{ABBREVIATIONS})"
    if language == "de":
        inside += r"|\b\d\d?"
    return re.compile(rf"(?:{inside})\.$")


@cache
def dictionary(language: str) -> dict[str, int]:
    """The words of a language in lower case with their frequencies, from the list that pyspellchecker ships.

    Empty where it has none. English has 160,000 words.
    """
    from spellchecker import SpellChecker

    if language not in SpellChecker.languages():
        return {}
    return SpellChecker(language=language).word_frequency.dictionary
