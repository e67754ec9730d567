"""Pages with columns of lines, footnotes at their foot, and what stands around them; `drawn_writer` fills them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from reportlab.pdfgen.canvas import Canvas

from .model import Layout
from .setting import FAMILIES, Line, Span, Word, break_lines, load_fonts, make_words
from .strokes import draw_watermark, draw_words
from .texts import ROMANS, Block, Document

TURNS = {90: (0, 1, -1, 0, 1, 0), 180: (-1, 0, 0, -1, 1, 1), 270: (0, -1, 1, 0, 0, 1)}


@dataclass
class Op:
    """One thing to draw; what belongs to one block keeps its order when a page is shuffled."""

    x: float
    y: float
    block: int
    draw: Callable[[Canvas], None]


@dataclass
class Page:
    """What stands on one page."""

    body: list[Op] = field(default_factory=list)
    chapter: str = ""
    marks: list[tuple[str, int, float]] = field(default_factory=list)  # headings for the outline
    lines: list[float] = field(default_factory=list)  # base lines to number
    bare: bool = False  # without running head and number


class Pages:
    """Columns and pages, filled line by line; a subclass says how a float and a page of its own are drawn."""

    def __init__(self, document: Document, layout: Layout):
        load_fonts()
        self.document, self.layout = document, layout
        self.upright, self.bold, self.italic = FAMILIES[layout.font]
        self.base = Span("", self.upright, layout.size)
        self.step = layout.size * layout.leading
        self.small = replace(self.base, size=layout.size * 0.8)
        self.small_step = self.small.size * 1.18
        self.pages: list[Page] = []
        self.absent: list[str] = []
        self.notes: list[str] = []
        self.pending: list[Block] = []  # floats that wait for the next column, or the next page when wide
        self.whole: list[Block] = []  # pages of their own that wait
        self.carry: list[Line] = []  # of footnotes that run over
        self.foot: list[Line] = []
        self.block = self.marks = self.note_count = self.strands = 0
        self.chapter = ""
        self.new_page()

    # Pages and columns

    def sides(self, page: int) -> tuple[float, float]:
        """Give the left and the right edge of the text on a page."""
        inner, outer, _, _ = self.layout.margins
        if self.layout.two_sided and self.number(page) % 2 == 0:
            inner, outer = outer, inner
        return inner, self.layout.size_of_page[0] - outer

    def number(self, page: int) -> int:
        """Give the printed number of a page."""
        return self.layout.first_page + page

    @property
    def page(self) -> Page:
        """Give the page in hand."""
        return self.pages[-1]

    @property
    def left(self) -> float:
        """Give the left edge of the column in hand."""
        return self.sides(len(self.pages) - 1)[0] + self.column * (self.measure + self.layout.gap)

    @property
    def measure(self) -> float:
        """Give the width of a column."""
        left, right = self.sides(0)
        return (right - left - self.layout.gap * (self.layout.columns - 1)) / self.layout.columns

    @property
    def floor(self) -> float:
        """Give the height under which no line of the body may go."""
        return self.layout.margins[3] + (len(self.foot) * self.small_step + 10 if self.foot else 0)

    def new_page(self) -> None:
        """Begin a page, after those that hold nothing but a picture or a turned table."""
        while self.whole:
            self.pages.append(Page(chapter=self.chapter))
            self.block += 1
            self.draw_whole(self.whole.pop(0))
        self.pages.append(Page(chapter=self.chapter))
        self.column, self.top = 0, self.layout.size_of_page[1] - self.layout.margins[2]
        self.y = self.top
        if self.layout.has("wide"):
            self.place_pending(*self.sides(len(self.pages) - 1))
            self.top = self.y
        self.start_column()

    def start_column(self) -> None:
        """Begin a column with what the one before left over."""
        self.y, self.foot = self.top, []
        most = int((self.top - self.layout.margins[3]) / 3 / self.small_step)
        self.foot, self.carry = self.carry[:most], self.carry[most:]
        if not self.layout.has("wide"):
            self.place_pending(self.left, self.left + self.measure)

    def place_pending(self, left: float, right: float) -> None:
        """Draw the floats that wait."""
        waiting, self.pending = self.pending, []
        for block in waiting:
            self.draw_float(block, left, right)

    def end_column(self) -> None:
        """Draw the footnotes of the column."""
        if not self.foot:
            return
        self.block += 1
        y, left = self.layout.margins[3] + len(self.foot) * self.small_step, self.left
        self.op(left, y + 2, lambda c: c.line(left, y + 2, left + 60, y + 2))
        for i, line in enumerate(self.foot):
            self.draw_line(line, left, y - (i + 0.75) * self.small_step)

    def next_column(self) -> None:
        """Go to the next column or page."""
        self.end_column()
        if self.column + 1 < self.layout.columns:
            self.column += 1
            self.start_column()
        else:
            self.new_page()

    def ensure(self, height: float) -> None:
        """Go on where that height is free."""
        if self.y - height < self.floor and self.y < self.top:
            self.next_column()

    def op(self, x: float, y: float, draw: Callable[[Canvas], None]) -> None:
        """Note something to draw on this page."""
        self.page.body.append(Op(x, y, self.block, draw))

    # Lines

    def words(self, text: str, span: Span, mark: Callable[[str], str] | None = None) -> list[Word]:
        """Cut a text into words in the way of its language."""
        return make_words(text, span, self.document.cjk, mark)

    def next_mark(self, _: str) -> str:
        """Give the mark of the next footnote."""
        self.marks += 1
        return "*†‡§¶"[self.marks - 1] if self.layout.has("stars") else str(self.marks)

    def draw_line(self, line: Line, x: float, y: float, align: str = "justify") -> None:
        """Note a line to draw."""
        slack = line.room - line.width
        stretch = slack if align == "justify" and self.layout.justify and not line.last else 0
        x += {"center": slack / 2, "right": slack}.get(align, 0)
        self.op(x, y, lambda c: draw_words(c, line.words, x, y, stretch, self.layout.draw))

    def put_line(self, line: Line, indent: float, align: str = "justify") -> None:
        """Place a line of the body with the footnotes that it calls for."""
        notes = [part for word in line.words for note in word.notes for part in self.note_lines(note)]
        extra = min(2, len(notes)) * self.small_step + (10 if notes and not self.foot else 0)
        if self.y - self.step - extra < self.floor:
            self.next_column()
        self.y -= self.step
        self.draw_line(line, self.left + indent, self.y + self.step * 0.25, align)
        self.page.lines.append(self.y + self.step * 0.25)
        self.add_notes(notes)

    def note_lines(self, note: str) -> list[Line]:
        """Set a footnote."""
        self.note_count += 1
        mark = "*†‡§¶"[self.note_count - 1] if self.layout.has("stars") else str(self.note_count)
        words = self.words(f"\x02{mark}\x03{'' if self.layout.has('tightmarks') else ' '}{note}", self.small)
        return break_lines(words, lambda _: self.measure, self.layout.hyphen)

    def add_notes(self, lines: list[Line]) -> None:
        """Put the lines of footnotes at the foot as far as there is room, the others on the next one."""
        for line in lines:
            fits = not self.carry and self.y - self.small_step - (0 if self.foot else 10) >= self.floor
            (self.foot if fits else self.carry).append(line)

    def paragraph(
        self,
        words: list[Word],
        first: float = 0,
        pad: float = 0,
        align: str = "justify",
        hang: tuple[int, float] = (0, 0),
    ) -> None:
        """Set a paragraph; `hang` leaves room for an initial at the first lines."""
        self.block += 1
        shift = [first + pad, *([pad] * 400)]
        for i in range(hang[0]):
            shift[i] = hang[1]
        lines = break_lines(words, lambda i: self.measure - shift[i] - pad, self.layout.hyphen)
        for line, x in zip(lines, shift, strict=False):
            self.put_line(line, x, align)

    # Furniture

    def running_head(self, index: int) -> tuple[str, str, str]:
        """Give what stands at the left, in the middle and at the right of the head of a page."""
        style, number, even = self.layout.running, str(self.number(index)), self.number(index) % 2 == 0
        short = self.document.short
        if style in ("", "center", "number"):
            return {"": ("", "", ""), "center": ("", short, ""), "number": ("", "", number)}[style]
        names = ", ".join(author[0] for author in self.document.authors)
        chapter = self.pages[index].chapter or short
        if style == "outer":
            text = f"{number}  {short.upper()}" if even else f"{short.upper()}  {number}"
            return (text, "", "") if even else ("", "", text)
        text = {"corners": short, "chapter": short if even else chapter, "author": names if even else short}[style]
        return (number, "", text) if even else (text, "", number)

    def folio(self, index: int) -> tuple[str, str, str]:
        """Give what stands at the left, in the middle and at the right of the foot of a page."""
        number = self.number(index)
        middle = {
            "": "",
            "center": f"{number}",
            "dash": f"– {number} –",
            "of": f"{number} / {len(self.pages)}",
            "roman": ROMANS[min(number, 10)].lower(),
            "outer": "",
        }[self.layout.folio]
        if self.layout.folio == "outer":
            return (str(number), "", "") if number % 2 == 0 else ("", "", str(number))
        return "", middle, ""

    def furniture(self, c: Canvas, index: int) -> None:
        """Draw running head, page number and line numbers."""
        page, (left, right) = self.pages[index], self.sides(index)
        height = self.layout.size_of_page[1]
        first = index == 0 and self.layout.front != "bare"
        if not page.bare:
            head = ("", "", "") if first else self.running_head(index)
            self.three(c, head, left, right, height - self.layout.margins[2] * 0.55, self.italic)
            self.three(c, self.folio(index), left, right, self.layout.margins[3] * 0.5, self.upright)
        counted = index * 100 if self.layout.has("restart") else sum(len(p.lines) for p in self.pages[:index])
        for i, y in enumerate(page.lines, counted % 100 + 1 if self.layout.has("restart") else counted + 1):
            if self.layout.line_numbers and i % self.layout.line_numbers == 0:
                c.setFont(self.upright, 6.5)
                c.drawRightString(left - 10, y, str(i))
                self.absent.append(str(i))

    def three(self, c: Canvas, texts: tuple[str, str, str], left: float, right: float, y: float, font: str) -> None:
        """Draw texts at the left, in the middle and at the right."""
        c.setFont(font, self.layout.size * 0.85)
        for text, draw, x in zip(
            texts,
            (c.drawString, c.drawCentredString, c.drawRightString),
            (left, (left + right) / 2, right),
            strict=True,
        ):
            if text:
                draw(x, y, text)
                self.absent.append(text)

    def save(self, path: Path) -> None:
        """Draw all pages into a file."""
        width, height = self.layout.size_of_page
        stored = (height, width) if self.layout.rotate in (90, 270) else (width, height)
        c = Canvas(str(path), pagesize=(width, height), invariant=1)  # it turns the page box with the page itself
        c.setTitle(self.document.title if self.layout.has("outline") else "untitled")
        for index, page in enumerate(self.pages):
            if self.layout.rotate:
                c.setPageRotation(self.layout.rotate)
                *turn, dx, dy = TURNS[self.layout.rotate]
                c.transform(*turn, dx * stored[0], dy * stored[1])
            c.setLineWidth(0.6)
            draw_watermark(c, self.layout, index)
            for op in reorder(page.body, self.layout.order, index):
                op.draw(c)
            self.furniture(c, index)
            if self.layout.has("outline"):
                add_marks(c, page, index)
            c.showPage()
        c.save()


def reorder(ops: list[Op], order: str, seed: int) -> list[Op]:
    """Put what is drawn on a page into the order that the file shall have."""
    if order == "across":
        return sorted(ops, key=lambda op: (-round(op.y / 3), op.x))
    blocks: dict[int, list[Op]] = {}
    for op in ops:
        blocks.setdefault(op.block, []).append(op)
    groups = list(blocks.values())
    if order == "reversed":
        groups.reverse()
    elif order == "shuffled":
        random.Random(seed).shuffle(groups)
    return [op for group in groups for op in group]


def add_marks(c: Canvas, page: Page, index: int) -> None:
    """Enter the headings of a page in the outline."""
    for i, (title, level, y) in enumerate(page.marks):
        c.bookmarkHorizontal(f"p{index}n{i}", 0, y)
        c.addOutlineEntry(title.replace("\n", " "), f"p{index}n{i}", level)
