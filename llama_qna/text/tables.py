"""Tables as text: for Markdown files, and for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of words."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def aligned(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """Rows of words for a terminal; the first column is flush left, the others too unless `right`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        cells = [cell.rjust(width) if right else cell.ljust(width) for cell, width in others]
        return "  ".join([first[0].ljust(first[1]), *cells]).rstrip()

    return "\n".join(map(line, rows))
