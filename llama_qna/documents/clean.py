"""Pages become clean paragraphs, each with its pages and section; every repair is counted."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from llama_qna.documents.blocks import blocks_of, look_of
from llama_qna.documents.columns import parts
from llama_qna.documents.halves import in_halves
from llama_qna.documents.hyphens import HYPHEN, Vocabulary, close_up_capitals
from llama_qna.documents.lines import Line, join_accents, lines_of, rows_of_table
from llama_qna.documents.page_headers import body_size, drop_page_furniture
from llama_qna.documents.paragraphs import Flow, Paragraph, marks_of, split_run_in
from llama_qna.documents.runs import Page
from llama_qna.documents.sections import mark_headings, title_by_words

LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st"}
LIGATURE = re.compile("[ﬀ-ﬆ]")
FORMULA_LETTER = re.compile("[\U0001d400-\U0001d7ff\u210e\u2112]")
NO_BREAK_SPACE = re.compile("[\u00a0\u2007\u202f]")
SOFT_LINE_END_HYPHEN = re.compile("\u00ad(?<=\\w.)(?=[ ]*(?:[\r\n]|$))")
DROPPED = {  # joiners (U+200C, U+200D) are spared: some scripts spell with them; U+FFFE is HYPHEN
    "control characters": "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f",
    "private-use glyphs": "\ue000-\uf8ff\U000f0000-\U0010ffff",
    "variation selectors": "\ufe00-\ufe0f\U000e0100-\U000e01ef",
    "zero-width spaces": "\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff",
    "soft hyphens": "\u00ad",
    "unreadable characters": "\ufffd\uffff\ud800-\udfff",
}
DROPPED_KINDS = {kind: re.compile(f"[{characters}]") for kind, characters in DROPPED.items()}
ANY_DROPPED = re.compile(f"[{''.join(DROPPED.values())}]")
LINE_END_HYPHEN = re.compile("[\x02\u2010\u00ad](?<=\\w.)$")
CONTENTS_LINE = re.compile(r"(?:[.·・]\s*){5,}([\divxlc]*)$")  # a "…" counts as three of them
CONTENTS_LINES = 3  # on one page; fewer are the dotted lines of a form, or of a list of values
CONTENTS_TITLE = re.compile(
    "(?:table of )?contents|inhalt(?:sverzeichnis|sübersicht)?|table des matières|sommaire|(?:tabla de )?contenidos?"
    "|índice(?: general)?|sumário|indice(?: generale)?|sommario|inhoud(?:sopgave)?|innehåll(?:sförteckning)?"
    "|indhold(?:sfortegnelse)?|innhold(?:sfortegnelse)?|sisällys(?:luettelo)?|spis treści|obsah|tartalom(?:jegyzék)?"
    "|içindekiler|содержание|оглавление|зміст|περιεχόμενα|תוכן(?: ה?עניינים)?"
    "|(?:قائمة )?المحتويات|目 ?[录錄次]|차 ?례|목 ?차",
    re.IGNORECASE,
)


@dataclass
class Document:
    """A document as the stages after it see it."""

    name: str
    pages: int
    paragraphs: list[Paragraph]
    references: list[tuple[int, str, int]]  # (number, entry, page)
    report: dict = field(default_factory=dict)
    headings: list[tuple[str, int]] = field(default_factory=list)  # (title, page), also of sections without text

    def text(self) -> str:
        """All text once, without overlaps: what perplexity is measured on."""
        entries = [f"[{number}] {entry}" for number, entry, _ in self.references]
        return "\n\n".join([paragraph.text for paragraph in self.paragraphs] + entries)


def lines_of_pages(pages: list[Page], repairs: Counter, outline: dict[str, int | None]) -> list[list[Line]]:
    """The lines of every page in the order of reading, without what stands beside the text."""
    size = body_size(pages)
    asides = drop_page_furniture(pages, size, repairs, outline)
    upright = 2 * sum(page.turned for page in pages) < len(pages)

    def lines(numbers: range) -> list[list[Line]]:
        return [list(_lines_of_page(pages[n], n + 1, size, upright, asides[n])) for n in numbers]

    return in_halves(lines, len(pages))


def _lines_of_page(page: Page, number: int, size: float, upright: bool, aside: list[str]) -> Iterator[Line]:
    part = -1
    for part, piece in enumerate(parts(join_accents(page.runs))):
        column = (min(run.left for run in piece.runs), max(run.right for run in piece.runs))
        for line in rows_of_table(piece.runs) if piece.table else lines_of(piece.runs, size):
            line.part, line.page, line.column = part, number, column
            line.table = piece.table or (page.turned and upright)
            line.ruled = bool(page.rules) and _is_underlined(line, page.rules)
            yield line
    for text in aside:
        part += 1
        yield Line(text, part=part, page=number, table=True)


def _is_underlined(line: Line, rules: list[tuple[float, float, float]]) -> bool:
    """Whether lines under a text are as long as it, but for the gaps where letters reach below."""
    below = [
        (left, right) for left, right, y in rules
        if -0.45 * line.size < y - line.base < 0.05 * line.size and line.left - 3 < left and right < line.right + 6
    ]  # fmt: skip
    return sum(right - left for left, right in below) > 0.75 * (line.right - line.left)


def clean(name: str, pages: list[Page], outline: dict[str, int | None]) -> Document:
    """Turn what stands on pages into paragraphs, headings and reference entries.

    Args:
        pages: the runs of every page in the order of the file; those that are dropped are taken out of them.
        outline: section titles known from the PDF's outline, with the pages, from 0, where they stand.
    """
    repairs = Counter()
    lined = lines_of_pages(pages, repairs, outline)
    for lines in lined:
        for line in lines:
            line.text = _clean_characters(LINE_END_HYPHEN.sub(HYPHEN, line.text.rstrip()).replace("\x02", "-"), repairs)
    vocabulary = Vocabulary(["\n".join(line.plain for line in lines) for lines in lined])
    for lines in lined:
        for line in lines:
            line.text = " ".join(close_up_capitals(line.text, vocabulary, repairs).split())
    lined = _without_contents([[line for line in lines if line.text] for lines in lined], repairs)
    look = look_of(lined)
    is_title = title_by_words(lined, outline)
    blocks = [block for lines in lined for block in blocks_of(lines, look, is_title)]
    mark_headings(blocks, look, outline)
    flow = Flow(vocabulary, repairs, marks_of(blocks))
    for block in split_run_in(blocks):
        flow.add(block)
    flow.close()
    report = {"repairs": dict(sorted(repairs.items()))}
    return Document(name, len(pages), flow.paragraphs, flow.references, report, flow.headings)


def _without_contents(pages: list[list[Line]], repairs: Counter) -> list[list[Line]]:
    """The pages without a table of contents, which may end overleaf: its dotted lines and its title."""
    bodies, was_contents = [], False
    for page in pages:
        dotted = [CONTENTS_LINE.search(line.text.replace("…", "...")) for line in page]
        is_title = [bool(CONTENTS_TITLE.fullmatch(line.text)) for line in page]
        many = sum(bool(end and end[1]) for end in dotted) >= CONTENTS_LINES
        was_contents = any(dotted) and (many or any(is_title) or (was_contents and bool(dotted[0])))
        body = page
        if was_contents:
            body = [line for line, end, title in zip(page, dotted, is_title, strict=True) if not end and not title]
        repairs["contents lines"] += len(page) - len(body)
        bodies.append(body)
    return bodies


def clean_line(line: str, repairs: Counter) -> str:
    """One line without what only its typesetting needed (`DROPPED`, `LIGATURES`), and with plain single spaces."""
    return " ".join(_clean_characters(line, repairs).split())


def _clean_characters(text: str, repairs: Counter) -> str:
    """Replace or drop single characters. Nothing else is normalised: exponents and fractions keep their meaning."""
    if LIGATURE.search(text):
        text, count = LIGATURE.subn(lambda match: LIGATURES[match.group()], text)
        repairs["ligatures"] += count
    # italic formula letters are code points of their own; a model knows the plain ones
    text, count = FORMULA_LETTER.subn(lambda match: unicodedata.normalize("NFKC", match.group()), text)
    repairs["formula letters"] += count
    text = SOFT_LINE_END_HYPHEN.sub(HYPHEN, text)
    text, count = NO_BREAK_SPACE.subn(" ", text)
    repairs["no-break spaces"] += count
    if ANY_DROPPED.search(text):
        for kind, pattern in DROPPED_KINDS.items():
            text, count = pattern.subn("", text)
            repairs["control and private-use characters dropped"] += count
            if count:
                repairs[f"dropped: {kind}"] += count
    return text
