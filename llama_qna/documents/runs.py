"""The runs of text on a PDF's pages as PDFium stores them: each in one font, with its place, size, weight and angle.

A run is what one operator of the file shows: mostly a line or a word, at times a letter. Asking PDFium run by run is
many times as quick as letter by letter; letters are asked for only where a run's spaces cannot be trusted.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

MOST_TEXT = 1 << 16  # UTF-16 units of one run
MOST_RULES = 400  # on one page; a drawing has more lines than a reader of text needs
DEEPEST_FORM = 4
BOLD = re.compile(r"bold|black|heavy|semibold|demi(?!n)|-bd\b", re.IGNORECASE)
ITALIC = re.compile(r"italic|oblique|slanted|kursiv", re.IGNORECASE)
BOLD_WEIGHT = 650  # of a font without a telling name; PDFium's scale is that of CSS
ITALIC_FLAG = 1 << 6  # ISO 32000-1, table 123
WORD_SPACE = 0.18  # of the size; by so much the gap between letter-spaced words is the wider one
STROKED = 2  # render mode: filled and stroked, which stands for bold
Point = tuple[float, float]


class Face(NamedTuple):
    """What a font looks like."""

    name: str
    bold: bool
    italic: bool


PLAIN = Face("", False, False)


@dataclass(slots=True)
class Run:
    """Text in one font on one base line; lengths in points, y upwards from the foot of the page as it is read."""

    text: str
    left: float
    right: float
    base: float
    size: float
    face: Face = PLAIN
    low: float = 0.0  # lower edge of the ink
    turn: int | None = 0  # quarter turns against the page's text; None: slanted
    order: float = 0  # place in the file


@dataclass
class Page:
    """The runs of one page, and its thin horizontal lines as (left, right, y)."""

    width: float
    height: float
    runs: list[Run]
    rules: list[tuple[float, float, float]] = field(default_factory=list)
    turned: bool = False  # its text stands on its side
    unreadable: int = 0  # characters of fonts that do not say which letters they draw

    @cached_property
    def text(self) -> str:
        return " ".join(run.text for run in self.runs)


def read_pdfium(path: Path) -> tuple[list[Page], dict[str, int | None]]:
    """The pages of a PDF, and the titles of its outline with the page (from 0) that each points to."""
    with pypdfium2.PdfDocument(path) as pdf:
        outline: dict[str, int | None] = {}
        for bookmark in pdf.get_toc():
            target = bookmark.get_dest()
            outline.setdefault(bookmark.get_title(), target.get_index() if target else None)
        reader = _Reader()
        return [reader.page(page) for page in pdf], outline


class _Reader:
    """Reads pages with buffers that are taken once, and remembers fonts by their address."""

    def __init__(self):
        self.buffer = (ctypes.c_ushort * MOST_TEXT)()
        self.box = [ctypes.c_float() for _ in range(4)]
        self.size, self.matrix = ctypes.c_float(), pdfium.FS_MATRIX()

    def page(self, page: pypdfium2.PdfPage) -> Page:
        """The page with its runs in the order of the file, upright whichever way it is stored."""
        textpage = page.get_textpage()
        rotation = page.get_rotation() // 90
        left, bottom, right, top = page.get_cropbox()
        self.faces: dict[int, Face] = {}
        self.textpage, self.stored, self.rules = textpage, [], []
        self.spaced: dict[float, float] = {}  # how far letter-spaced runs part their letters, by place in the file
        self._objects(page.raw, pdfium.FPDFPage_CountObjects, pdfium.FPDFPage_GetObject, None, 0)
        weights = Counter()
        for text, _, _, quarters, *_ in self.stored:
            weights[quarters] += len(text)
        weights.pop(None, None)
        main = max(weights, key=weights.get) if weights else rotation
        turn = _Turn((-main) % 4, (left, bottom, right, top))
        runs = [run for n, entry in enumerate(self.stored) if (run := self._run(n, entry, turn, main))]
        self._close_up_numbers(runs)
        rules = [(min(a[0], b[0]), max(a[0], b[0]), a[1]) for a, b in (map(turn, ends) for ends in self.rules)]
        rules = [rule for rule in rules if rule[1] - rule[0] > 5]
        found = Page(turn.width, turn.height, runs, rules, turned=main != rotation)
        found.unreadable = self._unreadable() if runs else 0
        textpage.close()
        return found

    def _objects(self, container, count, get, outer, depth) -> None:
        """Collect text and rules, in forms too; `outer` is the matrix of the form that holds them."""
        for n in range(count(container)):
            item = get(container, n)
            kind = pdfium.FPDFPageObj_GetType(item)
            if kind == pdfium.FPDF_PAGEOBJ_TEXT:
                self._text(item, outer)
            elif kind == pdfium.FPDF_PAGEOBJ_PATH and len(self.rules) < MOST_RULES:
                self._rule(item, outer)
            elif kind == pdfium.FPDF_PAGEOBJ_FORM and depth < DEEPEST_FORM:
                pdfium.FPDFPageObj_GetMatrix(item, self.matrix)
                m = self.matrix
                inner = _times((m.a, m.b, m.c, m.d, m.e, m.f), outer)
                self._objects(item, pdfium.FPDFFormObj_CountObjects, pdfium.FPDFFormObj_GetObject, inner, depth + 1)

    def _text(self, item, outer) -> None:
        length = pdfium.FPDFTextObj_GetText(item, self.textpage, self.buffer, 2 * MOST_TEXT)
        if not 2 < length <= 2 * MOST_TEXT:  # in bytes, with a closing zero
            return
        text = ctypes.string_at(self.buffer, length - 2).decode("utf-16-le", "replace")
        if not text or text.isspace():
            return
        m = self.matrix
        left, bottom, right, top = self.box
        pdfium.FPDFPageObj_GetMatrix(item, m)
        pdfium.FPDFPageObj_GetBounds(item, left, bottom, right, top)
        pdfium.FPDFTextObj_GetFontSize(item, self.size)
        matrix, box = (m.a, m.b, m.c, m.d, m.e, m.f), (left.value, bottom.value, right.value, top.value)
        if outer:
            matrix = _times(matrix, outer)
            (left, bottom), (right, top) = _apply(outer, *box[:2]), _apply(outer, *box[2:])
            box = (min(left, right), min(bottom, top), max(left, right), max(bottom, top))
        size = abs(self.size.value) * (abs(matrix[3]) if not matrix[2] else math.hypot(matrix[2], matrix[3]))
        quarters = 0 if not matrix[1] and matrix[0] > 0 else _quarters(matrix[0], matrix[1])
        self.stored.append((text, size, self._face(item), quarters, matrix[4:], box, item))

    def _rule(self, item, outer) -> None:
        pdfium.FPDFPageObj_GetBounds(item, *self.box)
        left, bottom, right, top = (value.value for value in self.box)
        if min(right - left, top - bottom) < 2.5 and max(right - left, top - bottom) > 8:
            ends = (left, bottom), (right, top)
            self.rules.append(tuple(_apply(outer, *end) for end in ends) if outer else ends)

    def _face(self, item) -> Face:
        font = pdfium.FPDFTextObj_GetFont(item)
        if not font:
            return PLAIN
        address = ctypes.addressof(font.contents)
        face = self.faces.get(address)
        if face is None:
            name = ctypes.create_string_buffer(256)
            pdfium.FPDFFont_GetBaseFontName(font, name, 256)
            name = name.value.decode("utf-8", "replace").split("+")[-1]
            bold = bool(BOLD.search(name)) or pdfium.FPDFFont_GetWeight(font) >= BOLD_WEIGHT
            italic = bool(ITALIC.search(name)) or bool(pdfium.FPDFFont_GetFlags(font) & ITALIC_FLAG)
            face = self.faces[address] = Face(name, bold, italic)
        if not face.bold and pdfium.FPDFTextObj_GetTextRenderMode(item) == STROKED:
            return face._replace(bold=True)
        return face

    def _run(self, order: int, entry, turn: _Turn, main: int) -> Run | None:
        text, size, face, quarters, origin, box, item = entry
        own = None if quarters is None else (quarters - main) % 4
        if turn.plain:
            (left, low, right, _), (x, base) = box, origin
        else:
            (left, low), (right, high), (x, base) = turn(box[:2]), turn(box[2:]), turn(origin)
            left, right, low = min(left, right), max(left, right), min(low, high)
        if own == 0 and not (-size < x < turn.width + size and -size < base < turn.height + size):
            return None  # outside the page, where nobody sees it
        if text[1:2] == " " and _is_spaced(text):
            gaps = [gap for _, gap in self._gaps(item)]
            self.spaced[order] = sorted(gaps)[len(gaps) // 2]
            text = self._spaced(item, text, size, self.spaced[order])
        return Run(text, left, right, base, size, face, low, own, order)

    def _close_up_numbers(self, runs: list[Run]) -> None:
        """The short run before a letter-spaced one, such as its number, is letter-spaced too."""
        for one, after in pairwise(runs):
            letters = one.text.split()
            if after.order in self.spaced and one.base == after.base and max(map(len, letters)) == 1:
                *_, item = self.stored[int(one.order)]
                one.text = self._spaced(item, one.text, one.size, self.spaced[after.order]) + " "

    def _spaced(self, item, text: str, size: float, tracking: float) -> str:
        """A letter-spaced run: PDFium parts all its letters, the wider gaps part its words."""
        wide = tracking + WORD_SPACE * size
        return "".join(letter + (" " if gap > wide else "") for letter, gap in self._gaps(item)).rstrip() or text

    def _gaps(self, item) -> list[tuple[str, float]]:
        """The letters of a run, each with the gap after it, in points."""
        boxes = []
        for n in self._characters().get(ctypes.addressof(item.contents), ()):
            letter = chr(pdfium.FPDFText_GetUnicode(self.textpage, n))
            if not letter.isspace():
                edges = [ctypes.c_double() for _ in range(4)]
                pdfium.FPDFText_GetCharBox(self.textpage, n, *edges)
                boxes.append((letter, edges[0].value, edges[1].value))
        following = [*boxes[1:], ("", boxes[-1][2], 0)] if boxes else []
        return [(one[0], after[1] - one[2]) for one, after in zip(boxes, following, strict=True)]

    def _characters(self) -> dict[int, list[int]]:
        """The numbers of the page's characters by the address of the run that they belong to."""
        if getattr(self, "_of", None) is not self.textpage:
            self._of, self._numbers = self.textpage, defaultdict(list)
            for n in range(self.textpage.count_chars()):
                owner = pdfium.FPDFText_GetTextObject(self.textpage, n)
                if owner:
                    self._numbers[ctypes.addressof(owner.contents)].append(n)
        return self._numbers

    def _unreadable(self) -> int:
        """About how many of the page's characters have no Unicode, judged by forty of them."""
        count = self.textpage.count_chars()
        step = max(1, count // 40)
        return step * sum(pdfium.FPDFText_HasUnicodeMapError(self.textpage, n) == 1 for n in range(0, count, step))


def by_base(runs: list[Run], near: Callable[[Run], float]) -> list[list[Run]]:
    """Runs by the line that they stand on, from the top.

    Args:
        near: how far below the first run of a line a run may stand, in points.
    """
    rows: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: -run.base):
        if rows and rows[-1][0].base - run.base < near(run):
            rows[-1].append(run)
        else:
            rows.append([run])
    return rows


