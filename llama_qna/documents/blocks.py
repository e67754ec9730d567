"""Lines become blocks: what looks alike and stands close together, as a heading or a paragraph's part of a page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from llama_qna.documents.lines import BULLETS, CJK, LEVEL, RAISED, Line

ITEM = re.compile(rf"(?:[{''.join(BULLETS)}–—*-]|\(?\d{{1,2}}[.)]|\([a-z]\))\s", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?:;。！？：；…][\"'”’»」』）)\]]*$")
NOTE_START = re.compile(rf"{RAISED}([^{LEVEL}]+){LEVEL}")
SAME_SIZE = 0.022  # of the size; sizes that differ by less are one
SMALL = 0.93  # of the body's size; what is smaller is a note


@dataclass
class Look:
    """What most of a document's text looks like; lengths in points."""

    size: float
    leading: float  # from base line to base line
    face: str
    bold: bool
    italic: bool


@dataclass
class Block:
    """Lines of one page that belong together."""

    lines: list[Line]
    kind: str = "body"  # body, heading, note
    gap: float = 0.0  # white above it, in lines of the body; infinite at the top of a part

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def last(self) -> Line:
        return self.lines[-1]

    @property
    def size(self) -> float:
        return max(line.most for line in self.lines)

    @property
    def text(self) -> str:
        return " ".join(line.plain for line in self.lines)

    @property
    def full(self) -> bool:
        """Whether the last line goes on to the end of its column, so that the paragraph may go on elsewhere."""
        left, right = self.last.column
        return right - self.last.right < 0.12 * (right - left)


def look_of(pages: list[list[Line]]) -> Look:
    """What most letters of a document look like."""
    looks, gaps = Counter(), Counter()
    for lines in pages:
        for line in lines:
            looks[round(line.size, 1), line.face, line.bold, line.italic] += len(line.text)
    if not looks:
        return Look(10.0, 12.5, "", False, False)
    sizes = Counter()
    for (size, *_), count in looks.items():
        sizes[size] += count
    size = sizes.most_common(1)[0][0]
    _, face, bold, italic = max((look for look in looks if look[0] == size), key=looks.get)
    for lines in pages:
        for one, after in pairwise(lines):
            if one.part == after.part and abs(one.size - size) < 0.1 > abs(after.size - size) and one.base > after.base:
                gaps[round(one.base - after.base, 1)] += 1
    leading = min((gap for gap, count in gaps.items() if count >= 0.4 * max(gaps.values())), default=1.25 * size)
    return Look(size, leading, face, bold, italic)


def blocks_of(lines: list[Line], look: Look, is_title: Callable[[str], bool]) -> list[Block]:
    """Part the lines of one page into blocks.

    Args:
        is_title: whether a line is a title by its words, whatever it looks like.
    """
    blocks: list[Block] = []
    for n, line in enumerate(lines):
        before = blocks[-1].last if blocks else None
        gap = float("inf")
        if before and before.part == line.part:
            gap = (before.base - line.base) / (look.leading * max(before.size, line.size) / look.size)
        titled = is_title(line.plain) or (before is not None and is_title(before.plain))
        if before is None or titled or _parts(blocks[-1], line, gap, look, _edge(lines, n)):
            blocks.append(Block([line], gap=gap))
        else:
            blocks[-1].lines.append(line)
    return blocks


def _edge(lines: list[Line], n: int) -> float:
    """How far lines near the n-th one go to the right."""
    size, part = lines[n].size, lines[n].part
    near = (line for line in lines[max(0, n - 4) : n + 4] if line.part == part and abs(line.size - size) < 0.1)
    return max(line.right for line in near)


def _parts(block: Block, line: Line, gap: float, look: Look, edge: float) -> bool:
    """Whether a line begins a block of its own after a block."""
    before = block.last
    if before.part != line.part or before.table or line.table or NOTE_START.match(line.text):
        return True
    resized = abs(line.size - before.size) > SAME_SIZE * before.size
    if resized and abs(line.most - before.most) > SAME_SIZE * before.most:
        return True
    if line.bold != before.bold or line.ruled != before.ruled or gap > 1.3 or gap < -0.5:
        return True
    if gap > 1.1 and (line.italic != before.italic or line.plain.isupper() != before.plain.isupper()):
        return True
    if ITEM.match(line.plain) or (line.lead > 2 and line.text[: line.lead].rstrip().endswith((".", ":"))):
        return True
    distinct = before.size > (1 + SAME_SIZE) * look.size or (before.bold and not look.bold) or before.ruled
    return not distinct and _begins_paragraph(block, line, edge)


def _begins_paragraph(block: Block, line: Line, edge: float) -> bool:
    """Whether a line is indented against the one before, or that one left room for this one's first word."""
    before = block.last
    item = ITEM.match(block.first.plain)
    if abs(line.left + line.right - before.left - before.right) < 3 and line.left > before.left + 1:
        return False  # centred
    if line.left > before.left + 0.7 * line.size and not (item and len(block.lines) == 1):
        return abs(before.left - before.column[0]) < 0.3 * line.size or len(block.lines) > 1
    if not SENTENCE_END.search(before.plain):
        return False
    first = line.plain.split(" ")[0] if not CJK.match(line.plain) else line.plain[:2]
    word = (line.right - line.left) * len(first) / max(1, len(line.plain))
    return edge - before.right > word + 1.2 * line.size
