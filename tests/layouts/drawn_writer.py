"""Sets a prepared text line by line and draws it with reportlab."""

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas

from .model import Layout
from .setting import FAMILIES, Line, Span, Word, break_lines, load_fonts, make_words, small_caps
from .texts import LABELS, ROMANS, Block, Document

MASTHEAD = (
    "Annals of Inland History",
    "Vol. 12, No. 3 (2016) 190–195",
    "https://doi.org/10.5555/aih.2016.0190",
    "Received 4 May 2015; accepted 17 January 2016",
)
ACCENTS = {"\u0300": "`", "\u0301": "´", "\u0302": "ˆ", "\u0303": "˜", "\u0308": "¨", "\u0327": "¸"}
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


class Writer:
    """Lays a document out in columns and pages."""

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

    # Blocks

    def write_all(self) -> None:
        """Set the whole document."""
        self.front()
        run_in, after = [], "heading"
        for block in self.document.blocks:
            if block.kind == "heading" and block.level == 2 and self.layout.head == "runin":
                title = " ".join(filter(None, [block.number, block.text])) + "."
                run_in = self.words(title, replace(self.base, font=self.bold))
                continue
            self.set_block(block, run_in, after)
            run_in, after = [], block.kind
        while self.carry or self.pending or self.whole:
            self.next_column()
        self.end_column()
        if not self.page.body:
            self.pages.pop()

    def set_block(self, block: Block, run_in: list[Word], after: str) -> None:
        """Set one block."""
        if block.kind == "heading":
            self.heading(block)
        elif block.kind in ("para", "quote", "item"):
            self.text_block(block, run_in, after)
        elif block.kind == "picture" or (block.kind == "table" and self.layout.has("turned")):
            self.whole.append(block)
        elif block.kind == "equation":
            self.equation(block)
        else:
            self.float(block)

    def text_block(self, block: Block, run_in: list[Word], after: str) -> None:
        """Set a paragraph, a quotation or a list item."""
        gap = self.step * 0.5 if block.kind != after or block.kind == "quote" else 0
        if block.kind == "para" and not self.layout.indent:
            gap = self.step * 0.7
        if after != "heading":
            self.y -= gap if self.y < self.top else 0
        if block.side:
            self.ensure(self.step * 2)
            self.side_note(block.side)
        if block.kind == "item":
            self.item(block)
        elif block.kind == "quote":
            span = replace(self.base, size=self.base.size * 0.95)
            self.paragraph(self.words(block.text, span, self.next_mark), pad=20)
        elif after == "heading" and self.layout.has("dropcap") and not run_in:
            self.initial(block)
        else:
            first = 0 if (after == "heading" and not self.document.cjk) or run_in else self.layout.indent
            self.paragraph(run_in + self.words(block.text, self.base, self.next_mark), first)

    def item(self, block: Block) -> None:
        """Set a list item with a bullet or its number."""
        self.ensure(self.step)
        bullet = block.number or "•"
        self.block += 1
        y, x, span = self.y - self.step * 0.75, self.left + 4, self.base
        block_no = self.block
        self.op(x, y, lambda c: draw_words(c, [Word((replace(span, text=bullet),), 0)], x, y, 0, "line"))
        self.block -= 1
        shift = 22 if block.number else 16
        lines = break_lines(
            self.words(block.text, self.base, self.next_mark), lambda _: self.measure - shift, self.layout.hyphen
        )
        self.block = block_no
        for line in lines:
            self.put_line(line, shift)

    def initial(self, block: Block) -> None:
        """Set a paragraph that begins with a letter of three lines' height."""
        self.ensure(self.step * 4)
        size = (2 * self.step + 0.66 * self.base.size) / 0.66
        span = Span(block.text[0], self.upright, size)
        x, y = self.left, self.y - self.step * 2.75
        self.block += 1
        self.op(x, y, lambda c: draw_words(c, [Word((span,), 0)], x, y, 0, "line"))
        self.block -= 1
        self.paragraph(self.words(block.text[1:], self.base, self.next_mark), hang=(3, span.width + 3))

    def side_note(self, text: str) -> None:
        """Draw a note in the outer margin, beside the next line."""
        room = self.layout.margins[1] - 26
        left_hand = self.layout.two_sided and self.number(len(self.pages) - 1) % 2 == 0
        x = 14 if left_hand else self.left + self.measure + 12
        self.block += 1
        span = replace(self.small, size=self.layout.size * 0.75)
        for i, line in enumerate(break_lines(self.words(text, span), lambda _: room, "")):
            self.draw_line(line, x, self.y - (i + 0.75) * span.size * 1.15, "left")

    def heading(self, block: Block) -> None:
        """Set a heading on lines of its own."""
        if self.layout.has("slides") and self.y < self.top:
            self.next_column()
        size = self.layout.size * (1 + (self.layout.head_scale - 1) / block.level)
        height = size * 1.25
        lines = [
            part
            for text in heading_lines(block)
            for part in break_lines(self.heading_words(text, size, block.level), lambda _: self.measure, "")
        ]
        before = self.step * (1.3 if block.level == 1 else 0.9)
        after = self.step * (6 if block.level == 1 else 2.5)
        self.ensure(before + height * len(lines) + (0 if self.layout.has("strand") else after))
        self.y -= before if self.y < self.top else 0
        if block.level == 1:
            self.chapter = block.text
            self.page.chapter = self.page.chapter or block.text
        self.page.marks.append((f"{block.number} {block.text}".strip(), block.level - 1, self.y))
        self.block += 1
        for line in lines:
            self.y -= height
            line.last = True
            self.draw_line(line, self.left, self.y + height * 0.28, "center" if self.layout.center_heads else "left")
            self.underline(line)
        self.y -= self.step * 0.4
        if self.layout.has("strand") and self.y < self.layout.size_of_page[1] * 0.42 and self.strands < 2:
            self.strands += 1
            self.next_column()

    def underline(self, line: Line) -> None:
        """Rule a line under a heading where the layout wants it."""
        if self.layout.head == "underline":
            x, y = self.left, self.y + 1
            self.op(x, y, lambda c: c.line(x, y, x + line.width, y))

    def heading_words(self, text: str, size: float, level: int) -> list[Word]:
        """Set the words of a heading in the manner of the layout."""
        style = self.layout.head
        font = self.bold if style in ("bold", "runin") else self.upright
        if style == "italic" or (style in ("size", "caps") and level == 2):
            font = self.italic
        span = Span(
            "",
            font,
            size,
            tracking=size * 0.25 if style == "spaced" else 0,
            heavy=style == "bold" and font == self.upright,
        )
        if style == "smallcaps":
            return small_caps(text, span)
        return self.words(text.upper() if style == "caps" else text, span)

    def equation(self, block: Block) -> None:
        """Set a displayed formula with its number."""
        self.ensure(self.step * 2)
        self.y -= self.step * 0.4
        line = break_lines(self.words(block.text, replace(self.base, font=self.italic)), lambda _: self.measure, "")[0]
        self.put_line(line, 0, "center")
        self.page.lines.pop()
        number = break_lines(self.words("(1)", self.base), lambda _: self.measure, "")[0]
        self.draw_line(number, self.left, self.y + self.step * 0.25, "right")
        self.notes.append("(1)")
        self.y -= self.step * 0.4

    # Floats

    def float(self, block: Block) -> None:
        """Draw a figure or table here when it fits, otherwise let it wait."""
        needed = 130 + 3 * self.small_step + len(block.rows) * self.small_step
        if self.layout.has("wide") or self.y - needed < self.floor:
            self.pending.append(block)
        else:
            self.y -= self.step * 0.5
            self.draw_float(block, self.left, self.left + self.measure)

    def draw_float(self, block: Block, left: float, right: float) -> None:
        """Draw a figure with its caption below, or a table with its caption above."""
        self.block += 1
        if block.kind == "table":
            self.caption(block.text, left, right)
            self.table(block, left, right)
        else:
            self.figure(left, right)
            self.caption(block.text, left, right)
        self.y -= self.step * 0.8

    def caption(self, text: str, left: float, right: float) -> None:
        """Draw a caption."""
        for line in break_lines(self.words(text, self.small), lambda _: right - left, self.layout.hyphen):
            self.y -= self.small_step
            self.draw_line(line, left, self.y, "left")
        self.y -= 4

    def figure(self, left: float, right: float) -> None:
        """Draw a curve in a frame, with a turned label at its side where the layout wants one."""
        self.y -= 110
        x, y, width = left + 20, self.y + 14, min(right - left - 30, 260)

        def draw(c: Canvas) -> None:
            c.rect(x, y, width, 92)
            c.bezier(x, y + 8, x + width / 3, y + 150, x + width / 2, y - 40, x + width, y + 70)
            if self.layout.has("axis"):
                draw_turned(c, "Height above sea level (m)", x - 6, y + 2, self.small.font, 7)

        if self.layout.has("axis"):
            self.notes.append("Height above sea level (m)")
        self.op(x, y, draw)

    def table(self, block: Block, left: float, right: float) -> None:
        """Draw the cells of a table between rules."""
        wide = (right - left) / len(block.rows[0])
        for i, row in enumerate(block.rows):
            self.y -= self.small_step + 2
            for j, cell in enumerate(row):
                line = break_lines(self.words(cell, self.small), lambda _: wide, "")[0]
                self.draw_line(line, left + j * wide, self.y + 4, "left")
            if i in (0, len(block.rows) - 1):
                self.op(left, self.y, lambda c, y=self.y: c.line(left, y, right, y))

    def draw_whole(self, block: Block) -> None:
        """Fill a page with a picture or a turned table."""
        width, height = self.layout.size_of_page
        left, _, top, bottom = self.layout.margins
        if block.kind == "picture":
            self.page.bare = True
            self.op(0, 0, lambda c: draw_picture(c, left, bottom, width - 2 * left, height - top - bottom))
            return

        def draw(c: Canvas) -> None:
            x, y, size = width / 2 - 40, height * 0.2, self.layout.size
            draw_turned(c, block.text, x, y, self.bold, size)
            for i, row in enumerate(block.rows):
                for j, cell in enumerate(row):
                    draw_turned(c, cell, x + 25 + i * 22, y + j * 120, self.upright, size)

        self.op(0, 0, draw)

    # Front matter

    def front(self) -> None:
        """Set masthead, title, authors and abstract across the columns."""
        style, (left, right) = self.layout.front, self.sides(0)
        if style == "bare":
            return
        if style == "masthead":
            self.masthead(left, right)
        if style == "titlepage":
            self.y -= 150
            self.page.bare = True
        self.centered(self.document.title, replace(self.base, font=self.bold, size=self.layout.size * 1.8), left, right)
        self.y -= self.step * 0.6
        for name, *rest in self.document.authors:
            self.centered(name, replace(self.base, size=self.base.size * 1.1), left, right)
            for part in rest:
                self.centered(part, replace(self.small, font=self.italic), left, right)
        self.y -= self.step
        if style == "titlepage":
            self.new_page()
            return
        if self.document.abstract:
            self.abstract(left + 24, right - 24)
        self.top = self.y
        self.start_column()

    def centered(self, text: str, span: Span, left: float, right: float) -> None:
        """Set centred lines across the page."""
        self.block += 1
        for line in break_lines(self.words(text, span), lambda _: right - left, ""):
            self.y -= span.size * 1.25
            self.draw_line(line, left, self.y, "center")

    def masthead(self, left: float, right: float) -> None:
        """Set the name, volume, address and dates of a journal."""
        for text, align in zip(MASTHEAD, ("left", "right", "left", "left"), strict=True):
            line = break_lines(self.words_latin(text), lambda _: right - left, "")[0]
            self.y -= 0 if align == "right" else self.small_step
            self.draw_line(line, left, self.y, align)
        self.notes += MASTHEAD
        y = self.y = self.y - 8
        self.op(left, y, lambda c: c.line(left, y, right, y))
        self.y -= self.step

    def words_latin(self, text: str) -> list[Word]:
        """Cut a Latin text into words whatever the language of the document."""
        return make_words(text, replace(self.small, font=self.italic), False)

    def abstract(self, left: float, right: float) -> None:
        """Set the abstract under its label."""
        self.centered(LABELS[self.document.language], replace(self.base, font=self.bold), left, right)
        span = replace(self.base, size=self.base.size * 0.92)
        self.block += 1
        for line in break_lines(self.words(self.document.abstract, span), lambda _: right - left, self.layout.hyphen):
            self.y -= span.size * 1.22
            self.draw_line(line, left, self.y)
        self.y -= self.step

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


