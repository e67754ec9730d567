"""Measures the text that a program found in a PDF against the truth of its case."""

import re

from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

from .model import Case

RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
RAISED_MARKS = re.compile(r"\^\{?(\d+)\}?|<sup>(\d+)</sup>|([⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
BULLET = re.compile(r"^[•‣◦▪–\-*·] ")
CJK_SPACE = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef]) | (?=[\u3000-\u9fff\uff00-\uffef])")
KEPT_APART = 90  # per cent of likeness from which a paragraph counts as a note


def character_error_rate(found_paragraphs: list[str], case: Case) -> float:
    """Give the edits that turn the found body into the true one, divided by the length of the true one.

    `found_paragraphs` is the body in the order found, without the headings that the program knows as such: a heading
    among the paragraphs counts as an error, each of its characters as an insertion. Both bodies are joined by single
    spaces, and white space is folded to single spaces and otherwise compared, also in Chinese and Japanese, so that a
    paragraph cut in two costs nothing in other languages and one character in these. Bullets at the start of
    paragraphs are taken off, and 10⁹, 10^9 and 10<sup>9</sup> are the same.

    Notes (`case.notes` and `case.title`) that the program kept apart cost nothing: a found paragraph is dropped first
    when at least 90 % of it agrees with a stretch of the notes and less of it with any stretch of the true body. Any
    other note is an error, each of its characters as an insertion: one that stands inside a paragraph of the body,
    a paragraph that is part note and part body, and a footnote's mark in the text. Whatever of the body is dropped
    together with a note, or is missing, counts as a deletion.
    """
    true = _fold(" ".join(_tidy(paragraph) for paragraph in case.body))
    notes = _fold(" ".join(_tidy(note) for note in [case.title, *case.notes]))
    found = [_fold(_tidy(paragraph)) for paragraph in found_paragraphs]
    body = _fold(" ".join(paragraph for paragraph in found if not _is_note(paragraph, notes, true)))
    return Levenshtein.distance(body, true) / len(true)


def heading_scores(found: list[str], case: Case) -> tuple[float, float]:
    """Give the share of the true headings that were found, and the share of the found ones that are invented.

    Headings agree when they are the same but for case, white space, leading # marks and a final full stop or colon;
    the numbering must be there. A heading with a line feed ("Chapter One", below it the words) may also be found as
    two. A found heading that is the title, or a note such as "Abstract" or an author, is neither right nor invented.
    With nothing to find, or nothing found, the share in question is 1 and 0.
    """
    whole = [_heading(heading) for heading in case.headings]
    parts = {_heading(part) for heading in case.headings for part in heading.split("\n") if "\n" in heading}
    neutral = {_heading(note) for note in [case.title, *case.notes]}
    got = [_heading(heading) for heading in found]
    right = sum(_found(heading, got) for heading in case.headings)
    invented = _surplus([heading for heading in got if heading not in parts | neutral], whole)
    return right / len(whole) if whole else 1.0, invented / len(got) if got else 0.0


def leaks(found_paragraphs: list[str], case: Case) -> list[str]:
    """List the strings of `case.absent` that got into the body, those under six letters only as whole paragraphs."""
    paragraphs = [_fold(paragraph) for paragraph in found_paragraphs]
    true = _fold(" ".join([*case.body, *case.headings, *case.notes, case.title]))
    found = []
    for text in map(_fold, case.absent):
        long = sum(char.isalpha() for char in text) >= 6
        if (long and text not in true and any(text in p for p in paragraphs)) or text in paragraphs:
            found.append(text)
    return found


def _fold(text: str) -> str:
    """Fold white space to single spaces."""
    return " ".join(text.split())


def _tidy(paragraph: str) -> str:
    """Take a bullet off and write raised figures in one way."""
    plain = RAISED_MARKS.sub(lambda match: "^" + (match[1] or match[2] or match[3].translate(RAISED)), paragraph)
    return BULLET.sub("", plain.strip())


def _is_note(paragraph: str, notes: str, true: str) -> bool:
    """Tell whether a found paragraph is, as a whole, a piece of the notes rather than of the body."""
    if not paragraph or len(paragraph) > 1.1 * len(notes):
        return False
    likeness = fuzz.partial_ratio(paragraph, notes)
    return likeness >= KEPT_APART and likeness > fuzz.partial_ratio(paragraph, true)


def _heading(text: str) -> str:
    """Fold a heading for comparison."""
    folded = _fold(text.lstrip("# ")).casefold().rstrip(".:： ")
    return CJK_SPACE.sub("", folded)


def _found(heading: str, got: list[str]) -> bool:
    """Tell whether a heading was found, whole or in the parts that its line feed makes."""
    return _heading(heading) in got or ("\n" in heading and all(_heading(part) in got for part in heading.split("\n")))


def _surplus(got: list[str], whole: list[str]) -> int:
    """Count the found headings that answer to no true one, repetitions included."""
    left = list(whole)
    for heading in got:
        if heading in left:
            left.remove(heading)
    return len(got) - (len(whole) - len(left))
