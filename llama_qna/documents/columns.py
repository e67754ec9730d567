"""The text of a PDF page in the order of reading, also where the file stores two columns line by line."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pypdfium2
import pypdfium2.raw as pdfium

GUTTER = 6  # points; the least gap between columns, wider than a space between words
ROWS = 6  # so many lines of both columns must stand interleaved
LINE_END_HYPHEN = "\x02"  # pdfium's own mark
Box = tuple[float, float, float, float]  # left, bottom, right, top in points, y upwards


@dataclass
class Fragment:
    """The part of a line that belongs to one column, or a line over both."""

    text: str
    box: Box


def page_text(page: pypdfium2.PdfPage) -> str:
    """The text of a page as pdfium returns it, put in order if two columns of prose are interleaved line by line.

    pdfium keeps the order of the content stream, which some producers write line by line over both columns. Lines over
    both columns keep their place. A line whose two halves are one text object in the file is not recognised.
    """
    textpage = page.get_textpage()
    text = textpage.get_text_bounded()
    boxes = [textpage.get_rect(n) for n in range(textpage.count_rects())]
    gutter = _gutter(boxes)
    if gutter is None:
        return text
    fragments = _fragments(textpage, gutter)
    if not _are_columns(fragments, gutter):
        return text
    return "\r\n".join(fragment.text for fragment in _in_order(fragments, gutter))


def _gutter(boxes: list[Box]) -> float | None:
    """The x between two columns that the text steps over most often, if it does so on `ROWS` lines at least."""
    gaps = [
        (one[2], other[0])
        for one, other in pairwise(boxes)
        if other[0] - one[2] >= GUTTER and min(one[3], other[3]) > max(one[1], other[1])
    ]
    if len(gaps) < ROWS:
        return None
    # the second column's edge is straight, the first one's may be ragged
    places = {round(right) - GUTTER / 2 for _, right in gaps}
    rows, x = max((sum(left < x < right for left, right in gaps), x) for x in places)
    return x if rows >= ROWS else None


def _fragments(textpage: pypdfium2.PdfTextPage, gutter: float) -> list[Fragment]:
    """The page's characters in the order of the file, parted at line ends and where the text steps over the gutter."""
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    fragments, text, box, last = [], "", None, None

    def flush():
        nonlocal text, box
        if box and text.strip():
            text = text.strip(" \r\n")
            text = text[:-1] + LINE_END_HYPHEN if text.endswith("-") else text
            fragments.append(Fragment(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), box))
        text, box = "", None

    for n in range(textpage.count_chars()):
        character = chr(pdfium.FPDFText_GetUnicode(textpage, n))
        if character in "\r\n":
            flush()
        elif character.isspace():
            text += character
        else:
            pdfium.FPDFText_GetCharBox(textpage, n, left, right, bottom, top)
            here = (left.value, bottom.value, right.value, top.value)
            if box and here[0] - last[2] >= GUTTER and last[2] <= gutter <= here[0]:
                flush()
            text, last = text + character, here
            box = here if not box else (*map(min, box[:2], here[:2]), *map(max, box[2:], here[2:]))
            if character == LINE_END_HYPHEN:  # pdfium leaves out the line end after it
                flush()
    flush()
    return fragments


def _are_columns(fragments: list[Fragment], gutter: float) -> bool:
    """Whether there are two columns of prose with their lines interleaved; a table is read row by row."""
    first, second = ([f for f in fragments if _side(f, gutter) == side] for side in ("first", "second"))
    sides = [_side(fragment, gutter) for fragment in fragments]
    steps = list(pairwise(sides)).count(("first", "second"))
    return 2 * steps >= min(len(first), len(second)) and _is_prose(first) and _is_prose(second)


def _side(fragment: Fragment, gutter: float) -> str:
    """The column that a fragment stands in: `first`, `second`, or `both`."""
    left, _, right, _ = fragment.box
    if left >= gutter:
        return "second"
    return "first" if right <= gutter else "both"


def _is_prose(column: list[Fragment]) -> bool:
    """Whether most lines are long, fill the column, and many begin in the middle of a sentence."""
    lengths = [len(fragment.text) for fragment in column]
    if len(lengths) < ROWS:
        return False
    going_on = sum(fragment.text[0].islower() for fragment in column)
    return median(lengths) >= max(20, 0.6 * max(lengths)) and going_on >= len(column) / 3


def _in_order(fragments: list[Fragment], gutter: float) -> list[Fragment]:
    """First column, second column; a line over both closes what is above it."""
    fragments = list(fragments)
    height = median(f.box[3] - f.box[1] for f in fragments)
    head = _edge_row(fragments, height, top=True)
    foot = _edge_row(fragments, height, top=False)
    ordered, columns = [], {"first": [], "second": []}
    for fragment in fragments:
        side = _side(fragment, gutter)
        if side == "both":
            ordered += columns["first"] + columns["second"] + [fragment]
            columns = {"first": [], "second": []}
        else:
            columns[side].append(fragment)
    return head + ordered + columns["first"] + columns["second"] + foot


def _edge_row(fragments: list[Fragment], height: float, top: bool) -> list[Fragment]:
    """Take away and return the row that stands apart at the page's edge: a running header or footer, from the left."""
    edge = max(f.box[3] for f in fragments) if top else min(f.box[1] for f in fragments)
    row = [f for f in fragments if (f.box[1] < edge < f.box[3] + 1 if top else f.box[1] - 1 < edge < f.box[3])]
    rest = [f for f in fragments if f not in row]
    if not rest:
        return []
    apart = (
        min(f.box[1] for f in row) - max(f.box[3] for f in rest)
        if top
        else min(f.box[1] for f in rest) - max(f.box[3] for f in row)
    )
    if apart < height:
        return []
    fragments[:] = rest
    return sorted(row, key=lambda f: f.box[0])
