"""The order in which the runs of a page are read: columns are found by the white between them.

A page is cut from top to bottom into parts whose rows share the same white gutters, and each part into its columns;
columns are cut again in the same way (a recursive X-Y cut, Nagy and Seth 1984, with the cuts taken from gutters that go
on over several rows). Tables have gutters too: their rows are short, and they are read row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from llama_qna.documents.runs import Run, by_base

BAND = 2.0  # points; the height of the slices in which white is looked for
GUTTER = 0.7  # of the size of the text; a space between words is narrower
DEEPEST = 4
FULL = 0.62  # of a column's width is filled by its lines on average, where it is text
MARK = 3.2  # em; what is narrower is a bullet or a number before a list item


@dataclass
class Part:
    """Runs that are read from the left, line by line: a column of text, or a table."""

    runs: list[Run]
    table: bool = False


@dataclass
class _Group:
    """Bands of a page, from the first one to before the last one, that share gutters, or share none."""

    first: int
    last: int
    free: int  # bits: points of the page's width where no band has text
    used: int  # bits: points where any band has some
    split: bool  # whether there are gutters
    sides: int = 1  # bands that have text on both sides of a gutter


def parts(runs: list[Run], depth: int = 0) -> Iterator[Part]:
    """Part runs (all upright) into columns and tables, in the order of reading."""
    if len(runs) < 4 or depth >= DEEPEST:
        yield from [Part(runs)] if runs else []
        return
    size = median(run.size for run in runs)
    gutter = _least_gutter(runs, size)
    bands, top = _bands(runs, size)
    groups = _groups(bands, gutter)
    waiting: list[Run] = []
    below: list[Run] = []  # a table, with columns under it that share its gutter
    for n, (group, own) in enumerate(zip(groups, _runs_of(groups, runs, top), strict=True)):
        own, below = below + own, []
        columns = _columns(group, own, gutter) if group.split else []
        kind = _kind(columns, size, gutter)
        if kind == "text":
            waiting += own
            continue
        if kind == "table":
            before, table, after = _trimmed(own, size, gutter)
            if waiting or before:
                yield Part(waiting + before)
            yield Part(table, table=True)
            waiting = []
            if n + 1 < len(groups) and groups[n + 1].split:
                below = after
            else:
                waiting = after
            continue
        if waiting:
            yield Part(waiting)
            waiting = []
        if kind == "columns":
            table, columns = _table_above(own, columns, size, gutter)
            if table:
                yield Part(table, table=True)
            for column in columns:
                yield from parts(column, depth + 1)
    if waiting:
        yield Part(waiting)


def _least_gutter(runs: list[Run], size: float) -> int:
    """How wide a gutter is at least, in points: where words are runs of their own, wider than most spaces."""
    rows = [sorted(row, key=lambda run: run.left) for row in _by_base(runs)]
    gaps = sorted(after.left - one.right for row in rows for one, after in pairwise(row) if after.left > one.right)
    letters = sum(len(run.text.strip()) for run in runs) < 2 * len(runs)
    words = gaps[int((0.95 if letters else 0.8) * len(gaps))] if len(gaps) > 4 * len(rows) else 0
    return max(5, round(GUTTER * size), round(min(1.3 * words, 1.2 * size)))


def _bands(runs: list[Run], size: float) -> tuple[list[int], float]:
    """For every band from the top the points that text covers, as bits; and the height of the top."""
    top = max(run.base + run.size for run in runs)
    bottom = min(run.base - run.size for run in runs)
    bands = [0] * (int((top - bottom) / BAND) + 2)
    for run in runs:
        if run.size < 0.85 * size and len(run.text) <= 3:
            continue  # the mark of a note belongs to a line
        left = max(0, int(run.left))
        bits = (1 << max(1, int(run.right) - left + 1)) - 1 << left
        for n in range(
            int((top - run.base - 0.7 * run.size) / BAND), int((top - run.base + 0.15 * run.size) / BAND) + 1
        ):
            bands[n] |= bits
    return bands, top


def _groups(bands: list[int], gutter: int) -> list[_Group]:
    """Bands that follow each other and share gutters, or have none; together they hold all bands."""
    groups: list[_Group] = []
    for n, band in enumerate(bands):
        if not band:
            continue
        here = groups[-1] if groups else None
        # what shares a gutter by chance with a few lines far above it does not belong to them
        new = here and here.split and n - here.last > 3 * gutter / BAND and here.sides < 4 * gutter / BAND
        if here and here.split and not new:
            free, used = here.free & ~band, here.used | band
            if _gutters(free, used, gutter):
                here.free, here.used, here.last = free, used, n + 1
                here.sides += bool(_gutters(~band, band, gutter))
                continue
        split = bool(_gutters(~band, band, gutter))
        if here and not split and not here.split:
            here.free, here.used, here.last = here.free & ~band, here.used | band, n + 1
        else:
            groups.append(_Group(n, n + 1, ~band, band, split))
    return [group for n, group in enumerate(groups) if not _pull_back(groups, n, bands, gutter)]


def _pull_back(groups: list[_Group], n: int, bands: list[int], gutter: int) -> bool:
    """Let the group after the n-th take the lines above it that stand right of its gutter: a column that begins higher.

    Returns whether nothing is left of the n-th group.
    """
    here, after = groups[n], groups[n + 1] if n + 1 < len(groups) else None
    if here.split or not after or not after.split:
        return False
    first, free, used, last = here.last, after.free, after.used, after.first
    for place in range(here.last - 1, here.first - 1, -1):
        band = bands[place]
        if not band:
            continue
        if last - place > 2 * gutter / BAND:
            break
        last = place
        free, used = free & ~band, used | band
        begins = _gutters(free, used, gutter)
        if not begins:
            break
        left = band & -band
        if left > begins & -begins:
            if not _begins_column(left, after, gutter):
                break
            first = place
            after.free, after.used, after.first = free, used, place
    here.last = first
    return not any(bands[here.first : here.last])


def _begins_column(left: int, group: _Group, gutter: int) -> bool:
    """Whether a line beginning at a bit begins where a column of a group does, give or take an indent."""
    before = left
    for _ in range(2 * gutter):  # from the line's start to the left, the column's gutter must come soon
        before >>= 1
        if before & _ends(group, gutter):
            return True
    return False


def _gutters(free: int, used: int, width: int) -> int:
    """Bits at which a free stretch of some width begins that has text on both sides."""
    if not used:
        return 0
    low, high = (used & -used).bit_length() - 1, used.bit_length()
    free &= (1 << high) - (1 << low)
    step = 1
    while step < width:  # what is left of `free` after `step` shifts begins a stretch of that width
        free &= free >> min(step, width - step)
        step *= 2
    return free


def _ends(group: _Group, gutter: int) -> int:
    """Bits at which a gutter of a group ends."""
    begins = _gutters(group.free, group.used, gutter)
    return (begins & ~(begins >> 1)) << gutter - 1


def _runs_of(groups: list[_Group], runs: list[Run], top: float) -> list[list[Run]]:
    """The runs of each group, by their middles."""
    found: list[list[Run]] = [[] for _ in groups]
    starts = [group.first for group in groups]
    for run in runs:
        band = (top - run.base - 0.1 * run.size) / BAND
        place = 0
        for n, start in enumerate(starts):
            if start <= band + 0.5:
                place = n
        found[place].append(run)
    return found


def _columns(group: _Group, runs: list[Run], width: int) -> list[list[Run]]:
    """The runs of a group parted at its gutters."""
    begins, cuts, last = _gutters(group.free, group.used, width), [], -2
    while begins:
        at = (begins & -begins).bit_length() - 1
        if at > last + 1:
            cuts.append(at)
        last = at
        begins &= begins - 1
    columns: list[list[Run]] = [[] for _ in range(len(cuts) + 1)]
    for run in runs:
        columns[sum(run.left >= cut for cut in cuts)].append(run)
    return [column for column in columns if column]


def _kind(columns: list[list[Run]], size: float, gutter: float) -> str:
    """Whether runs parted at gutters are `columns` of text, a `table`, or but one `text` with wide gaps."""
    if len(columns) < 2:
        return "text"
    rows = [_rows(column) for column in columns]
    widths = [max(r.right for r in column) - min(r.left for r in column) for column in columns]
    sizes = [median(run.size for run in column) for column in columns]
    prose = [
        len(lines) >= 3 and width > 9 * own and _fill(lines, width) >= FULL
        for lines, width, own in zip(rows, widths, sizes, strict=True)
    ]
    if sum(prose) >= 2:
        return "columns"
    if any(prose):
        lines = max(len(lines) for lines, is_prose in zip(rows, prose, strict=True) if is_prose)
        beside = [n for n, is_prose in enumerate(prose) if not is_prose]
        small = all(sizes[n] < 0.93 * size or widths[n] > 9 * sizes[n] for n in beside)
        if small and lines >= 4:
            return "columns"
    lines = _by_base(sum(columns, []))
    edge = max(run.right for line in lines for run in line)
    cells = [_cells(line, size, gutter) for line in lines]
    counts = [len(row) for line, row in zip(lines, cells, strict=True) if not _is_justified(line, row, edge, size)]
    return "table" if sum(n > 1 for n in counts) >= 3 or sum(n > 2 for n in counts) >= 2 else "text"


def _is_justified(line: list[Run], cells: list[tuple[float, float]], edge: float, size: float) -> bool:
    """Whether a line is long and ends at the edge of its column, as text with wide spaces between its words does."""
    gaps = [after[0] - before[1] for before, after in pairwise(cells)]
    return edge - cells[-1][1] < 2 and sum(len(run.text) for run in line) > 24 and max(gaps, default=0) < 2 * size


def _table_above(
    runs: list[Run], columns: list[list[Run]], size: float, gutter: float
) -> tuple[list[Run], list[list[Run]]]:
    """Part a table over all columns, which shares their gutter, from the columns below it."""
    width = max(max(run.right for run in column) - min(run.left for run in column) for column in columns)
    above: list[Run] = []
    rows, steps = 0, []
    for row in _by_base(runs):
        cells = _cells(row, size, gutter)
        if above:
            steps.append(above[-1].base - row[0].base)
            if steps[-1] > 1.25 * steps[0]:
                break
        if len(cells) <= len(columns) or sum(right - left for left, right in cells) > 0.45 * width * len(cells):
            break
        above += row
        rows += 1
    if rows < 2:
        return [], columns
    taken = set(map(id, above))
    left = [[run for run in column if id(run) not in taken] for column in columns]
    return above, [column for column in left if column]


def _trimmed(runs: list[Run], size: float, gutter: float) -> tuple[list[Run], list[Run], list[Run]]:
    """What stands above a table, its rows, and what stands below it."""
    rows = _by_base(runs)
    wide = [n for n, row in enumerate(rows) if len(_cells(row, size, gutter)) > 1]
    first, last = wide[0], wide[0] + 1
    steps = [one[0].base - after[0].base for one, after in pairwise(rows)]
    while last <= wide[-1] and steps[last - 1] <= 1.3 * steps[first]:
        last += 1
    return sum(rows[:first], []), sum(rows[first:last], []), sum(rows[last:], [])


def _cells(row: list[Run], size: float, gutter: float) -> list[tuple[float, float]]:
    """Left and right ends of what stands apart in a row; a bullet or a number belongs to what follows it."""
    cells: list[list[float]] = []
    for run in sorted(row, key=lambda run: run.left):
        gap = run.left - cells[-1][1] if cells else 0
        mark = bool(cells) and cells[-1][1] - cells[-1][0] < MARK * size and gap < 1.5 * size
        if cells and (gap < gutter or mark):
            cells[-1][1] = max(cells[-1][1], run.right)
        else:
            cells.append([run.left, run.right])
    return [(left, right) for left, right in cells]


def _by_base(runs: list[Run]) -> list[list[Run]]:
    return by_base(runs, lambda run: 0.4 * run.size)


def _rows(runs: list[Run]) -> list[tuple[float, float]]:
    """Left and right end of each line of a column."""
    return [(min(run.left for run in row), max(run.right for run in row)) for row in _by_base(runs)]


def _fill(lines: list[tuple[float, float]], width: float) -> float:
    """How much of a column's width its lines fill on average."""
    return sum(right - left for left, right in lines) / len(lines) / width
