"""Words that a page broke up: at a line's end by a hyphen, in a title by spaces between its capitals."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise

from llama_qna.text.words import english

HYPHEN = "\ufffe"  # how a hyphen at a line's end is marked until `join_lines` decides what it was
PAGE_BREAK = "\f"  # stands before the first line of a page while lines are joined
_HEAD = rf"(?<!\w)(\w++)(?:{HYPHEN}(\s*)|-(\n\s*))"
BROKEN_WORD = re.compile(rf"{_HEAD}(?=(\w+))")  # the tail may be broken itself
WHOLE_BROKEN_WORD = re.compile(rf"{_HEAD}\w+")
TOKEN = re.compile(r"[\w-]+")
CAPITAL = "[A-ZÀ-ÖØ-Þ]"
SPACED_CAPITALS = re.compile(rf"(?<!\S)(?:{CAPITAL}\s+){{3,}}{CAPITAL}(?!\S)")
ENDINGS = ("s", "es", "ed", "d", "ing", "er", "ers", "ly", "ness", "ization", "izing")
BRITISH = (  # pyspellchecker's list is American
    (re.compile("our"), "or"), (re.compile("is(?=e|ation|ing)"), "iz"), (re.compile("ys(?=e|ing)"), "yz"),
    (re.compile("tre(?=s?$|d$)"), "ter"), (re.compile("ence(?=s?$)"), "ense"), (re.compile("mme(?=s?$)"), "m"),
)  # fmt: skip
DASHED_LINE_END = re.compile(r"(?<=\w[–—])\n(?=\w)")
CJK_LINE_END = re.compile(
    "(?<=[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef])\n(?=\f?[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef])"
)


class Vocabulary:
    """The words that may be made out of broken pieces: those of the document, and those of English.

    Args:
        pages: the document's text; words broken at a line's end in it are not counted.
    """

    def __init__(self, pages: list[str]):
        whole = (WHOLE_BROKEN_WORD.sub(" ", page) for page in pages)
        self.counts = Counter(word for page in whole for word in TOKEN.findall(page.lower()))

    def knows(self, word: str) -> bool:
        """Whether the document or English has the word (in lower case), or one that it is a regular form of."""
        return any(form in self.counts or form in english() for form in _forms(word))

    def joins(self, head: str, tail: str) -> bool:
        """Whether a word broken into `head` and `tail` was whole, so that its hyphen stands for the line's end only.

        What the document writes more often elsewhere decides. If that does not tell, the joined word must be known, and
        not be a rare one made of two frequent ones (man-made). A closed compound counts as known if it was broken
        inside one of its words (microcon-troller), not between them (brine-soaked).
        """
        same_case = tail.islower() or (head.isupper() and tail.isupper())
        if not (head.isalpha() and tail.isalpha() and same_case):
            return False
        word, hyphenated = (head + tail).lower(), f"{head}-{tail}".lower()
        if self.counts[word] != self.counts[hyphenated]:
            return self.counts[word] > self.counts[hyphenated]
        if self.knows(word):
            frequency = max(english().get(form, 0) for form in _forms(word))
            return frequency >= 1000 or min(english().get(half.lower(), 0) for half in (head, tail)) < 20_000
        borders = (n for n in range(4, len(word) - 3) if n != len(head))
        return any(self._common(word[:n]) and self.knows(word[n:]) for n in borders)

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

    def _common(self, word: str) -> bool:
        return word in self.counts or english().get(word, 0) > 50  # 50 is the list's lowest frequency

    def _frequency(self, word: str) -> int:
        """How frequent a word is, 0 for none; the short ones of the list are mostly abbreviations unless frequent."""
        frequency = english().get(word) or english().get(_american(word), 0)
        if len(word) < 4:
            return frequency if frequency > (5_000_000 if len(word) < 3 else 20_000) and word not in "stmd" else 0
        return frequency or (50 if self.counts[word] else 0)


def join_lines(lines: list[tuple[str, int]], vocabulary: Vocabulary, report: Counter) -> tuple[str, list]:
    """Join lines to running text, and the halves of a word that was broken at a line's end.

    Args:
        lines: each with its page.

    Returns:
        The text, and (offset in the text, page) for every page that a part of it stands on.
    """

    def join(match):
        head, letters = match[1], re.match(r"[^\W\d_]*", match[4]).group()  # a footnote's mark may hang on the tail
        is_word = vocabulary.joins(head, letters)
        report["line-end hyphens joined" if is_word else "line-end hyphens kept"] += 1
        page_break = PAGE_BREAK if PAGE_BREAK in (match[2] or match[3] or "") else ""
        return f"{head}{'' if is_word else '-'}{page_break}"

    marked, last_page = [], lines[0][1]
    pages = [last_page]
    for line, page in lines:
        if page != last_page:
            line, last_page = PAGE_BREAK + line, page
            pages.append(page)
        marked.append(line)
    # pdfium marks a broken word and drops the line break; pdfminer keeps both
    text = BROKEN_WORD.sub(join, "\n".join(marked)).replace(HYPHEN, "-")
    text = CJK_LINE_END.sub("", DASHED_LINE_END.sub("", text)).replace("\n", " ")
    parts = text.split(PAGE_BREAK)
    starts = accumulate(map(len, parts[:-1]), initial=0)
    return "".join(parts), list(zip(starts, pages, strict=True))


def close_up_capitals(line: str, vocabulary: Vocabulary, report: Counter) -> str:
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
        report["spaced-out capitals"] += 1
        return " ".join(groups)

    return SPACED_CAPITALS.sub(close_up, line)


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
