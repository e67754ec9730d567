"""Sets the blocks of a prepared text on pages and draws them with reportlab."""

from dataclasses import replace
from pathlib import Path

from reportlab.pdfgen.canvas import Canvas

from .model import Layout
from .pages import Pages
from .setting import Line, Span, Word, break_lines, make_words, small_caps
from .strokes import draw_picture, draw_turned, draw_words
from .texts import LABELS, Block, Document

MASTHEAD = (
    "Annals of Inland History",
    "Vol. 12, No. 3 (2016) 190–195",
    "https://doi.org/10.5555/aih.2016.0190",
    "Received 4 May 2015; accepted 17 January 2016",
)


class Writer(Pages):
    """Sets headings, paragraphs, lists, floats and front matter."""

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
