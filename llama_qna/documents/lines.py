"""Runs become lines of text: gaps become spaces, accents and initials are joined to letters, raised text is marked."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, replace

from llama_qna.documents.runs import Run, by_base

RAISED, LEVEL = "\ufdd0", "\ufdd1"  # stand around raised text until it is known what it is; no characters
SPACE = 0.14  # of the size: a wider gap between runs parts words
SURE_SPACE = 0.4  # where PDFium sees no space
CJK_SPACE = 0.8
CJK = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
ACCENTS = {
    "`": "\u0300", "´": "\u0301", "ˊ": "\u0301", "ˋ": "\u0300", "ˆ": "\u0302", "^": "\u0302", "˜": "\u0303",
    "~": "\u0303", "¯": "\u0304", "ˉ": "\u0304", "˘": "\u0306", "˙": "\u0307", "¨": "\u0308", "˚": "\u030a",
    "°": "\u030a", "˝": "\u030b", "ˇ": "\u030c", "¸": "\u0327", "˛": "\u0328",
}  # fmt: skip
BULLETS = tuple("•‣◦▪●○■□➢✓∙·")
NOTE_MARK = re.compile(r"[−+-]|[−+-]?\d{1,3}|[*†‡§¶‖#]{1,3}|[a-z]|[ivx]{1,4}")


@dataclass(slots=True)
class Line:
    """One line of a column; lengths in points."""

    text: str  # raised text stands between RAISED and LEVEL
    left: float = 0.0
    right: float = 0.0
    base: float = 0.0
    size: float = 10.0  # of most of its letters
    most: float = 10.0  # of its largest letters
    face: str = ""
    bold: bool = False
    italic: bool = False
    ruled: bool = False  # underlined
    lead: int = 0  # letters at its start that are bold where the rest is not
    column: tuple[float, float] = (0.0, 0.0)  # edges of its column
    part: int = 0  # the part of the page that it stands in, counted from 0
    page: int = 1
    table: bool = False  # a row of a table, or of a page that lies on its side

    @property
    def plain(self) -> str:
        return self.text.replace(RAISED, "").replace(LEVEL, "")


def rows_of_table(runs: list[Run]) -> list[Line]:
    """The rows of a table: a cell of several lines, which follow each other in the file, counts as one."""
    cells: list[Run] = []
    last = None
    for run in sorted(runs, key=lambda run: run.order):
        below = last and 0.9 * run.size < last.base - run.base < 1.3 * run.size
        if below and cells and run.left < last.right and last.left < run.right:
            whole = cells[-1]
            whole.text = f"{whole.text.rstrip()} {run.text.lstrip()}"
            whole.left, whole.right = min(whole.left, run.left), max(whole.right, run.right)
        else:
            cells.append(replace(run))
        last = run
    return [_line(row) for row in _rows(cells)]


def lines_of(runs: list[Run], size: float = 0.0) -> list[Line]:
    """The lines of one part of a page, from the top.

    Args:
        size: of the document's text, in points; a single letter of twice its height is an initial.
    """
    large = [run for run in runs if size and run.size > 1.9 * size]
    initials = [run for run in large if len(run.text.strip()) <= 2 and run.text.strip().isalpha()]
    lines = [_line(row) for row in _rows([run for run in runs if run not in initials])]
    for initial in initials:
        _put_before(initial, lines)
    return lines


def _rows(runs: list[Run]) -> list[list[Run]]:
    """Runs on one base line; raised and lowered ones come to the line that they touch."""
    rows = by_base(runs, 0.12, 0.6)
    largest = [max(run.size for run in row) for row in rows]
    bases = [row[0].base for row in rows]
    for n, row in enumerate(rows):
        if not row:
            continue
        signs = not any(run.text.strip()[0].isalnum() for run in row)
        near = [m for m in (n + 1, n + 2, n - 2, n - 1) if 0 <= m < len(rows) and abs(bases[n] - bases[m]) < largest[m]]
        near = [m for m in near if signs or largest[m] * 0.85 > min(run.size for run in row)]
        for run in sorted(row, key=lambda run: run.left) if near else ():
            for m in near:
                if rows[m] and _hangs_on(run, rows[m], largest[m], signs):
                    row.remove(run)
                    rows[m].append(run)
                    break
    return [row for row in rows if row]


def _hangs_on(run: Run, row: list[Run], size: float, sign: bool) -> bool:
    """Whether a small run, raised or lowered, or a sign drawn elsewhere touches one of a row's runs."""
    shift = (run.base - max(row, key=lambda other: other.size).base) / size
    sign = sign and len(run.text.strip()) == 1
    if not (run.size < 0.85 * size and -0.35 < shift < 0.75 or sign and run.size < 1.3 * size and -0.9 < shift < 0.9):
        return False
    return any(
        -0.35 * size < run.left - other.right < (1.3 if CJK.match(other.text[-1]) else 0.45) * size
        or -0.3 * size < other.left - run.right < 0.45 * size
        and (sign or shift > 0.1)
        for other in row
    )


def is_right_to_left(runs: list[Run]) -> bool:
    """Whether most letters of some runs are of a script that is read from the right."""
    letters = re.sub(r"[\W\d_]", "", "".join(run.text for run in runs))
    return not letters.isascii() and len(RIGHT_TO_LEFT.findall(letters)) > len(letters) / 2


