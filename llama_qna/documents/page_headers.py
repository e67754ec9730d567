"""What stands on pages beside their text is dropped by its place: running heads, page and line numbers, watermarks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from operator import attrgetter
from statistics import median

from llama_qna.documents.runs import Page, Run, by_base
from llama_qna.documents.sections import heading_key, numbered_heading

EDGE = 3  # so many rows at the top and at the bottom of a page may be furniture
FILLED = 0.6  # of the width of the text, by the lines that numbers count
NEAR = 3.0  # points; the same place on another page
_ROMAN = r"(?=[ivxlc])c{0,3}(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})"
NUMERAL = re.compile(rf"\d+|\b{_ROMAN}\b", re.IGNORECASE)
PAGE_NUMBER = re.compile(
    rf"[-–—\s\[(|]*(?:(?:pages?|p\.|seite|s\.|página|pág\.|стр\.|str\.|strona)\s*)?(?:\d{{1,4}}|{_ROMAN})(?:\s*(?:/|of|von|sur|de|из|z)\s*\d{{1,4}})?[-–—\s\])|.]*",
    re.IGNORECASE,
)
SENTENCE = re.compile(  # or a caption: a word, its number, and words after it
    r"\S+(?:\s+\S+){2,}[.!?]|.{8,}[。！？]"
    r"|[^\W\d_]+\.?\s?(?:\d+(?:\.\d+)*|[IVXLC]+\b)(?:[.:：．]\s*\S.*|\s+[^\W\d_].*\D)"
)
YEAR = re.compile(r"[\[(]?(?:1[5-9]|20)\d\d[\]).]*")
DIVISION = re.compile(r"[^\W\d_]+\.?\s(\d{1,4})[.:)]?")  # "Article 12"
NUMBER_AT = {"start": re.compile(r"^\d{1,4}(?!\S)"), "end": re.compile(r"(?<!\S)\d{1,4}$")}  # of a row
LETTERS = re.compile(r"[^\W\d_]")


@dataclass(eq=False)
class _Row:
    """What stands on one base line, over the whole width of a page."""

    found: list[Run]
    base: float
    size: float

    @cached_property
    def runs(self) -> list[Run]:
        """From the left."""
        return sorted(self.found, key=attrgetter("left"))

    @cached_property
    def text(self) -> str:
        return " ".join(" ".join(run.text for run in self.runs).split())


def body_size(pages: list[Page]) -> float:
    """The size, in points, that most letters of a document have; 0 without any."""
    letters, sizes = defaultdict(int), Counter()
    for page in pages:
        for run in page.runs:
            if run.turn == 0:
                letters[run.size] += len(run.text)
    for size, count in letters.items():
        sizes[round(size, 1)] += count
    return sizes.most_common(1)[0][0] if sizes else 0.0


def drop_page_furniture(
    pages: list[Page], size: float, repairs: Counter, outline: dict[str, int | None]
) -> list[list[str]]:
    """Take out of the pages what repeats at the same place, numbers aside, or numbers the pages or their lines.

    Large upright text stays, since the title of a slide may repeat. If rows at the edges would take most of most pages,
    as in a pile of forms, no more than one goes at each edge, and never a sentence.

    Args:
        size: of the document's text, in points.

    Returns:
        For every page the turned text that is no furniture, such as the label of an axis.
    """
    before = sum(len(page.runs) for page in pages)
    aside = _drop_turned(pages, size)
    _drop_edges(pages, size, {(heading_key(title), page) for title, page in outline.items()})
    _drop_same_place(pages, size)
    _drop_line_numbers(pages, size)
    repairs["running headers, footers, page numbers"] += before - sum(len(page.runs) for page in pages)
    return aside


def _keep(page: Page, gone: set[int]) -> None:
    if gone:
        page.runs = [run for run in page.runs if id(run) not in gone]


def _drop_turned(pages: list[Page], size: float) -> list[list[str]]:
    """Take turned runs out; return those that may be read: neither repeated, nor very large, nor beside the text."""
    seen = Counter(run.text.strip() for page in pages for run in page.runs if run.turn != 0)
    aside = []
    for page in pages:
        upright = [run for run in page.runs if run.turn == 0]
        left = min((run.left for run in upright), default=0)
        right = max((run.right for run in upright), default=page.width)
        turned = [run for run in page.runs if run.turn != 0 and run.size < 2 * size and left < run.left < right]
        aside.append([run.text.strip() for run in turned if seen[run.text.strip()] == 1])
        page.runs = upright
    return aside


def _drop_same_place(pages: list[Page], size: float) -> None:
    """Drop runs with the same words at the same place on two pages at least, and on two of five.

    Words that are drawn one by one meet by chance: a single one has to be on three pages, and on half of them.
    """
    places: dict[tuple, list[tuple[int, Run]]] = defaultdict(list)
    for n, page in enumerate(pages):
        for run in page.runs:
            if len(run.text) > 3 and run.size < 1.15 * size:
                places[run.text.strip(), round(run.left / NEAR), round(run.base / NEAR)].append((n, run))
    gone: list[set[int]] = [set() for _ in pages]
    for (text, *_), found in places.items():
        least = max(2, 0.4 * len(pages)) if len(text.split()) > 1 else max(3, 0.5 * len(pages))
        if len({n for n, _ in found}) >= least:
            for n, run in found:
                gone[n].add(id(run))
    if 2 * sum(map(_is_gutted, pages, gone)) <= len(pages):
        for page, some in zip(pages, gone, strict=True):
            _keep(page, some)


def _drop_line_numbers(pages: list[Page], size: float) -> None:
    """Drop numbers that count lines: one below the other, left or right of all other text, in even steps.

    Beside them stand lines of text, which fill most of the width; beside the years or ranks of a table stand cells.
    """
    for page in pages:
        numbers = [run for run in page.runs if run.text.strip().isdigit() and run.size < 1.1 * size]
        if len(numbers) < 3:
            continue
        text = [run for run in page.runs if not run.text.strip().isdigit()]
        others = [run for run in text if len(run.text) > 1]
        if not others:
            continue
        lefts = sorted(run.left for run in others)
        edge, far = lefts[len(lefts) // 10], max(run.right for run in others)
        outside = [run for run in numbers if run.right < edge - 2 or run.left > far + 2]
        for side in (lambda run: run.right, lambda run: run.left):
            columns: dict[int, list[Run]] = defaultdict(list)
            for run in outside:
                columns[round(side(run) / 2)].append(run)
            for column in filter(_counts, columns.values()):
                if _line_width(text, column, size) < FILLED * (far - edge):
                    continue
                _keep(page, {id(run) for run in outside if abs(run.right - column[0].right) < 12})


def _line_width(text: list[Run], numbers: list[Run], size: float) -> float:
    """How many points of the lines from the first to the last of some numbers are text, in the median."""
    bases = [number.base for number in numbers]
    low, high = min(bases) - 0.6 * size, max(bases) + 0.6 * size
    beside = [run for run in text if low < run.base < high]
    rows = by_base(beside, 0.6)  # columns beside each other need not share their base lines
    return median(sum(run.right - run.left for run in row) for row in rows) if rows else 0


def _counts(column: list[Run]) -> bool:
    """Whether numbers below each other grow, most of them by the same step."""
    values = [int(run.text) for run in sorted(column, key=lambda run: -run.base)]
    steps = Counter(after - one for one, after in pairwise(values))
    return len(values) > 2 and min(steps) > 0 and max(steps.values()) >= 0.7 * (len(values) - 1)


def _drop_edges(pages: list[Page], size: float, titles: set[tuple[str, int | None]]) -> None:
    """Drop rows at the upper and the lower edges, from outside, as long as something says that they are furniture.

    Args:
        titles: of the outline, each with its page, from 0: they are not dropped there.
    """
    rows = [_rows(page.runs) for page in pages]
    gone: list[set[int]] = [set() for _ in pages]
    for upper in (True, False):
        edges = [(found if upper else found[::-1])[: EDGE + 1] for found in rows]
        known = _repeated(edges, size, upper)
        heights = [(row.base, row.size) for edge in edges for row in edge[:EDGE] if row in known]
        top = _top(rows, size) if upper and len(pages) > 1 else float("inf")
        for n, edge in enumerate(edges):
            for row, after in zip(edge[:EDGE], [*edge[1:], None], strict=False):
                above = n > 0 and row.base > top + 0.9 * size and row.size < 0.97 * size
                stays = titles and (heading_key(row.text), n) in titles
                if stays or not (row in known or _stands_apart(row, after, heights, above, size)):
                    break
                gone[n] |= {id(run) for run in row.runs}
    gutted = sum(_is_gutted(page, some) for page, some in zip(pages, gone, strict=True))
    for page, some, found in zip(pages, gone, rows, strict=True):
        if found and 2 * gutted > sum(bool(page.runs) for page in pages):
            ends = [row for row in {found[0], found[-1]} if len(found) > 1 or _is_page_number(row, size)]
            some &= {id(run) for row in ends if not SENTENCE.fullmatch(row.text) for run in row.runs}
        _keep(page, some)


def _is_gutted(page: Page, gone: set[int]) -> bool:
    """Whether more than half of a page's letters would go."""
    if not gone:
        return False
    letters = sum(len(run.text) for run in page.runs if id(run) in gone)
    return 2 * letters > sum(len(run.text) for run in page.runs)


