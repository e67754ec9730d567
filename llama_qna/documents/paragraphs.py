"""Blocks become paragraphs under their headings: a sentence goes on overleaf, and notes stand after its end."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

from llama_qna.documents import bibliography
from llama_qna.documents.blocks import ITEM, NOTE_START, Block
from llama_qna.documents.hyphens import Vocabulary, join_lines
from llama_qna.documents.lines import LEVEL, RAISED, Line
from llama_qna.documents.sections import TITLE_NUMBER

SUPERSCRIPTS = str.maketrans("0123456789-−+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻⁺")
RAISED_TEXT = re.compile(rf"\s?{RAISED}([^{LEVEL}]*){LEVEL}")
# What a raised number is an exponent of: a number of one or two digits, a letter, a unit or a product without a vowel.
POWER = re.compile(r"(?<![^\W_])(\d{1,2}|[^\W\d_]|[kcdmµn]?m|[b-df-hj-np-tv-xz]{2})$")
TERMINAL = re.compile(r"[.!?:。！？：…][\"'”’»」』）)\]]*$")


@dataclass(frozen=True)
class Paragraph:
    text: str
    page: int  # where it begins, counted from 1
    section: str
    pages: tuple[tuple[int, int], ...] = ()  # (offset in the text, page) for every page; empty: all on `page`


@dataclass
class Flow:
    """Collects the paragraphs, headings and reference entries of one document from its blocks."""

    vocabulary: Vocabulary
    repairs: Counter
    marks: dict[int, set[str]]  # of the footnotes that begin on a page
    paragraphs: list[Paragraph] = field(default_factory=list)
    headings: list[tuple[str, int]] = field(default_factory=list)  # (title, page)
    references: list[tuple[int, str, int]] = field(default_factory=list)  # (number, entry, page)
    section: str = ""
    open: list[tuple[str, int]] = field(default_factory=list)  # lines of the paragraph in hand
    last: Block | None = None  # its last block
    notes: list[list[tuple[str, int]]] = field(default_factory=list)  # that wait for its end
    entry: Line | None = None  # of a list of references, the first line of its last entry
    left_list: bool = False  # whether notes on the authors have begun since

    def add(self, block: Block) -> None:
        """Take the next block in the order of reading."""
        lines = [(self._text(line.text, line.page), line.page) for line in block.lines]
        in_references = bool(bibliography.HEADING.fullmatch(self.section))
        if in_references and block.kind != "heading" and not self._is_beside_list(block):
            self._add_reference(lines)
        elif block.kind == "heading":
            self.begin_section(self._join(lines)[0], block.first.page)
        elif block.kind == "note" or in_references:
            self._add_note(lines, bool(NOTE_START.match(block.first.text)) or (in_references and _is_named(block)))
        else:
            if not self._goes_on(block):
                self.close()
            self.open += lines
            self.last = block

    def begin_section(self, title: str, page: int) -> None:
        """Close what is open and begin a section."""
        self.close()
        has_text = self.paragraphs and self.paragraphs[-1].section == self.section
        if self.headings and TITLE_NUMBER.fullmatch(self.headings[-1][0]) and not has_text:
            title, page = f"{self.headings[-1][0]} {title}", self.headings.pop()[1]  # "Chapter One", below it its words
        self.section, self.entry, self.left_list = title, None, False
        self.headings.append((title, page))

    def close(self) -> None:
        """End the paragraph in hand, and let the notes that waited follow it."""
        in_references = bool(bibliography.HEADING.fullmatch(self.section))
        if self.open and in_references:
            lead, found = bibliography.parse(self.open, self.vocabulary, self.repairs)
            self.references += found
            self.open = lead
        self._end(self.open, self.section)
        for lines in self.notes:
            self._end(lines, "" if in_references else self.section)  # what stands beside the list is no part of it
        self.open, self.notes, self.last = [], [], None

    def _end(self, lines: list[tuple[str, int]], section: str) -> None:
        text, places = self._join(lines) if lines else ("", [])
        if text:
            self.paragraphs.append(Paragraph(text, lines[0][1], section, tuple(places)))

    def _goes_on(self, block: Block) -> bool:
        """Whether a block goes on with the paragraph in hand, which another column, page or a float broke off."""
        last = self.last
        if not self.open or not last or last.kind != block.kind:
            return False
        if (last.last.page, last.last.part) == (block.first.page, block.first.part) and not self.notes:
            return False
        if ITEM.match(block.first.plain) or abs(last.first.size - block.first.size) > 0.06 * block.first.size:
            return False
        ended, text = TERMINAL.search(last.last.plain), block.first.plain
        if text[:1].islower():
            return not ended or last.full
        return not ended and last.full

    def _add_note(self, lines: list[tuple[str, int]], begins: bool) -> None:
        """A note stands after the paragraph in hand; one without a mark may go on with the last one, overleaf."""
        before = self.notes[-1] if self.notes else None
        if before and not begins and before[-1][1] < lines[0][1] and not TERMINAL.search(before[-1][0]):
            before += lines
        else:
            self.notes.append(lines)
        if not self.open:
            self.close()

    def _is_beside_list(self, block: Block) -> bool:
        """Whether a block amid or after the entries of a list is none: a footnote, or a note on the authors.

        Such notes open with a name in bold type, or are of another size; they go on until a block opens an entry.
        """
        first, entry = block.first, self.entry
        style = bibliography.style_of(first.plain)
        if entry is None:
            self.entry = first if style else None
            return False
        named = _is_named(block) and not entry.lead
        resized = abs(first.size - entry.size) > 0.06 * entry.size and block.gap > 1.3
        numbered = style in bibliography.NUMBERED
        if style == bibliography.style_of(entry.plain) and (numbered or not (named or resized)):
            self.entry, self.left_list = first, False
            return False
        if NOTE_START.match(first.text) and not NOTE_START.match(entry.text):
            return True
        if (named or resized) and self.open and bibliography.has_ended(self.open[-1][0]):
            self.left_list = True
        return self.left_list

    def _add_reference(self, lines: list[tuple[str, int]]) -> None:
        for line in lines:
            if bibliography.is_list_end(line[0], self.open[-1][0] if self.open else ""):
                self.begin_section(*line)
            else:
                self.open.append(line)

    def _join(self, lines: list[tuple[str, int]]) -> tuple[str, list]:
        return join_lines(lines, self.vocabulary, self.repairs)

    def _text(self, text: str, page: int) -> str:
        """A line without the marks of its footnotes; other raised figures stay raised."""
        if RAISED not in text:
            return text
        known = self.marks[page - 1] | self.marks[page] | self.marks[page + 1]
        text = text.replace(LEVEL + RAISED, "")

        def settle(match):
            before, raised = text[: match.start()], match[1]
            if not match.start() or raised in known and not POWER.search(before):
                self.repairs["marks of notes"] += 1
                return ""
            return raised.translate(SUPERSCRIPTS)

        return RAISED_TEXT.sub(settle, text).strip()


def marks_of(blocks: list[Block]) -> dict[int, set[str]]:
    """The marks with which notes begin, by page."""
    marks: dict[int, set[str]] = defaultdict(set)
    for block in blocks:
        if block.kind == "note" and (start := NOTE_START.match(block.first.text)):
            marks[block.first.page].add(start[1])
    return marks


def split_run_in(blocks: list[Block]) -> list[Block]:
    """Part bold words that open a paragraph from it, where several paragraphs have them: they are its heading.

    Where other headings have numbers, bold words without one are no heading.
    """
    found = [n for n, block in enumerate(blocks) if _run_in(block)]
    if any(TITLE_NUMBER.match(block.text) for block in blocks if block.kind == "heading"):
        found = [n for n in found if TITLE_NUMBER.match(blocks[n].text)]
    if len(found) < 2:
        return blocks
    done: list[Block] = []
    for n, block in enumerate(blocks):
        if n not in found:
            done.append(block)
            continue
        first, lead = block.first, block.first.lead
        head = replace(first, text=first.text[:lead].strip(), lead=0)
        before = done[-1] if done else None
        if before and before.last.bold and block.gap < 1.12 and abs(before.last.size - first.size) < 0.1:
            before.lines.append(head)
            before.kind = "heading"
        else:
            done.append(Block([head], "heading", block.gap))
        rest = replace(first, text=first.text[lead:].strip(), lead=0)
        done.append(Block([rest, *block.lines[1:]], block.kind, block.gap))
    return done


def _is_named(block: Block) -> bool:
    """Whether a block opens with bold words."""
    return bool(re.search(r"[^\W\d_]{2}", block.first.text[: block.first.lead]))


def _run_in(block: Block) -> bool:
    lead = block.first.text[: block.first.lead].strip()
    return block.kind == "body" and len(lead) > 2 and len(lead.split()) <= 12 and lead.endswith((".", ":"))