class _Turn:
    """Turns points of a stored page by quarters, so that its text stands upright."""

    def __init__(self, quarters: int, crop: tuple[float, float, float, float]):
        self.quarters, (self.x, self.y, right, top) = quarters, crop
        self.across, self.up = right - self.x, top - self.y
        self.width, self.height = (self.up, self.across) if quarters % 2 else (self.across, self.up)
        self.plain = not (quarters or self.x or self.y)

    def __call__(self, point: Point) -> Point:
        x, y = point[0] - self.x, point[1] - self.y
        if not self.quarters:
            return x, y
        if self.quarters == 1:
            return self.up - y, x
        return (self.across - x, self.up - y) if self.quarters == 2 else (y, self.across - x)


def _is_spaced(text: str) -> bool:
    """Whether a text is letters with spaces between them."""
    letters = text.split()
    return len(letters) > 3 and sum(len(letter) == 1 for letter in letters) > 0.8 * len(letters)


def _quarters(a: float, b: float) -> int | None:
    """Quarter turns against the clock of a text's direction (a, b), None where it is slanted."""
    turns = math.atan2(b, a) / (math.pi / 2)
    return round(turns) % 4 if abs(turns - round(turns)) < 0.03 else None


def _times(inner, outer):
    if outer is None:
        return inner
    a, b, c, d, e, f = inner
    g, h, i, j, k, m = outer
    return (a * g + b * i, a * h + b * j, c * g + d * i, c * h + d * j, e * g + f * i + k, e * h + f * j + m)


def _apply(matrix, x: float, y: float) -> Point:
    a, b, c, d, e, f = matrix
    return a * x + c * y + e, b * x + d * y + f