def _stands_apart(row: _Row, after: _Row | None, heights: list[tuple[float, float]], above: bool, size: float) -> bool:
    """Whether a row at an edge is a page number, or stands apart where other pages have their furniture.

    Args:
        after: the next row inwards.
        heights: base line and size of furniture on other pages.
        above: whether the row is small and above the text of all pages.
    """
    gap = abs(row.base - after.base) if after else float("inf")
    if gap > 0.9 * size and _is_page_number(row, size):
        return True
    if not after or gap <= 1.35 * max(row.size, min(after.size, size)) or row.size >= 1.15 * size:
        return False
    if row.size > 0.97 * size and numbered_heading(row.text):
        return False
    return above or any(abs(row.base - base) < 1.5 and abs(row.size - own) < 0.6 for base, own in heights)


def _is_page_number(row: _Row, size: float) -> bool:
    """Whether a row is no more than a page number; what may be a year is one where it counts the pages."""
    is_number = PAGE_NUMBER.fullmatch(row.text) and not YEAR.fullmatch(row.text)
    return len(row.text) < 20 and row.size < 1.04 * size and bool(is_number)


def _rows(runs: list[Run]) -> list[_Row]:
    return [_Row(row, row[0].base, max(run.size for run in row)) for row in by_base(runs, 0.3)]


