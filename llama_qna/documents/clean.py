"""Raw page texts become clean paragraphs, each with its pages and section; every repair is counted."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from llama_qna.documents import bibliography
from llama_qna.documents.hyphens import HYPHEN, Vocabulary, close_up_capitals, join_lines
from llama_qna.documents.page_headers import drop_page_furniture
from llama_qna.documents.sections import Headings, heading_key

__all__ = ["HYPHEN", "Document", "Paragraph", "clean", "clean_line", "heading_key"]
LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st"}
LIGATURE = re.compile("[ﬀ-ﬆ]")
FORMULA_LETTER = re.compile("[\U0001d400-\U0001d7ff\u210e\u2112]")
NO_BREAK_SPACE = re.compile("[\u00a0\u2007\u202f]")
SOFT_LINE_END_HYPHEN = re.compile("(?<=\\w)\u00ad(?=[ ]*(?:[\r\n]|$))")
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
PARAGRAPH_END = re.compile(r"[.!?:][\"'”’)\]]*$")


@dataclass(frozen=True)
class Paragraph:
    text: str
    page: int  # where it begins, counted from 1
    section: str
    pages: tuple[tuple[int, int], ...] = ()  # (offset in the text, page) for every page; empty: all on `page`

    def page_at(self, offset: int) -> int:
        """The page of the character at an offset in the text."""
        place = bisect_right(self.pages, offset, key=lambda start: start[0])
        return self.pages[place - 1][1] if place else self.page


@dataclass
class Document:
    """A document as the stages after it see it."""

    name: str
    pages: int
    paragraphs: list[Paragraph]
    references: list[tuple[int, str, int]]  # (number, entry, page)
    report: dict = field(default_factory=dict)

    def text(self) -> str:
        """All text once, without overlaps: what perplexity is measured on."""
        entries = [f"[{number}] {entry}" for number, entry, _ in self.references]
        return "\n\n".join([paragraph.text for paragraph in self.paragraphs] + entries)


def clean(name: str, pages: list[str], headings: dict[str, int | None]) -> Document:
    """Turn raw page texts into paragraphs and reference entries.

    Args:
        pages: raw text, one string a page.
        headings: section titles known from the PDF's outline, with their pages; empty: found by their look.
    """
    repairs = Counter()
    texts = [_clean_characters(page, repairs) for page in pages]
    vocabulary = Vocabulary(texts)
    lines = [
        [" ".join(close_up_capitals(line, vocabulary, repairs).split()) for line in text.splitlines() if line.strip()]
        for text in texts
    ]
    lines = drop_page_furniture(lines, headings, repairs)
    paragraphs, entries = _paragraphs(lines, Headings(headings), vocabulary, repairs)
    characters = sum(map(len, pages))
    return Document(
        name=name,
        pages=len(pages),
        paragraphs=paragraphs,
        references=entries,
        report={
            "pages": len(pages),
            "characters": characters,
            "characters_per_page": round(characters / len(pages)),
            "pages_without_text": [n for n, page in enumerate(pages, start=1) if not page.strip()],
            "sections": len({paragraph.section for paragraph in paragraphs}),
            "reference_entries": len(entries),
            "repairs": dict(sorted(repairs.items())),
        },
    )


def clean_line(line: str, repairs: Counter) -> str:
    """One line without what only its typesetting needed (`DROPPED`, `LIGATURES`), and with plain single spaces."""
    return " ".join(_clean_characters(line, repairs).split())


def _paragraphs(
    pages: list[list[str]], headings: Headings, vocabulary: Vocabulary, repairs: Counter
) -> tuple[list[Paragraph], list[tuple[int, str, int]]]:
    """Part lines at headings, and after a short line that ends a sentence; reference lists become entries."""
    paragraphs: list[Paragraph] = []
    entries: list[tuple[int, str, int]] = []
    section, block = "", []

    def flush():
        if block:
            text, places = join_lines(block, vocabulary, repairs)
            paragraphs.append(Paragraph(text, block[0][1], section, tuple(places)))
            block.clear()

    def close_section():
        if bibliography.HEADING.fullmatch(section):
            block[:], found = bibliography.parse(block, vocabulary, repairs)
            entries.extend(found)
        flush()

    for number, page in enumerate(pages, start=1):
        width = sorted(map(len, page))[int(len(page) * 0.8)] if page else 0
        for line, after in zip(page, [*page[1:], ""], strict=False):
            in_references = bool(bibliography.HEADING.fullmatch(section))
            before = block[-1][0] if block else ""
            if headings.is_heading(line, after, in_references) or (
                in_references and bibliography.is_list_end(line, before)
            ):
                close_section()
                section = line
                continue
            block.append((line, number))
            if not in_references and PARAGRAPH_END.search(line) and len(line) < 0.85 * width:
                flush()
    close_section()
    return paragraphs, entries


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