def write(document: Document, layout: Layout, path: Path) -> tuple[list[str], list[str]]:
    """Write the PDF; give the strings outside the body and further notes."""
    writer = Writer(document, layout)
    writer.write_all()
    writer.save(path)
    if layout.watermark:
        writer.absent.append(layout.watermark.partition(":")[2])
    return list(dict.fromkeys(writer.absent)), list(dict.fromkeys(writer.notes))


def heading_lines(block: Block) -> list[str]:
    """Give the parts of a heading that begin a new line."""
    if block.number.endswith("\n"):
        return [block.number.strip(), block.text]
    sep = "" if block.number[-1:] in ("", "、", "）") else "  " if block.number[-1] in "章節节" else " "
    return [block.number + ("\u3000" if sep == "  " else sep) + block.text]


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


def draw_words(c: Canvas, words: list[Word], x: float, y: float, stretch: float, how: str) -> None:
    """Draw the words of a line, stretched over the slack."""
    if not words:
        return
    spaced = any(word.space for word in words[1:])
    gaps = len(words) - 1 if spaced else sum(len(s.text) for w in words for s in w.spans) - 1
    extra = stretch / max(gaps, 1)
    if how == "line":
        draw_whole_line(c, words, x, y, extra, spaced)
        return
    for i, word in enumerate(words):
        x += (word.space + (extra if spaced else 0)) if i else 0
        for span in word.spans:
            x = draw_span(c, span, x, y, 0 if spaced else extra, how)