def _line(row: list[Run]) -> Line:
    """A line of runs on one base line."""
    if is_right_to_left(row):
        row = sorted(row, key=lambda run: -run.right)
        text, lead = " ".join(run.text.strip() for run in row), 0
    else:
        row = sorted(row, key=lambda run: run.left)
        text, lead = _joined(row)
    weights = defaultdict(int)
    for run in row:
        weights[run.size] += len(run.text.strip())
    size = max(weights, key=weights.get)
    main = max((run for run in row if run.size == size), key=lambda run: len(run.text))
    return Line(
        text,
        min(run.left for run in row),
        max(run.right for run in row),
        main.base,
        size,
        max((run.size for run in row if run.text[:1].isalnum()), default=size),
        main.face.name,
        all(run.face.bold for run in row if run.text.strip()),
        all(run.face.italic for run in row if run.text.strip()),
        lead=lead,
    )


def join_accents(runs: list[Run]) -> list[Run]:
    """Put accents that were drawn over a letter, shortly before or after it, together with it."""
    joined: set[int] = set()
    for n, accent in enumerate(runs):
        sign = accent.text.strip()
        if sign not in ACCENTS:
            continue
        middle = (accent.left + accent.right) / 2
        near = [run for run in runs[max(0, n - 2) : n + 3] if run is not accent and _is_under(accent, middle, run)]
        if near:
            letter = min(near, key=lambda run: abs((run.left + run.right) / 2 - middle))
            whole = letter.text.strip().replace("ı", "i").replace("ȷ", "j") + ACCENTS[sign]
            letter.text = unicodedata.normalize("NFC", whole)
            letter.order += 0.5  # its neighbours in the file are others: gaps tell where spaces are
            for before in runs[max(0, n - 2) : n]:  # the pen's way to the accent is no space
                if 0 < letter.left - before.left and letter.left - before.right < SPACE * letter.size:
                    before.text = before.text.rstrip()
            joined.add(id(accent))
    return [run for run in runs if id(run) not in joined] if joined else runs


def _is_under(accent: Run, middle: float, run: Run) -> bool:
    letter = run.text.strip()
    return (
        len(letter) == 1 and letter.isalpha() and run.left - 0.5 <= middle <= run.right + 0.5
        and abs(run.base - accent.base) < 0.4 * run.size
    )  # fmt: skip


def _joined(row: list[Run]) -> tuple[str, int]:
    """The text of runs from the left, and how many letters at its start are bold where the rest is not."""
    largest = max(row, key=lambda run: (run.size, len(run.text)))
    wide = _word_gap(row)
    text, lead, in_lead, last = "", 0, row[0].face.bold and not all(run.face.bold for run in row), None
    for run in row:
        own = run.text.strip(" \r\n\t")
        if not own:
            continue
        if last and text and _parted(last, run, wide):
            text += " "
        if _is_raised(run, own, largest.base, largest.size):
            own = f"{RAISED}{own}{LEVEL}"
        if in_lead and not run.face.bold:
            lead, in_lead = len(text), False
        text += own
        last = run
    return text, lead


def _parted(last: Run, run: Run, wide: float | None) -> bool:
    """Whether a space stands between two runs; PDFium's own ones are at their edges, inside their boxes or not."""
    gap = (run.left - last.right) / run.size
    if last.text.strip() in BULLETS:
        return gap > 0
    if CJK.match(run.text.strip()[0]) and CJK.match(last.text.strip()[-1]):
        return gap > CJK_SPACE
    if wide is not None:
        return gap > wide
    least = 0.22 if run.text[0] in ".,)" else -0.3  # these have white of their own before them
    marked = gap > least and (last.text.endswith(" ") or run.text.startswith(" "))
    # PDFium has judged the gap between runs that follow each other in the file
    return marked or gap > (SURE_SPACE if run.order == last.order + 1 else SPACE)


def _word_gap(row: list[Run]) -> float | None:
    """In letters that are set apart, one by one, the gap in em that parts words; None for other text."""
    if len(row) < 6 or sum(len(run.text.strip()) == 1 for run in row) < 0.9 * len(row):
        return None
    gaps = sorted((after.left - before.right) / after.size for before, after in zip(row, row[1:], strict=False))
    common = gaps[len(gaps) // 3]
    return common + 0.17 if common > 0.1 else None


def _is_raised(run: Run, own: str, base: float, size: float) -> bool:
    if run.size < 0.85 * size and run.base - base > 0.12 * size:
        return own.isdigit() or bool(NOTE_MARK.fullmatch(own))
    return own.isdigit() and run.low - base > 0.2 * size


def _put_before(initial: Run, lines: list[Line]) -> None:
    """Join an initial over several lines to the uppermost line beside it."""
    beside = [
        line for line in lines
        if initial.base - 0.2 * line.size < line.base < initial.base + 0.8 * initial.size
        and -2 < line.left - initial.right < 1.5 * initial.size
    ]  # fmt: skip
    if beside:
        first = max(beside, key=lambda line: line.base)
        first.text = initial.text.strip() + first.text
        for line in beside:
            line.left = initial.left
    else:
        lines.append(_line([initial]))
        lines.sort(key=lambda line: -line.base)
