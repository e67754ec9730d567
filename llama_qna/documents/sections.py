"""Which blocks of a document are titles of its sections: by size, weight, slant, capitals, rules, numbers and place.

What a document's headings look like is learnt from the document: a look is that of headings if its blocks are short,
stand apart, end like no sentence, and differ from the running text. The PDF's outline, where there is one, names
headings that look like text.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import NamedTuple

from llama_qna.documents import bibliography
from llama_qna.documents.blocks import ITEM, NOTE_START, SMALL, Block, Look
from llama_qna.documents.lines import CJK, Line

_CHAPTER = (
    "chapter|part|appendix|section|kapitel|teil|anhang|chapitre|partie|annexe|capítulo|parte|capitolo|rozdział|część"
    "|глава|часть"
)
_HAN = "〇一二三四五六七八九十百"
TITLE_NUMBER = re.compile(
    rf"(?:(?:{_CHAPTER})\s+(?:\d+|[ivxlc]+|[a-z]|\w+)\b[.:]?"
    rf"|§\s*\d+(?:\.\d+)*|\d{{1,2}}(?:\.\d{{1,2}}){{0,3}}[.)]?(?=\s)|[IVXLC]+\.(?=\s)|[A-Za-z][.)](?=\s)"
    rf"|第[{_HAN}\d]+[章节節回部編编条]|[{_HAN}]+、|[（(][{_HAN}]+[）)])\s*",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,2})\.?\s+([^\W\d_a-z][^.!?]{2,80}\??)")
NAMED = re.compile(r"abstract|introduction|conclusions?|acknowledge?ments?", re.IGNORECASE)
MOST_WORDS, MOST_LETTERS, MOST_LINES = 24, 180, 6
NO_TITLES_END = re.compile(r"[.;,。；，、…][\"'”’»）)\]]*$")
MONOSPACED = re.compile(r"mono|courier|typewriter|consol|code|menlo|cmtt|\btt\b|tt\d", re.IGNORECASE)
ITEM_MARKS = tuple("•‣◦▪●–—")  # a square is no such mark: it may adorn a title, as in "■ INTRODUCTION"
FORMULA = re.compile("[=<>≤≥∈∑∫√±×→≈@]|://")
LETTER = re.compile(r"[^\W\d_]")


class Style(NamedTuple):
    """What the blocks of one kind of heading have in common."""

    size: float
    bold: bool
    italic: bool
    capitals: bool
    ruled: bool
    face: str


def heading_key(title: str) -> str:
    """A heading without its number and with plain quotes, spaces and case: outline and page differ in all of them."""
    plain = " ".join(title.replace("’", "'").split())
    return re.sub(r"\s", "", TITLE_NUMBER.sub("", plain, count=1)).casefold() or plain.casefold()


def numbered_heading(line: str) -> tuple[int, ...]:
    """The number of a line that looks like a numbered heading, as (chapter, section, ...); else empty."""
    match = NUMBERED.fullmatch(line)
    return tuple(map(int, match[1].split("."))) if match and len(line.split()) <= 12 else ()


def follows(number: tuple[int, ...], last: tuple[int, ...]) -> bool:
    """Whether a heading's number can come after the last one: 4.2 after 4.1, 4.1.3 or 4.

    The number after the next passes too, since a heading may have been missed; so does any sub-number 1 at first.
    """
    level = len(number) - 1
    if number[-1] == 1 and level and (not last or number[:-1] == last or follows(number[:-1], last)):
        return True
    if len(last) <= level:
        return number == (1,)
    return number[:level] == last[:level] and 1 <= number[level] - last[level] <= 2


def title_by_words(pages: list[list[Line]], outline: dict[str, int | None]) -> Callable[[str], bool]:
    """A test of lines: whether one is a title by its words; numbers and the outline tell where all text looks alike."""
    looks = Counter()
    for line in (line for lines in pages for line in lines):
        looks[round(line.size), line.bold, line.italic] += len(line.text)
    alike = bool(looks) and max(looks.values()) > 0.99 * sum(looks.values())
    keys = {heading_key(title) for title in outline}

    def is_title(text: str) -> bool:
        if NAMED.fullmatch(text) or bibliography.HEADING.fullmatch(text):
            return True
        return alike and bool(numbered_heading(text) or heading_key(text) in keys)

    return is_title


def mark_headings(blocks: list[Block], look: Look, outline: dict[str, int | None]) -> None:
    """Set the kind of every block: `heading`, `note` (smaller than the text, or in a table) or `body`."""
    titles = {heading_key(title): page for title, page in outline.items()}
    for block in blocks:
        if block.first.table or block.size < SMALL * look.size or NOTE_START.match(block.first.text):
            block.kind = "note"
    start = _start_of_text(blocks, look)
    candidates = set()
    styles: dict[Style, list[int]] = defaultdict(list)
    for n, (block, after) in enumerate(zip(blocks, [*blocks[1:], None], strict=False)):
        if _may_be(block, look) and not _overlap(block, after):
            candidates.add(n)
            styles[_style(block, look)].append(n)
    number: tuple[int, ...] = ()
    for n, block in enumerate(blocks):
        text = block.text
        page = titles.get(heading_key(text), math.inf) if titles else math.inf
        outlined = page is None or abs(page + 1 - block.first.page) <= 1
        looks_so = n in candidates and _is_heading(n, blocks, styles, look, start)
        named = NAMED.fullmatch(text) or bibliography.HEADING.fullmatch(text)
        if outlined or looks_so or named or (not outline and not styles and _follows_number(blocks, n, number)):
            block.kind = "heading"
            number = numbered_heading(text) or number


def _start_of_text(blocks: list[Block], look: Look) -> int:
    """The number of the first block that is text; before it stand title and authors."""
    for n, block in enumerate(blocks):
        length = len(block.text) * (2.5 if CJK.search(block.text) else 1)
        if 0.88 * look.size < block.first.size < 1.04 * look.size and block.size < 1.04 * look.size:
            if (length > 70 or ITEM.match(block.text)) and not block.first.table:
                return n
    return len(blocks)


def _may_be(block: Block, look: Look) -> bool:
    """Whether a block is short, stands apart and does not look like the running text."""
    text = block.text
    if block.first.table or len(block.lines) > MOST_LINES or len(text) > MOST_LETTERS or len(text.split()) > MOST_WORDS:
        return False
    style = _style(block, look)
    if not _is_worded(block) or (MONOSPACED.search(style.face) and not MONOSPACED.search(look.face)):
        return False  # a formula, a list item, or code
    if style.size < (0.85 if style.capitals else 0.97) * look.size:
        return False
    if NO_TITLES_END.search(text) and (style.size <= 1.15 * look.size or text.endswith((";", ","))):
        return False
    if style.bold or style.ruled or style.size >= 1.045 * look.size:
        return block.gap > 1.02 or style.size >= 1.1 * look.size
    gothic = style.face != look.face and bool(CJK.search(text))  # Chinese and Japanese have no italics
    return (style.italic or style.capitals or gothic or style.size >= 1.02 * look.size) and block.gap > 1.12


def _is_worded(block: Block) -> bool:
    """Whether a text is words, and neither a formula nor an item or a note with its mark."""
    words = TITLE_NUMBER.sub("", block.text, count=1) or block.text
    if FORMULA.search(words) or NOTE_START.match(block.first.text) or words.startswith(ITEM_MARKS):
        return False
    return len(LETTER.findall(words)) >= max(1, 0.6 * len(words.replace(" ", "")))


def _overlap(block: Block, after: Block | None) -> bool:
    """Whether two blocks stand as close as the parts of a fraction."""
    if not after or after.gap > 0.6:
        return False
    return block.last.left < after.first.right and after.first.left < block.last.right


def _style(block: Block, look: Look) -> Style:
    letters = [letter for letter in LETTER.findall(block.text) if letter.upper() != letter.lower()]
    return Style(
        block.size,
        all(line.bold for line in block.lines) and not look.bold,
        all(line.italic for line in block.lines) and not look.italic,
        len(letters) > 2 and all(letter == letter.upper() for letter in letters),
        all(line.ruled for line in block.lines),
        block.first.face,
    )


def _is_heading(n: int, blocks: list[Block], styles: dict[Style, list[int]], look: Look, start: int) -> bool:
    """Whether a candidate is a heading: after the title and the authors, or of a look that headings have there."""
    block, style = blocks[n], _style(blocks[n], look)
    alike = [other for other in styles if other[1:] == style[1:] and abs(other.size - style.size) < 0.35]
    later = [m for other in alike for m in styles[other] if m >= start]
    if n >= start:
        strong = style.bold or style.ruled or style.size >= 1.045 * look.size or style.capitals
        return strong or len(later) > 1 or bool(TITLE_NUMBER.match(block.text))
    if not all(blocks[m].kind != "note" and _may_be(blocks[m], look) for m in range(n, start)):
        return False
    first = 0 < n == start - 1 and (style.bold or style.ruled) and len(block.text.split()) < 4
    return bool(later or first or TITLE_NUMBER.match(block.text))


def _follows_number(blocks: list[Block], n: int, number: tuple[int, ...]) -> bool:
    """In text of one look: whether a line has the next number and its sentence does not go on."""
    block = blocks[n]
    own = numbered_heading(block.text) if len(block.lines) == 1 else ()
    after = blocks[n + 1].text if n + 1 < len(blocks) else ""
    return bool(own) and not after[:1].islower() and follows(own, number)