def draw_whole_line(c: Canvas, words: list[Word], x: float, y: float, extra: float, spaced: bool) -> None:
    """Draw a line with one operator for each run of one font, spaces included."""
    text = c.beginText(x, y)
    text.setWordSpace(extra if spaced else 0)
    runs: list[Span] = []
    for i, word in enumerate(words):
        for j, span in enumerate(word.spans):
            lead = " " if i and not j and word.space else ""
            if runs and replace(runs[-1], text="") == replace(span, text=""):
                runs[-1] = replace(runs[-1], text=runs[-1].text + lead + span.text)
            elif runs:
                runs[-1] = replace(runs[-1], text=runs[-1].text + lead)
                runs.append(span)
            else:
                runs.append(span)
    for span in runs:
        text.setFont(span.font, span.size)
        text.setRise(span.rise)
        text.setCharSpace(span.tracking + (0 if spaced else extra))
        text.setTextRenderMode(2 if span.heavy else 0)
        text.textOut(span.text)
    text.setCharSpace(0)
    text.setWordSpace(0)
    text.setRise(0)
    text.setTextRenderMode(0)
    c.setLineWidth(0.35)
    c.drawText(text)


def draw_span(c: Canvas, span: Span, x: float, y: float, extra: float, how: str) -> float:
    """Draw a span as a word or by single characters, and give where it ends."""
    c.setFont(span.font, span.size)
    pieces = [span.text] if how == "word" and not extra and not span.tracking else list(span.text)
    for piece in pieces:
        accent = unicodedata.normalize("NFD", piece)[1:] if how == "accents" and len(piece) == 1 else ""
        width = pdfmetrics.stringWidth(piece, span.font, span.size)
        if accent in ACCENTS and piece.lower() not in "íîìï":
            draw_accented(c, piece, ACCENTS[accent], span, x, y + span.rise)
        else:
            c.drawString(x, y + span.rise, piece)
        x += width + span.tracking + extra
    return x


