"""Words that a page broke up: at a line's end by a hyphen, in a title by spaces between its capitals."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise

from llama_qna.text.language import HAN, KANA, UNSPACED, main_language
from llama_qna.text.words import dictionary

HYPHEN = "\ufffe"  # how a hyphen at a line's end is marked until `join_lines` decides what it was
PAGE_BREAK = "\f"  # stands before the first line of a page while lines are joined
PlacedLine = tuple[str, int]  # text and page
_HEAD = rf"(?<!\w)(\w++)(?:{HYPHEN}(\s*)|-(\n\s*))"
BROKEN_WORD = re.compile(rf"{_HEAD}(?=(\w+))")  # the tail may be broken itself
WHOLE_BROKEN_WORD = re.compile(rf"{_HEAD}\w+")
TOKEN = re.compile(r"[\w-]+")
CAPITAL = "[A-ZÀ-ÖØ-Þ]"
# what a pattern begins with is sought fast, unless a look behind stands before it
SPACED_CAPITALS = re.compile(rf"{CAPITAL}(?<!\S.)(?:\s+{CAPITAL}){{3,}}(?!\S)")
ENDINGS = ("s", "es", "ed", "d", "ing", "er", "ers", "ly", "ness", "ization", "izing")
BRITISH = (  # pyspellchecker's list is American
    (re.compile("our"), "or"), (re.compile("is(?=e|ation|ing)"), "iz"), (re.compile("ys(?=e|ing)"), "yz"),
    (re.compile("tre(?=s?$|d$)"), "ter"), (re.compile("ence(?=s?$)"), "ense"), (re.compile("mme(?=s?$)"), "m"),
)  # fmt: skip
DASHED_LINE_END = re.compile(r"\n(?<=\w[–—]\n)(?=\w)")
WIDE = f"[{UNSPACED}\u3001-\u3011\uff01-\uff65]"  # with the punctuation of East Asia
EAST = f"[{KANA}{HAN}\u3001-\u3011\uff01-\uff65]"
QUOTES = "[“”‘’…—]"  # East Asia has them as wide as a character, other scripts with a space beside them
UNSPACED_LINE_END = re.compile(
    rf"\n(?:(?<={WIDE}\n)(?=\f?{WIDE})|(?<={EAST}\n)(?=\f?{QUOTES})|(?<={QUOTES}\n)(?=\f?{EAST})"
    rf"|(?:(?<={EAST}{QUOTES}\n)|(?<={EAST}{QUOTES}{QUOTES}\n))(?=\f?{QUOTES}))"
)
COMPOUNDING = {"da", "de", "et", "fi", "hu", "is", "nl", "no", "sv"}  # languages that write compounds in one word
# Words after a hyphen that stands for the rest of a later word: "Ein- und Ausgabe", "pre- and post-war".
SUSPENDED = {
    "da": ("og", "eller"), "de": ("und", "oder", "bzw", "sowie", "bis"), "en": ("and", "or"), "fi": ("ja", "tai"),
    "nl": ("en", "of"), "no": ("og", "eller"), "sv": ("och", "eller"),
}  # fmt: skip


class Vocabulary:
    """The words that may be made out of broken pieces: those of the document, and those of its language.

    Args:
        pages: the document's text; words broken at a line's end in it are not counted.
    """

    def __init__(self, pages: list[str]):
        whole = (WHOLE_BROKEN_WORD.sub(" ", _plain(page)) for page in pages)
        self.counts = Counter(word for page in whole for word in TOKEN.findall(page.lower()))
        self.language = main_language(pages)

    @property
    def words(self) -> dict[str, int]:
        """Those of the language, with their frequencies; loaded when they are first asked for."""
        return dictionary(self.language)

    def knows(self, word: str) -> bool:
        """Whether the document or its language has the word (in lower case), or one that it is a regular form of."""
        return any(form in self.counts or form in self.words for form in _forms(word))

    def joins(self, head: str, tail: str) -> bool:
        """Whether a word broken into `head` and `tail` was whole, so that its hyphen stands for the line's end only.

        What the document writes more often elsewhere decides; if that does not tell, the rules of its language.
        """
        same_case = tail == tail.lower() or (head.isupper() and tail.isupper())
        if not (head.isalpha() and tail.isalpha() and same_case):
            return False
        whole, hyphenated = self.counts[(head + tail).lower()], self.counts[f"{head}-{tail}".lower()]
        if whole != hyphenated:
            return whole > hyphenated
        return (self._joins_english if self.language == "en" else self._joins)(head, tail)

    def _joins_english(self, head: str, tail: str) -> bool:
        """The joined word must be known, and not be a rare one made of two frequent ones (man-made).

        A closed compound counts as known if it was broken inside one of its words (microcon-troller), not between them
        (brine-soaked).
        """
        word = (head + tail).lower()
        if self.knows(word):
            frequency = max(self.words.get(form, 0) for form in _forms(word))
            return frequency >= 1000 or min(self.words.get(half.lower(), 0) for half in (head, tail)) < 20_000
        halves = ((word[:n], word[n:]) for n in range(4, len(word) - 3) if n != len(head))
        # 50 is the list's lowest frequency
        return any((one in self.counts or self.words.get(one, 0) > 50) and self.knows(other) for one, other in halves)

    def _joins(self, head: str, tail: str) -> bool:
        """Other languages break words that no list has: only what shows that the hyphen belongs there keeps it.

        That is one letter or capitals before it (a-t-il, EU-weit), or a word on either side in a language that does not
        write compounds in one (peut-être), unless the joined word is known, maybe with another ending (par-lait).
        """
        if len(head) == 1 or (head.isupper() and tail.islower()) or tail in SUSPENDED.get(self.language, ()):
            return False
        word = (head + tail).lower()
        endings = 3 if len(tail) > 3 else 1
        if self.language in COMPOUNDING or any(word[: len(word) - n] in self.words for n in range(endings)):
            return True
        return not (head.lower() in self.words and tail.lower() in self.words)

    def segment(self, letters: str) -> list[str] | None:
        """Part letters that stand without gaps into the most likely known words; None if there are no such words.

        The likelihood of a parting is the product of its words' frequencies (unigram model, by dynamic programming).
        """
        lower = letters.lower()
        best: list[tuple[float, int] | None] = [(0.0, 0)] + [None] * len(lower)
        for end in range(1, len(lower) + 1):
            for start in range(max(0, end - 20), end):
                frequency = self._frequency(lower[start:end])
                if best[start] and frequency:
                    likelihood = best[start][0] + math.log(frequency / 1e9)
                    best[end] = max(best[end] or (-math.inf, 0), (likelihood, start))
        if not best[-1]:
            return None
        ends = [len(lower)]
        while ends[-1]:
            ends.append(best[ends[-1]][1])
        words = [letters[start:end] for start, end in pairwise(reversed(ends))]
        # labels such as "A B C D" or bases such as "C A T T A G" also spell short words
        plausible = max(map(len, words)) >= 4 and len(letters) >= 3 * len(words)
        return words if plausible else None

    def _frequency(self, word: str) -> int:
        """How frequent a word is, 0 for none; the short ones of the list are mostly abbreviations unless frequent."""
        frequency = self.words.get(word) or self.words.get(_american(word), 0)
        if len(word) < 4:
            return frequency if frequency > (5_000_000 if len(word) < 3 else 20_000) and word not in "stmd" else 0
        return frequency or (50 if self.counts[word] else 0)


def join_lines(lines: list[PlacedLine], vocabulary: Vocabulary, repairs: Counter) -> tuple[str, list]:
    """Join lines to running text, and the halves of a word that was broken at a line's end.

    Args:
        lines: each with its page.

    Returns:
        The text, and (offset in the text, page) for every page that a part of it stands on.
    """

    def join(match):
        head, letters = match[1], re.match(r"[^\W\d_]*", match[4]).group()  # a footnote's mark may hang on the tail
        is_word = vocabulary.joins(head, letters)
        repairs["line-end hyphens joined" if is_word else "line-end hyphens kept"] += 1
        page_break = PAGE_BREAK if PAGE_BREAK in (match[2] or match[3] or "") else ""
        if letters in SUSPENDED.get(vocabulary.language, ()) and not match.string.startswith("-", match.end(4)):
            return f"{head}- {page_break}"
        return f"{head}{'' if is_word else '-'}{page_break}"

    marked, pages = [], [lines[0][1]]
    for line, page in lines:
        if page != pages[-1]:
            line = PAGE_BREAK + line
            pages.append(page)
        marked.append(_plain(line))
    # pdfium marks a broken word and drops the line break; pdfminer keeps both
    text = BROKEN_WORD.sub(join, "\n".join(marked)).replace(HYPHEN, "-")
    text = UNSPACED_LINE_END.sub("", DASHED_LINE_END.sub("", text)).replace("\n", " ")
    parts = text.split(PAGE_BREAK)
    starts = accumulate(map(len, parts[:-1]), initial=0)
    return "".join(parts), list(zip(starts, pages, strict=True))


def close_up_capitals(line: str, vocabulary: Vocabulary, repairs: Counter) -> str:
    """Make words of capitals that are set apart by spaces ("C H A P T E R  O N E").

    The wider gaps part the words where there are any. Else the letters are parted into known words; letters that spell
    none, and fewer than four, stay as they are.
    """

    def close_up(match):
        run = match.group()
        if len(run) > 200:  # no title is so long, and parting it would take long
            return run
        narrow = min(len(gap) for gap in re.findall(r"\s+", run))
        groups = ["".join(group.split()) for group in re.split(rf"\s{{{narrow + 1},}}", run)]
        known = sum(len(group) for group in groups if len(group) >= 3 and vocabulary.knows(group.lower()))
        if len(groups) == 1 or 2 * known < len("".join(groups)):
            groups = vocabulary.segment("".join(groups))
        if not groups:
            return run
        repairs["spaced-out capitals"] += 1
        return " ".join(groups)

    return SPACED_CAPITALS.sub(close_up, line)


def _plain(text: str) -> str:
    """With one kind of hyphen: U+2010 and U+2011 look the same, and one of them at a line's end may break a word."""
    return text.replace("\u2010", "-").replace("\u2011", "-")


def _american(word: str) -> str:
    for british, american in BRITISH:
        word = british.sub(american, word)
    return word


def _forms(word: str) -> Iterator[str]:
    """The word and what it may be a regular form of, in both spellings: "stopped" gives "stopp", "stoppe", "stop"."""
    for spelling in dict.fromkeys((word, _american(word))):
        yield spelling
        for ending in ENDINGS:
            stem = spelling.removesuffix(ending)
            if stem != spelling and len(stem) >= 4:
                yield from (stem, stem + "e")
                if stem[-1] == stem[-2]:
                    yield stem[:-1]
                if stem[-1] == "i":
                    yield stem[:-1] + "y"
