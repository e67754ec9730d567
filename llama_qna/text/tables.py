"""Tables as text: for Markdown files, for a terminal, and as spreadsheets write them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence

DELIMITERS = ",;\t|"  # between the fields of a CSV, as spreadsheets of all countries write it


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of words."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def aligned(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """Rows of words for a terminal; the first column is flush left, the others too unless `right`."""
    columns = []
    for n, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        columns.append([cell.rjust(width) if right and n else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def plain_line_ends(text: str) -> str:
    """A text whose lines end in `\\n` alone: csv writes a lone `\\r` without quotes, and pandas ends the row there."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def delimiter_of(text: str, fits: Callable[[list[str]], bool]) -> str:
    """The mark between the fields of a CSV: the first that parts its header into names that fit; else a comma."""
    header = text.lstrip("\r\n").splitlines()[:1]
    for delimiter in DELIMITERS:
        try:
            if fits(next(csv.reader(header, delimiter=delimiter, skipinitialspace=True), [])):
                return delimiter
        except csv.Error:
            continue
    return ","