def draw_accented(c: Canvas, piece: str, accent: str, span: Span, x: float, y: float) -> None:
    """Draw an accent and then its letter over it."""
    base = unicodedata.normalize("NFD", piece)[0]
    width = pdfmetrics.stringWidth(base, span.font, span.size)
    shift = (width - pdfmetrics.stringWidth(accent, span.font, span.size)) / 2
    c.drawString(x + shift, y + (span.size * 0.2 if base.isupper() and accent != "¸" else 0), accent)
    c.drawString(x, y, base)


def draw_turned(c: Canvas, text: str, x: float, y: float, font: str, size: float) -> None:
    """Draw a text that runs upwards."""
    c.saveState()
    c.translate(x, y)
    c.rotate(90)
    c.setFont(font, size)
    c.drawString(0, 0, text)
    c.restoreState()


def draw_picture(c: Canvas, x: float, y: float, width: float, height: float) -> None:
    """Draw hills under a sun."""
    c.setFillGray(0.88)
    c.rect(x, y, width, height, fill=1)
    c.setFillGray(0.7)
    c.circle(x + width * 0.7, y + height * 0.75, 40, fill=1)
    c.setFillGray(0.5)
    path = c.beginPath()
    path.moveTo(x, y)
    path.curveTo(x + width * 0.2, y + height * 0.7, x + width * 0.5, y + height * 0.1, x + width, y + height * 0.5)
    path.lineTo(x + width, y)
    c.drawPath(path, fill=1)
    c.setFillGray(0)


def draw_watermark(c: Canvas, layout: Layout, index: int) -> None:
    """Draw the watermark of a page."""
    kind, _, text = layout.watermark.partition(":")
    width, height = layout.size_of_page
    if kind == "side" and index == 0:
        c.setFillGray(0.5)
        draw_turned(c, text, 22, height * 0.3, "Times-Roman", 9)
    elif kind == "middle":
        c.setFillGray(0.3)
        c.setFont("Helvetica", 7)
        c.drawCentredString(width / 2, height / 2, text)
    elif kind == "diagonal":
        c.saveState()
        c.setFillGray(0.85)
        c.translate(width / 2, height / 2)
        c.rotate(50)
        c.setFont("Helvetica-Bold", 80)
        c.drawCentredString(0, -25, text)
        c.restoreState()
    c.setFillGray(0)
