"""Running headers, footers, page numbers and the dotted lines of a table of contents are dropped from pages."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from llama_qna.documents.sections import heading_key, numbered_heading

EDGE = 3  # so many repeating lines at the top and at the bottom of a page may be furniture
_ROMAN = r"(?=[ivxlc])c{0,3}(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})"
NUMBER = re.compile(rf"\d+|\b{_ROMAN}\b", re.IGNORECASE)
PAGE_NUMBER = re.compile(
    rf"[-–—\s\[(|]*(?:(?:page|p\.)\s*)?(?:\d{{1,4}}|{_ROMAN})(?:\s*(?:/|of)\s*\d{{1,4}})?[-–—\s\])|.]*", re.IGNORECASE
)
CONTENTS_LINE = re.compile(r"(?:\.\s*){5,}[\divxlc]*$")
CONTENTS_TITLE = re.compile(r"(?:table of )?contents", re.IGNORECASE)
SENTENCE = re.compile(r"\S+(?:\s+\S+){2,}[.!?]|(?:figure|fig\.|table|algorithm|equation)\s.*", re.IGNORECASE)


def drop_page_furniture(pages: list[list[str]], headings: dict, repairs: Counter) -> list[list[str]]:
    """Drop the lines at the edges of pages that repeat on other pages, numbers aside, and bare page numbers.

    The place where a heading itself stands is spared. If that would take most of most pages, as in a pile of forms
    that differ in their numbers only, no more than one line goes at each edge, and never a sentence or a page's last
    line.

    Args:
        pages: lines without needless spaces.
        headings: titles of the PDF's outline with the pages where they stand, from 0.
    """
    bodies = [_without_contents(page) for page in pages]
    repairs["contents lines"] += sum(map(len, pages)) - sum(map(len, bodies))
    pages = bodies
    repeats = _repeating_lines(pages, headings)
    kept = [_strip(page, lines, EDGE) for page, lines in zip(pages, repeats, strict=True)]
    emptied = sum(_is_gutted(page, rest) for page, rest in zip(pages, kept, strict=True))
    if 2 * emptied > sum(map(bool, pages)):
        plain = [{line for line in lines if not SENTENCE.fullmatch(line)} for lines in repeats]
        kept = [_strip(page, lines, 1, least=1) for page, lines in zip(pages, plain, strict=True)]
    repairs["running headers, footers, page numbers"] += sum(map(len, pages)) - sum(map(len, kept))
    return kept


def _without_contents(page: list[str]) -> list[str]:
    """The page without a table of contents: its dotted lines and its title."""
    body = [line for line in page if not CONTENTS_LINE.search(line)]
    return [line for line in body if not CONTENTS_TITLE.fullmatch(line)] if len(body) < len(page) else body


def _repeating_lines(pages: list[list[str]], headings: dict) -> list[set[str]]:
    """For every page the lines that may be furniture if they stand at its edge."""
    places: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for index, page in enumerate(pages):
        for line in dict.fromkeys(page[: EDGE + 1] + page[-EDGE - 1 :]):
            places[_form(line)][index].append(line)
    places.pop("", None)
    repeating: list[set[str]] = [set() for _ in pages]
    for found in places.values():
        order = list(found)
        for n, index in enumerate(order):
            # the pages before and after that have the line too; comparing all of them would take too long
            others = [(page, line) for page in order[max(0, n - 1) : n + 2] if page != index for line in found[page]]
            repeating[index] |= {line for line in found[index] if _repeats(line, index, others, first=n == 0)}
        for index in order:
            repeating[index] -= {line for line in found[index] if headings.get(heading_key(line), -1) == index}
    return repeating


def _repeats(line: str, index: int, others: list[tuple[int, str]], first: bool) -> bool:
    """Whether other pages have the line; of a sentence or a caption the numbers must be the same or count the pages."""
    numbers = NUMBER.findall(line)
    numbers_of_others = [(page - index, NUMBER.findall(other)) for page, other in others]
    if first and numbered_heading(line):
        # the heading itself, which later pages repeat at their head, unless its number is the page's
        return any(_counts_pages(numbers[:1], theirs[:1], pages, strictly=True) for pages, theirs in numbers_of_others)
    if SENTENCE.fullmatch(line):
        return any(_counts_pages(numbers, theirs, pages) for pages, theirs in numbers_of_others)
    return bool(others)


def _counts_pages(numbers: list[str], others: list[str], pages: int, strictly: bool = False) -> bool:
    """Whether the numbers differ by as many as the pages do, or (unless `strictly`) not at all."""
    return len(numbers) == len(others) and all(
        (one == other and not strictly) or (one.isdigit() and other.isdigit() and int(other) - int(one) == pages)
        for one, other in zip(numbers, others, strict=True)
    )


def _strip(page: list[str], repeats: set[str], most: int, least: int = 0) -> list[str]:
    """Take at each edge one page number and up to `most` repeating lines away; of those leave `least` lines."""
    lines = list(page)
    for edge in (0, -1):
        taken = numbers = 0
        while lines:
            if taken < most and lines[edge] in repeats and len(lines) > least:
                taken += 1
            elif not numbers and PAGE_NUMBER.fullmatch(lines[edge]):
                numbers += 1
            else:
                break
            del lines[edge]
    return lines


def _is_gutted(page: list[str], rest: list[str]) -> bool:
    return bool(page) and (not rest or (len(page) > 2 * EDGE and len(rest) < len(page) / 2))


def _form(line: str) -> str:
    """What is left of a line without its numbers, its case and its marks: "46 BETA DECAY" is "Beta Decay 47"."""
    return " ".join(re.findall(r"[^\W\d_]+", NUMBER.sub(" ", line))).casefold()
