"""Tables as CSV, this machine's and a user's: read whole, or refused in one line.

A field stays what it is, also one that a spreadsheet would take for a formula (`=cmd()`): it is text of a document, and
what is written is what was read.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from llama_qna import UserError, first_line, one_line
from llama_qna.project.files import read_json
from llama_qna.project.variant import REPOSITORY, Variant

REPLAY_TEXT = REPOSITORY / "data" / "general" / "replay.txt"  # general text beside training
GENERAL_TEXT = REPLAY_TEXT.with_name("everyday.txt")  # general text that is only measured
CHUNK_COLUMNS = ["chunk_id", "document", "page", "section", "kind", "split", "text", "tokens"]


def read_chunks(variant: Variant) -> pd.DataFrame:
    """The chunks of a finished `load` stage.

    Raises:
        UserError: the stage has not run on this machine, or its file was damaged since.
    """
    path = _made(variant, "chunks", "load", variant.chunks / "chunks.csv")
    return read_table(path, f"chunks.csv of {variant.name}", CHUNK_COLUMNS, numbers=("page", "tokens"))


def read_metrics(variant: Variant) -> dict:
    """The metrics of this machine's run.

    Raises:
        UserError: there are none.
    """
    return read_json(_made(variant, "metrics", "evaluate", variant.evaluation / "metrics.json"))


def _made(variant: Variant, what: str, verb: str, path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"no {what} yet for {variant.name}: run `llama-qna {verb} {variant.name}` first")
    return path


# `recipe` says what wrote a pair, and `evidence` the sentence of its chunk that it was written about, where it is known
QNA_COLUMNS = ["Question", "Answer", "chunk_id", "document", "page", "split", "recipe", "model", "evidence"]


def read_qna(variant: Variant) -> pd.DataFrame:
    """The pairs of a finished `generate` stage.

    Raises:
        UserError: the stage has not run on this machine, or its file was damaged since.
    """
    path = _made(variant, "questions", "generate", variant.qna / "qna.csv")
    table = read_table(path, f"qna.csv of {variant.name}", QNA_COLUMNS[:-1])
    table = table.reindex(columns=QNA_COLUMNS, fill_value="")  # files of earlier versions name no evidence
    pages = pd.to_numeric(table.page, errors="coerce")  # pairs of the user's own have none
    return table if pages.isna().any() else table.assign(page=pages.astype(int))


MOST_BYTES = 2**30  # a corpus of 500 books makes chunks of this size
LONGEST_FIELD = 1_000_000  # characters; a chunk has thousands


def read_table(path: Path, shown: str, columns: list[str], numbers: tuple[str, ...] = (), **form) -> pd.DataFrame:
    """Read a CSV file in UTF-8 as text; a field that is not there is an empty string.

    Args:
        shown: what messages call the file.
        columns: those that must be there; others may be.
        numbers: columns of whole numbers.
        form: how the fields are parted, as `pandas.read_csv` calls it.

    Raises:
        UserError: no CSV, not UTF-8, too large, a column missing, a row with more fields than the header has names, a
            NUL byte, an endless field, or a number that is none.
    """
    check_size(path, shown)
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=str, **form).fillna("")
    except (ValueError, OSError, OverflowError) as error:  # pandas' own errors are ValueErrors
        advice = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(f"{shown}: not readable as CSV ({first_line(error)}{advice})") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first fields for names of rows
        raise UserError(f"{shown}: not readable as CSV (the rows have more fields than the header has names)")
    check_columns(table, columns, shown)
    check_fields(table, shown)
    for name in numbers:
        try:
            table[name] = table[name].astype(int)
        except (ValueError, OverflowError):
            raise UserError(f"{shown}: the column {name} holds something that is no whole number") from None
    return table


def check_size(path: Path, shown: str) -> None:
    """Refuse a file that is too large for a table."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise UserError(f"{shown}: {size / 2**30:.1f} GB is more than the {MOST_BYTES / 2**30:g} GB of a table")


def check_columns(table: pd.DataFrame, columns: list[str], shown: str) -> None:
    """Refuse a table without some column."""
    missing = [name for name in columns if name not in table]
    if missing:
        there = ", ".join(map(str, table.columns))
        raise UserError(f"{shown}: no column {' or '.join(missing)}; it has {one_line(there)}")


def check_fields(table: pd.DataFrame, shown: str) -> None:
    """Refuse a table with an endless field or a NUL byte."""
    for name, column in table.items():
        where = f"{shown}, column {one_line(name)}"
        longest = column.str.len().max()
        if longest > LONGEST_FIELD:  # of no rows it is NaN
            most = f"the longest that is read has {LONGEST_FIELD:,}"
            raise UserError(f"{where}: a field of {longest:,} characters; {most}")
        if column.str.contains("\0", regex=False).any():
            raise UserError(f"{where}: there are NUL bytes; the file is damaged or no text")
