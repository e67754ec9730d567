"""The runs of text on a PDF's pages as PDFium stores them: each in one font, with its place, size, weight and angle.

A run is what one operator of the file shows: mostly a line or a word, at times a letter. Asking PDFium run by run is
many times as quick as letter by letter; letters are asked for only where a run's spaces cannot be trusted.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from llama_qna.documents.halves import in_halves

MOST_TEXT = 1 << 16  # UTF-16 units of one run
MANY_RUNS = 400  # on one page; of fewer, PDFium finds the texts as quickly
MOST_RULES = 400  # on one page; a drawing has more lines than a reader of text needs
DEEPEST_FORM = 4
BOLD = re.compile(r"bold|black|heavy|semibold|demi(?!n)|-bd\b", re.IGNORECASE)
ITALIC = re.compile(r"italic|oblique|slanted|kursiv", re.IGNORECASE)
BOLD_WEIGHT = 650  # of a font without a telling name; PDFium's scale is that of CSS
ITALIC_FLAG = 1 << 6  # ISO 32000-1, table 123
WORD_SPACE = 0.18  # of the size; by so much the gap between letter-spaced words is the wider one
STROKED = 2  # render mode: filled and stroked, which stands for bold
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top
Matrix = tuple[float, float, float, float, float, float]  # (x, y) -> (ax + cy + e, bx + dy + f)


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
        count = len(pdf)

    def read(numbers: range) -> list[Page]:
        with pypdfium2.PdfDocument(path) as pdf:
            return [_Reader(pdf[n]).page() for n in numbers]

    return in_halves(read, count), outline


class _Stored(NamedTuple):
    """Text as the file has it: lengths in points of the stored page, quarter turns against the clock."""

    text: str
    size: float
    face: Face
    quarters: int | None
    origin: Point
    box: Box
    item: object  # PDFium's


class _Reader:
    """Reads one page; remembers its fonts by their address."""

    def __init__(self, page: pypdfium2.PdfPage):
        self.source, self.textpage = page, page.get_textpage()
        self.raw_textpage = self.textpage.raw  # quicker to pass than the object
        self.buffer = (ctypes.c_ushort * MOST_TEXT)()
        self.bytes = memoryview(self.buffer).cast("B")
        self.edges, self.size, self.matrix = [ctypes.c_float() for _ in range(4)], ctypes.c_float(), pdfium.FS_MATRIX()
        self.faces: dict[int, Face] = {}
        self.stored: list[_Stored] = []
        self.rules: list[Box] = []

    def page(self) -> Page:
        """The page with its runs in the order of the file, upright whichever way it is stored."""
        self._objects(self.source.raw, pdfium.FPDFPage_CountObjects, pdfium.FPDFPage_GetObject, None, 0)
        rotation = self.source.get_rotation() // 90
        weights = Counter()
        for entry in self.stored:
            weights[entry.quarters] += len(entry.text)
        weights.pop(None, None)
        main = max(weights, key=weights.get) if weights else rotation
        left, bottom, right, top = self.source.get_bbox()  # get_cropbox misses a box that all pages share
        upright = {
            0: (1, 0, 0, 1, -left, -bottom),
            1: (0, -1, 1, 0, -bottom, right),
            2: (-1, 0, 0, -1, right, top),
            3: (0, 1, -1, 0, top, -left),
        }[main]
        width, height = (top - bottom, right - left) if main % 2 else (right - left, top - bottom)
        boxes = (_turned(upright, box) for box in self.rules)
        rules = [(left, right, low) for left, low, right, _ in boxes if right - left > 5]
        found = Page(width, height, self._runs(upright, main, width, height), rules, turned=main != rotation)
        found.unreadable = self._unreadable() if found.runs else 0
        self.textpage.close()
        self.source.close()
        return found

    def _objects(self, container, count, get, outer, depth) -> None:
        """Collect text and rules, in forms too; `outer` is the matrix of the form that holds them."""
        for n in range(count(container)):
            item = get(container, n)
            kind = pdfium.FPDFPageObj_GetType(item)
            if kind == pdfium.FPDF_PAGEOBJ_TEXT:
                self._text(item, outer)
            elif kind == pdfium.FPDF_PAGEOBJ_PATH and len(self.rules) < MOST_RULES:
                left, bottom, right, top = box = self._box(item, outer)
                if min(right - left, top - bottom) < 2.5 and max(right - left, top - bottom) > 8:
                    self.rules.append(box)
            elif kind == pdfium.FPDF_PAGEOBJ_FORM and depth < DEEPEST_FORM:
                inner = self._matrix(item, outer)
                self._objects(item, pdfium.FPDFFormObj_CountObjects, pdfium.FPDFFormObj_GetObject, inner, depth + 1)

    def _text(self, item, outer) -> None:
        text = self._string(item)
        if not text or text.isspace():
            return
        a, b, c, d, *origin = self._matrix(item, outer)
        pdfium.FPDFTextObj_GetFontSize(item, self.size)
        size = abs(self.size.value) * math.hypot(c, d)
        quarters = 0 if not b and a > 0 else _quarters(a, b)
        self.stored.append(_Stored(text, size, self._face(item), quarters, origin, self._box(item, outer), item))

    def _string(self, item) -> str:
        """The text of a run, with the space after it.

        PDFium looks through the whole page for it. Where runs are many, each character is asked once for its run.
        """
        if len(self.stored) > MANY_RUNS:
            numbers = self._characters.get(ctypes.addressof(item.contents))
            if not numbers:
                return ""
            first, last = numbers[0], numbers[-1]
            if last - first == len(numbers) - 1:
                space = " " if self._unicode[last + 1 : last + 2] == " " else ""
                text = self._unicode[first : last + 1].replace("\0", "") + space
                return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        length = pdfium.FPDFTextObj_GetText(item, self.raw_textpage, self.buffer, 2 * MOST_TEXT)
        in_buffer = 2 < length <= 2 * MOST_TEXT  # in bytes, with a closing zero
        return str(self.bytes[: length - 2], "utf-16-le", "replace") if in_buffer else ""

    def _matrix(self, item, outer) -> Matrix:
        m = self.matrix
        pdfium.FPDFPageObj_GetMatrix(item, m)
        if not outer:
            return m.a, m.b, m.c, m.d, m.e, m.f
        a, b, c, d, _, _ = outer
        inner = m.a * a + m.b * c, m.a * b + m.b * d, m.c * a + m.d * c, m.c * b + m.d * d
        return *inner, *_apply(outer, m.e, m.f)

    def _box(self, item, outer) -> Box:
        pdfium.FPDFPageObj_GetBounds(item, *self.edges)
        left, bottom, right, top = self.edges
        box = left.value, bottom.value, right.value, top.value
        return _turned(outer, box) if outer else box

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

    def _runs(self, upright: Matrix, main: int, width: float, height: float) -> list[Run]:
        """The runs as they stand on the upright page, without those outside it, where nobody sees them."""
        runs: list[Run] = []
        plain = upright == (1, 0, 0, 1, 0, 0)
        tracking: dict[int, float] = {}  # how far letter-spaced runs part their letters, by place in the file
        for order, (text, size, face, quarters, origin, box, item) in enumerate(self.stored):
            if not plain:
                origin, box = _apply(upright, *origin), _turned(upright, box)
            (x, base), (left, low, right, _) = origin, box
            turn = None if quarters is None else (quarters - main) % 4
            if turn == 0 and not (-size < x < width + size and -size < base < height + size):
                continue
            if text[1:2] == " " and _is_spaced(text) and (gaps := sorted(gap for _, gap in self._gaps(item))):
                tracking[order] = gaps[len(gaps) // 2]
                text = self._spaced(item, text, size, tracking[order])
            runs.append(Run(text, left, right, base, size, face, low, turn, order))
        for one, after in pairwise(runs):  # the short run before a letter-spaced one, such as its number, is too
            if after.order in tracking and one.base == after.base and max(map(len, one.text.split())) == 1:
                item = self.stored[one.order].item
                one.text = self._spaced(item, one.text, one.size, tracking[after.order]) + " "
        return runs

    def _spaced(self, item, text: str, size: float, tracking: float) -> str:
        """A letter-spaced run: PDFium parts all its letters, the wider gaps part its words."""
        wide = tracking + WORD_SPACE * size
        return "".join(letter + (" " if gap > wide else "") for letter, gap in self._gaps(item)).rstrip() or text

    def _gaps(self, item) -> list[tuple[str, float]]:
        """The letters of a run, each with the gap after it, in points."""
        boxes = []
        edges = [ctypes.c_double() for _ in range(4)]
        for n in self._characters[ctypes.addressof(item.contents)]:
            letter = chr(pdfium.FPDFText_GetUnicode(self.raw_textpage, n))
            if not letter.isspace():
                pdfium.FPDFText_GetCharBox(self.raw_textpage, n, *edges)
                boxes.append((letter, edges[0].value, edges[1].value))
        following = [*boxes[1:], ("", boxes[-1][2], 0)] if boxes else []
        return [(one[0], after[1] - one[2]) for one, after in zip(boxes, following, strict=True)]

    @cached_property
    def _characters(self) -> dict[int, list[int]]:
        """The numbers of the page's characters by the address of the run that they belong to."""
        numbers = defaultdict(list)
        for n in range(self.textpage.count_chars()):
            owner = pdfium.FPDFText_GetTextObject(self.raw_textpage, n)
            if owner:
                numbers[ctypes.addressof(owner.contents)].append(n)
        return numbers

    @cached_property
    def _unicode(self) -> str:
        """The page's characters by their numbers: units of UTF-16, and zeros."""
        return "".join(
            chr(pdfium.FPDFText_GetUnicode(self.raw_textpage, n)) for n in range(self.textpage.count_chars())
        )

    def _unreadable(self) -> int:
        """About how many of the page's characters have no Unicode, judged by forty of them."""
        count = self.textpage.count_chars()
        step = max(1, count // 40)
        return step * sum(pdfium.FPDFText_HasUnicodeMapError(self.raw_textpage, n) == 1 for n in range(0, count, step))


def by_base(runs: list[Run], share: float, least: float = 0.0) -> list[list[Run]]:
    """Runs by the line that they stand on, from the top.

    Args:
        share: of its size, by so much a run may stand below the first run of its line.
        least: or by so many points.
    """
    rows: list[list[Run]] = []
    base = math.inf  # of the row in hand
    for run in sorted(runs, key=attrgetter("base"), reverse=True):
        below = base - run.base
        if below < share * run.size or below < least:
            rows[-1].append(run)
        else:
            rows.append([run])
            base = run.base
    return rows


def _is_spaced(text: str) -> bool:
    """Whether a text is letters with spaces between them."""
    letters = text.split() if len(text) > 6 else []
    return len(letters) > 3 and sum(len(letter) == 1 for letter in letters) > 0.8 * len(letters)


def _quarters(a: float, b: float) -> int | None:
    """Quarter turns against the clock of a text's direction (a, b), None where it is slanted."""
    turns = math.atan2(b, a) / (math.pi / 2)
    return round(turns) % 4 if abs(turns - round(turns)) < 0.03 else None


def _apply(matrix: Matrix, x: float, y: float) -> Point:
    a, b, c, d, e, f = matrix
    return a * x + c * y + e, b * x + d * y + f


def _turned(matrix: Matrix, box: Box) -> Box:
    (x, y), (u, v) = _apply(matrix, *box[:2]), _apply(matrix, *box[2:])
    return min(x, u), min(y, v), max(x, u), max(y, v)
