"""Reads the texts in data/ and prepares them for a layout."""

import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from .model import Layout

DATA = Path(__file__).parent / "data"
NOTE = re.compile(r"\[\[(.*?)\]\]")
SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-ZÀ-ÞА-ЯŁŚŻ])|(?<=[。！？])(?=.)")
HAN = "〇 一 二 三 四 五 六 七 八 九 十 十一 十二 十三".split()
CARDINALS = "Zero One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve Thirteen".split()
ROMANS = "O I II III IV V VI VII VIII IX X XI XII XIII".split()
CHAPTERS = {
    "en": "Chapter {word}",
    "de": "Kapitel {n}",
    "fr": "Chapitre {roman}",
    "es": "Capítulo {n}",
    "pl": "Rozdział {roman}",
    "ru": "Глава {n}",
}
LABELS = {
    "en": "Abstract",
    "de": "Zusammenfassung",
    "fr": "Résumé",
    "es": "Resumen",
    "pl": "Streszczenie",
    "ru": "Аннотация",
    "zh": "摘要",
    "ja": "要旨",
}


@dataclass(frozen=True)
class Block:
    """One heading, paragraph, list item, quotation or float of a text."""

    kind: str  # heading, para, item, quote, figure, table, equation, picture
    text: str = ""  # with its footnotes as [[...]]
    level: int = 0
    number: str = ""  # of a heading or a list item
    rows: tuple[tuple[str, ...], ...] = ()
    side: str = ""  # margin note

    @property
    def plain(self) -> str:
        """Give the text without its footnotes."""
        return NOTE.sub("", self.text)

    @property
    def notes(self) -> list[str]:
        """Give the footnotes of the text."""
        return NOTE.findall(self.text)


@dataclass
class Document:
    """A whole text, ready to be set."""

    language: str
    title: str = ""
    short: str = ""  # for running heads
    abstract: str = ""
    authors: list[list[str]] = field(default_factory=list)  # name, affiliation, address
    blocks: list[Block] = field(default_factory=list)

    @property
    def cjk(self) -> bool:
        """Tell whether the text is set without spaces between words."""
        return self.language in ("zh", "ja")


@cache
def read(names: str) -> Document:
    """Parse a text file, or several joined by +, which then follow each other under the title of the first."""
    first, *others = [_parse(name) for name in names.split("+")]
    return replace(first, blocks=sum((other.blocks for other in others), first.blocks))


def _parse(name: str) -> Document:
    """Parse one text file."""
    document, side = Document(name[:2]), ""
    for line in (DATA / f"{name}.txt").read_text("utf-8").splitlines():
        mark, _, rest = line.partition(" ")
        if mark == "#":
            document.title = rest
        elif mark == "@author":
            document.authors.append(rest.split(" | "))
        elif mark == "@head":
            document.short = rest
        elif mark == "@abstract":
            document.abstract = rest
        elif mark == "!side":
            side = rest
        else:
            document.blocks.append(replace(_block(mark, rest, line), side=side))
            side = ""
    return document


def _block(mark: str, rest: str, line: str) -> Block:
    """Parse one line that is a block."""
    if mark in ("##", "###"):
        return Block("heading", rest, level=len(mark) - 1)
    if mark == "!table":
        caption, *rows = rest.split(" | ")
        return Block("table", caption, rows=tuple(tuple(row.split("; ")) for row in rows))
    kind = {"-": "item", ">": "quote", "!fig": "figure", "!eq": "equation"}.get(mark)
    return Block(kind, rest) if kind else Block("para", line)