def _top(rows: list[list[_Row]], size: float) -> float:
    """The height at which the text of the document's pages begins."""
    tops = []
    for page in rows:
        body = (row.base for row in page if abs(row.size - size) < 0.06 * size and len(row.text) > 12)
        first = list(islice(body, 3))
        tops += first[:1] if len(first) > 2 else []
    return max(tops, default=float("inf"))


def _repeated(edges: list[list[_Row]], size: float, upper: bool) -> set[_Row]:
    """The rows whose words, or whose count of the pages, another page has at the same height.

    A word and a number at the top of a page, with text below them, may begin a division of it, such as an article: that
    is furniture where the very same repeats, or where it counts many pages.
    """
    found: dict[tuple, list[tuple[int, _Row]]] = defaultdict(list)
    for n, edge in enumerate(edges):
        for row, after in zip(edge[:EDGE], [*edge[1:], None], strict=False):
            if row.size > 1.04 * size:
                continue  # a heading, or the title of a slide
            text, form = row.text, _form(row.text)
            division = DIVISION.fullmatch(text) if upper and after and after.size <= 1.04 * size else None
            if division and not _is_set_apart(row):
                found["same", text].append((n, row))
                found["division", int(division[1]) - n].append((n, row))
                continue
            if SENTENCE.fullmatch(text):  # its numbers must be the same, or count the pages
                numbers = [int(number) for number in NUMERAL.findall(text) if number.isdigit()]
                found["same", text].append((n, row))
                found["words", form, *(number - n for number in numbers)].append((n, row))
            elif len(LETTERS.findall(form)) > 2:
                found["words", form].append((n, row))
            first = row.runs[0]
            if first.size > 0.9 * row.size and first.low - first.base < 0.2 * first.size:  # else the mark of a note
                for place, pattern in NUMBER_AT.items():
                    if match := pattern.search(text):
                        found["count", place, int(match.group()) - n].append((n, row))
    known = set()
    for key, places in found.items():
        for n, row in places:
            if n == places[0][0] and key[0] == "words" and numbered_heading(row.text):
                continue  # the heading itself, which later pages repeat at their head
            if key[0] == "division" and len({page for page, _ in places}) < max(3, 0.3 * len(edges)):
                break
            others = [other for page, other in places if page != n and abs(other.base - row.base) < NEAR]
            if others and (key[0] != "count" or len(row.text) < 90):
                known.add(row)
    return known


def _is_set_apart(row: _Row) -> bool:
    """Whether white stands within a row, as between the words of a running head and its number."""
    gaps = (after.left - one.right for one, after in pairwise(row.runs))
    return any("  " in run.text.strip() for run in row.runs) or max(gaps, default=0) > row.size


def _form(text: str) -> str:
    """What is left of a row without its numbers, its case and its marks: "46 BETA DECAY" is "Beta Decay 47"."""
    return " ".join(re.findall(r"[^\W\d_]+", NUMERAL.sub(" ", text))).casefold()
