"""The order in which the runs of a page are read: columns are found by the white between them.

A page is cut from top to bottom into parts whose rows share the same white gutters, and each part into its columns;
columns are cut again in the same way (a recursive X-Y cut, Nagy and Seth 1984, with the cuts taken from gutters that go
on over several rows). Tables have gutters too: their rows are short, and they are read row by row.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from statistics import median

from llama_qna.documents.lines import is_right_to_left
from llama_qna.documents.runs import Run, by_base

BAND = 2.0  # points; the height of the slices in which white is looked for
GUTTER = 0.7  # of the size of the text; a space between words is narrower
SAME_LINE = 0.4  # of a run's size
DEEPEST = 4
FULL = 0.62  # of a column's width is filled by its lines on average, where it is text
SMALL = 0.85  # of the size of the text; what is smaller may be the mark of a note
MARK = 3.2  # em; what is narrower is a bullet or a number before a list item


@dataclass
class Part:
    """Runs that are read line by line: a column of text, or a table."""

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
    waiting: list[Run] = []  # text that may go on in the next group
    for group, own in zip(groups, _runs_of(groups, runs, top), strict=True):
        columns = _columns(group, own, gutter) if group.split else []
        kind = _kind(columns, size, gutter)
        if kind == "text":
            waiting += own
            continue
        if kind == "table":
            before, table, after = _trimmed(own, size, gutter)
            columns = []
        else:
            before, after = [], []
            table, columns = _table_above(own, columns, size, gutter)
        if waiting or before:
            yield Part(waiting + before)
        if table:
            yield Part(table, table=True)
        for column in columns[::-1] if is_right_to_left(own) else columns:
            yield from parts(column, depth + 1)
        waiting = after
    if waiting:
        yield Part(waiting)


def _least_gutter(runs: list[Run], size: float) -> int:
    """How wide a gutter is at least, in points: where words are runs of their own, wider than most spaces."""
    rows = [sorted(row, key=lambda run: run.left) for row in by_base(runs, SAME_LINE)]
    gaps = sorted(after.left - one.right for row in rows for one, after in pairwise(row) if after.left > one.right)
    letters = sum(len(run.text.strip()) for run in runs) < 2 * len(runs)
    words = gaps[int((0.95 if letters else 0.8) * len(gaps))] if len(gaps) > 4 * len(rows) else 0
    return max(5, round(GUTTER * size), round(min(1.3 * words, 1.2 * size)))


def _bands(runs: list[Run], size: float) -> tuple[list[int], float]:
    """For every band from the top the points that text covers, as bits; and the height of the top."""
    top = max(run.base + run.size for run in runs)
    bottom = min(run.base - run.size for run in runs)
    bands = [0] * (int((top - bottom) / BAND) + 2)
    lines = sorted(runs, key=attrgetter("base"))
    bases = [run.base for run in lines]
    covered: dict[tuple[int, int], int] = defaultdict(int)  # by first and last band; the runs of a line have the same
    for run in runs:
        if run.size < SMALL * size and len(run.text) <= 3 and not _is_alone(run, lines, bases, size):
            continue  # the mark of a note belongs to a line, but a number at a figure's axis does not
        left = max(0, int(run.left))
        bits = (1 << max(1, int(run.right) - left + 1)) - 1 << left
        first, last = (top - run.base - 0.7 * run.size) / BAND, (top - run.base + 0.15 * run.size) / BAND
        covered[int(first), int(last)] |= bits
    for (first, last), bits in covered.items():
        for n in range(first, last + 1):
            bands[n] |= bits
    return bands, top


def _is_alone(mark: Run, lines: list[Run], bases: list[float], size: float) -> bool:
    """Whether a small run stands by itself: nothing is beside it, nor text whose note's mark or limit it may be.

    Args:
        lines: all runs by their base lines, which are `bases`.
    """
    near = lines[bisect_left(bases, mark.base - 1.5 * size) : bisect_right(bases, mark.base + 1.5 * size)]
    return not any(
        run is not mark
        and run.left - size < mark.right
        and mark.left < run.right + size
        and (run.size >= SMALL * size or abs(run.base - mark.base) < 0.5 * size)
        for run in near
    )


def _groups(bands: list[int], gutter: int) -> list[_Group]:
    """Bands that follow each other and share gutters, or have none; together they hold all bands."""
    groups: list[_Group] = []
    split = False
    for n, band in enumerate(bands):
        if not band:
            continue
        here = groups[-1] if groups else None
        if here and band == bands[n - 1]:  # as within a line, which is several bands high
            here.last = n + 1
            here.sides += split
            continue
        free, used = (here.free & ~band, here.used | band) if here else (~band, band)
        split = bool(_gutters(~band, band, gutter))
        if here and here.split:
            # what shares a gutter by chance with a few lines far above it does not belong to them
            far = n - here.last > 3 * gutter / BAND and here.sides < 4 * gutter / BAND
            fits = not far and _gutters(free, used, gutter)
        else:
            fits = here and not split
        if fits:
            here.free, here.used, here.last = free, used, n + 1
            here.sides += split
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
    begins = _gutters(group.free, group.used, gutter)
    ends = (begins & ~(begins >> 1)) << gutter - 1
    return any(left >> n & ends for n in range(1, 2 * gutter + 1))


@lru_cache(maxsize=1000)  # the bands of one line are alike
def _gutters(free: int, used: int, width: int) -> int:
    """Bits at which a free stretch of some width begins that has text on both sides."""
    low, high = (used & -used).bit_length() - 1, used.bit_length()
    free &= (1 << high) - (1 << low)
    step = 1
    while step < width:  # what is left of `free` after `step` shifts begins a stretch of that width
        free &= free >> min(step, width - step)
        step *= 2
    return free


def _runs_of(groups: list[_Group], runs: list[Run], top: float) -> list[list[Run]]:
    """The runs of each group, by their middles."""
    found: list[list[Run]] = [[] for _ in groups]
    starts = [group.first for group in groups]
    for run in runs:
        band = (top - run.base - 0.1 * run.size) / BAND
        found[max(0, bisect_right(starts, band + 0.5) - 1)].append(run)
    return found


def _columns(group: _Group, runs: list[Run], width: int) -> list[list[Run]]:
    """The runs of a group parted at its gutters."""
    begins = _gutters(group.free, group.used, width)
    firsts = begins & ~(begins << 1)
    cuts = [at for at in range(firsts.bit_length()) if firsts >> at & 1]
    columns: list[list[Run]] = [[] for _ in range(len(cuts) + 1)]
    for run in runs:
        columns[bisect_right(cuts, run.left)].append(run)
    return [column for column in columns if column]


def _kind(columns: list[list[Run]], size: float, gutter: float) -> str:
    """Whether runs parted at gutters are `columns` of text, a `table`, or but one `text` with wide gaps."""
    if len(columns) < 2:
        return "text"
    columns_of_text, longest, small = 0, 0, True
    for column in columns:
        own, rows = median(run.size for run in column), [_ends(row) for row in by_base(column, SAME_LINE)]
        width = max(right for _, right in rows) - min(left for left, _ in rows)
        filled = sum(right - left for left, right in rows) / len(rows)
        if len(rows) >= 3 and width > 9 * own and filled >= FULL * width:
            columns_of_text += 1
            longest = max(longest, len(rows))
        elif own >= 0.93 * size and width <= 9 * own:
            small = False
    if columns_of_text >= 2 or (columns_of_text and small and longest >= 4):
        return "columns"
    lines = by_base(sum(columns, []), SAME_LINE)
    edge = max(run.right for line in lines for run in line)
    cells = [_cells(line, size, gutter) for line in lines]
    counts = [len(row) for line, row in zip(lines, cells, strict=True) if not _is_justified(line, row, edge, size)]
    return "table" if sum(n > 1 for n in counts) >= 3 or sum(n > 2 for n in counts) >= 2 else "text"


def _is_justified(line: list[Run], cells: list[list[float]], edge: float, size: float) -> bool:
    """Whether a line is long and ends at the edge of its column, as text with wide spaces between its words does."""
    gaps = [after[0] - before[1] for before, after in pairwise(cells)]
    return edge - cells[-1][1] < 2 and sum(len(run.text) for run in line) > 24 and max(gaps, default=0) < 2 * size


def _table_above(
    runs: list[Run], columns: list[list[Run]], size: float, gutter: float
) -> tuple[list[Run], list[list[Run]]]:
    """Part a table over all columns, which shares their gutter, from the columns below it."""
    width = max(right - left for left, right in map(_ends, columns))
    above: list[Run] = []
    rows = 0
    for row in by_base(runs, SAME_LINE):
        cells = _cells(row, size, gutter)
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
    rows = by_base(runs, SAME_LINE)
    wide = [n for n, row in enumerate(rows) if len(_cells(row, size, gutter)) > 1]
    first, last = wide[0], wide[0] + 1
    steps = [one[0].base - after[0].base for one, after in pairwise(rows)]
    while last <= wide[-1] and steps[last - 1] <= 1.3 * steps[first]:
        last += 1
    return sum(rows[:first], []), sum(rows[first:last], []), sum(rows[last:], [])


def _cells(row: list[Run], size: float, gutter: float) -> list[list[float]]:
    """Left and right ends of what stands apart in a row; a bullet or a number belongs to what follows it."""
    cells: list[list[float]] = []
    for run in sorted(row, key=lambda run: run.left):
        gap = run.left - cells[-1][1] if cells else 0
        mark = bool(cells) and cells[-1][1] - cells[-1][0] < MARK * size and gap < 1.5 * size
        if cells and (gap < gutter or mark):
            cells[-1][1] = max(cells[-1][1], run.right)
        else:
            cells.append([run.left, run.right])
    return cells


def _ends(runs: list[Run]) -> tuple[float, float]:
    """How far runs go to the left and to the right."""
    return min(run.left for run in runs), max(run.right for run in runs)