def prepare(layout: Layout) -> Document:
    """Read the text of a layout and keep, number and add what the layout asks for."""
    source = read(layout.text)
    document = replace(
        source,
        abstract=source.abstract if layout.has("abstract") else "",
        title="" if layout.front == "bare" else source.title,
    )
    blocks = [
        _trim(block, layout)
        for block in source.blocks
        if block.kind not in ("figure", "table", "equation") or layout.has(block.kind)
    ]
    blocks = _shorten(blocks, layout.headings)
    if layout.has("slides"):
        blocks = list(_as_slides(blocks))
    if layout.has("picture"):
        third = [i for i, block in enumerate(blocks) if block.kind == "heading"][2]
        blocks.insert(third, Block("picture"))
    document.blocks = _numbered(blocks, layout.numbering, document.language, layout.has("itemnumbers"))
    return document


def _trim(block: Block, layout: Layout) -> Block:
    """Take footnotes and margin notes away where the layout has none."""
    return replace(
        block, text=block.text if layout.has("notes") else block.plain, side=block.side if layout.has("side") else ""
    )


def _shorten(blocks: list[Block], headings: int) -> list[Block]:
    """Keep the text up to the end of the n-th heading's section."""
    places = [i for i, block in enumerate(blocks) if block.kind == "heading"]
    kept = blocks[: places[headings]] if 0 < headings < len(places) else list(blocks)
    while kept[-1].kind == "heading":
        kept.pop()
    return kept


def _as_slides(blocks: list[Block]):
    """Make every sentence a bullet, and leave out headings that nothing follows."""
    for block, after in zip(blocks, [*blocks[1:], Block("end")], strict=True):
        if block.kind == "heading" and after.kind not in ("heading", "end"):
            yield replace(block, level=1)
        elif block.kind in ("para", "quote"):
            yield from (Block("item", sentence) for sentence in SENTENCE.split(block.plain))
        elif block.kind != "heading":
            yield block


def _numbered(blocks: list[Block], style: str, language: str, items: bool) -> list[Block]:
    """Give headings their numbers, and list items too where they have some."""
    done, one, two, item = [], 0, 0, 0
    for block in blocks:
        item = item + 1 if block.kind == "item" else 0
        if block.kind == "item" and items:
            block = replace(block, number=f"({item})")
        if block.kind == "heading":
            one, two = (one + 1, 0) if block.level == 1 else (one, two + 1)
            block = replace(block, number=number_of(style, language, one, two))
        done.append(block)
    return done


def number_of(style: str, language: str, one: int, two: int) -> str:
    """Write the number of a heading; `two` is 0 at the upper level."""
    letter = "abcdefgh"[two - 1] if two else ""
    styles = {
        "decimal": (f"{one}", f"{one}.{two}"),
        "dotted": (f"{one}.", f"{one}.{two}."),
        "roman": (f"{ROMANS[one]}.", f"{letter.upper()}."),
        "section": (f"§ {one}", f"{letter})"),
        "chapter": (CHAPTERS.get(language, "").format(n=one, word=CARDINALS[one], roman=ROMANS[one]) + "\n", ""),
        "cjk": (f"第{HAN[one] if language == 'zh' else one}章", f"第{HAN[two]}{'节' if language == 'zh' else '節'}"),
        "comma": (f"{HAN[one]}、", f"（{HAN[two]}）"),
    }
    return styles[style][1 if two else 0] if style else ""


def heading_text(block: Block) -> str:
    """Give a heading with its number, as the truth has it."""
    if not block.number or block.number[-1] in "\n、）":
        return block.number + block.text
    return f"{block.number} {block.text}"


def truth(document: Document, layout: Layout) -> dict[str, list[str]]:
    """List headings, body and notes of a prepared text."""
    headings, body, notes = [], [], [part for author in document.authors for part in author]
    if layout.front == "bare":
        notes = []
    if document.abstract:
        notes.append(LABELS[document.language])
        body.append(document.abstract)
    for block in document.blocks:
        if block.kind == "heading":
            headings.append(heading_text(block))
        elif block.kind in ("para", "item", "quote"):
            body.append(f"{block.number} {block.plain}" if block.number else block.plain)
        elif block.text:
            notes += [block.text, *(" ".join(row) for row in block.rows)]
        notes += block.notes + ([block.side] if block.side else [])
    return {"headings": headings, "body": body, "notes": notes}
