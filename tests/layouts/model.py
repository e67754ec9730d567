"""The description of a layout, and the truth about the PDF that it makes."""

from dataclasses import dataclass, field
from pathlib import Path

PAGES = {
    "a4": (595.3, 841.9),
    "a5": (419.5, 595.3),
    "letter": (612.0, 792.0),
    "book": (432.0, 648.0),
    "b5": (498.9, 708.7),
    "slide": (720.0, 405.0),
}


@dataclass(frozen=True)
class Layout:
    """How one PDF looks; every length is in points."""

    name: str
    producer: str  # "typst" or "reportlab"
    text: str  # name of a file in data/
    tries: str  # in a few words, what is special about it
    page: str = "a4"
    landscape: bool = False
    rotate: int = 0  # the page is stored turned, with this /Rotate (reportlab only)
    columns: int = 1
    gap: float = 20
    margins: tuple[float, float, float, float] = (62, 62, 70, 70)  # inner, outer, top, bottom
    two_sided: bool = False
    font: str = "serif"
    size: float = 10
    leading: float = 1.25  # times the size
    justify: bool = True
    hyphen: str = "-"  # "" breaks no words; "\u00ad" and "\u2010" are stored as such (reportlab only)
    head: str = "bold"  # size, bold, caps, italic, smallcaps, spaced, runin, underline
    head_scale: float = 1.3
    center_heads: bool = False
    numbering: str = ""  # decimal, dotted, roman, section, chapter, cjk, comma
    indent: float = 14  # of first lines; 0 sets a blank line between paragraphs instead
    running: str = ""  # running head: outer, corners, center, chapter, author, number
    folio: str = ""  # page number at the foot: center, dash, of, roman, outer
    first_page: int = 1
    front: str = "title"  # title, masthead, titlepage, bare
    extras: str = ""  # words; `has` lists them
    order: str = "natural"  # order in the file: natural, reversed, shuffled, across (reportlab only)
    draw: str = "line"  # what one show-text operator holds: line, word, char, accents (reportlab only)
    watermark: str = ""  # "diagonal:...", "middle:..." or "side:..."
    line_numbers: int = 0  # number every n-th line
    headings: int = 0  # keep only that many headings of the text

    def has(self, extra: str) -> bool:
        """Tell whether an extra is wanted.

        Of the text: notes (footnotes), figure, table, equation, side (margin notes), abstract, picture (a page of its
        own), slides. Of the look: outline, itemnumbers, stars (footnote marks), wide (floats over all columns), turned
        (tables on pages of their own). Typst only: float (figures at the top), tags (a tagged PDF). Reportlab only:
        dropcap, axis (a turned label), strand (heads left alone at the foot), restart (line numbers by page),
        tightmarks (no space after the number of a footnote).
        """
        return extra in self.extras.split()

    @property
    def size_of_page(self) -> tuple[float, float]:
        """Give width and height of the page as the reader sees it."""
        width, height = PAGES[self.page]
        return (height, width) if self.landscape else (width, height)


@dataclass
class Case:
    """A written PDF and its truth."""

    name: str
    path: Path
    title: str  # of the document; a program may count it as a heading or not
    headings: list[str]  # with their numbering; a line feed parts "Chapter One" from what stands below it
    body: list[str]  # paragraphs in reading order, list items each their own
    absent: list[str]  # as drawn: running heads, page numbers, watermarks, line numbers
    notes: list[str] = field(default_factory=list)  # footnotes, captions, tables, equations, authors and labels
    language: str = ""
