"""A Q&A file of the user's own, as spreadsheets, other trainers and this program write them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from llama_qna import UserError, one_line
from llama_qna.pairs import parser, records
from llama_qna.project.data import QNA_COLUMNS, check_columns, check_fields, check_size, read_table
from llama_qna.text.tables import delimiter_of

SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how .xlsx and .ods, and how .xls begin
NEARLY_ALL = 0.9  # of the rows have a list number or a letter before them, where it is a label
SURE = r"(?:\w\w|[qQ问問答]) *\d*[*_ ]*[:：]"  # a label that is one whatever stands in the other rows
NAMED = 5  # rows in a message; the others are counted


def read_qna_file(path: Path, chunks: pd.DataFrame | None = None) -> pd.DataFrame:
    """A Q&A file of the user's own; what is left out of it, or contradicts itself, is printed.

    A CSV, its fields parted by `,`, `;`, tab or `|`, with the columns Question and Answer, or JSON Lines in one of the
    formats of `formats.export`. Where each pair is from (`QNA_COLUMNS`) is kept where the file says it.

    Args:
        chunks: give document, page and split of a pair that names its chunk and nothing else.

    Raises:
        UserError: it is missing, no such file, without its columns, or without rows.
    """
    shown = f"Q&A file {path.name}"
    if not path.is_file():
        raise UserError(f"{shown}: no such file (generation.qna_file in variant.yaml)")
    check_size(path, shown)
    with open(path, "rb") as file:
        start = file.read(2**16)
    if start.startswith(SPREADSHEETS):
        raise UserError(f"{shown}: a spreadsheet's own format is not read; save it as CSV (UTF-8), and name that file")
    try:
        if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
            rows = _json_rows(path)
        else:
            rows = _csv_rows(path, shown, start.decode("utf-8-sig", "replace"))
        pairs = [[pair for pair in records.pairs_in(row) if all(pair)] for row in rows]
    except (ValueError, RecursionError) as error:  # of JSON
        advice = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(f"{shown}: not readable as JSON Lines ({one_line(str(error))}{advice})") from None
    table = _placed(_as_table(rows, pairs, shown), chunks, shown)
    table["Question"], table["Answer"] = _without_labels(table.Question.str.strip(), table.Answer.str.strip())
    table = _once_each(_whole(table, shown), shown)
    return table.reset_index(drop=True)


def _csv_rows(path: Path, shown: str, start: str) -> list[dict]:
    delimiter = delimiter_of(start, lambda names: not _missing(names))
    table = read_table(path, shown, [], delimiter=delimiter, skipinitialspace=True)
    check_columns(table, _missing(table.columns), shown)
    return table.to_dict("records")


def _missing(columns) -> list[str]:
    """Which of the columns Question and Answer stand there under none of their names."""
    names = {records.field_name(str(column))[0] for column in columns}
    wanted = {"Question": records.QUESTION, "Answer": records.ANSWER}
    return [name for name, known in wanted.items() if names.isdisjoint(known)]


def _json_rows(path: Path) -> list:
    """The records of a list, or of lines of one each."""
    text = path.read_bytes().decode("utf-8-sig")
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _as_table(rows: list, pairs: list[list[tuple[str, str]]], shown: str) -> pd.DataFrame:
    """The first pair of each record, and where it is from; the index is the number of the record, from 1."""
    table = []
    for row, found in zip(rows, pairs, strict=True):
        said = row if isinstance(row, dict) else {}
        said |= said["metadata"] if isinstance(said.get("metadata"), dict) else {}
        told = {records.field_name(str(name))[0]: value for name, value in said.items()}
        told["question"], told["answer"] = found[0] if found else ("", "")
        table.append({name: records.text_of(told.get(name.lower())) for name in QNA_COLUMNS})
    longer = [number for number, found in enumerate(pairs, start=1) if len(found) > 1]
    if longer:
        taken = "of a dialogue the first question and its answer are taken, what follows needs it"
        print(f"{shown}: {taken}: {_in(longer)}")
    table = pd.DataFrame(table, columns=QNA_COLUMNS).set_axis(range(1, len(table) + 1))
    check_fields(table, shown)
    return table


def _placed(table: pd.DataFrame, chunks: pd.DataFrame | None, shown: str) -> pd.DataFrame:
    """The table with what it does not say of where a pair is from: its chunks say it."""
    table["split"] = table.split.str.strip().str.lower()
    unknown = table[~table.split.isin(["train", "heldout", ""])]
    if len(unknown):
        raise UserError(f"{shown}: the split of {_in(unknown.index)} is neither train nor heldout")
    if chunks is not None:
        known = chunks.astype(str).set_index("chunk_id")[["document", "page", "split"]]
        found = known.reindex(table.chunk_id).fillna("").set_axis(table.index)
        moved = table.index[(table.split != "") & (found.split != "") & (table.split != found.split)]
        if len(moved):
            print(f"{shown}: in another split than their chunk, and left there: {_in(moved)}")
        for name in found:
            table[name] = table[name].where(table[name] != "", found[name])
    table["split"] = table.split.replace("", "train")
    table["recipe"] = table.recipe.replace("", "file")
    return table


def _without_labels(questions: pd.Series, answers: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Texts without the labels before them.

    A word with a colon ("Answer:") and "Q:" are labels; "A:" is one after "Q:". A list number, a letter and a bare word
    are labels where nearly all rows have one: "2. Weltkrieg" and "A – the ampere" are text.
    """
    asked = questions.apply(parser.label_of, kind=parser.QUESTION_LABEL)
    said = answers.apply(parser.label_of, kind=parser.ANSWER_LABEL)
    sure_asked = asked.str.contains(SURE)
    sure_said = said.str.contains(SURE) | sure_asked & said.str.contains(r"^\W*[aA] *\d*[*_ ]*[:：]")
    bare = questions.apply(parser.without_label, kind=parser.QUESTION_LABEL)
    questions = questions.where(~(sure_asked | _nearly_all(asked)), bare)
    bare = answers.apply(parser.without_label, kind=parser.ANSWER_LABEL)
    return questions, answers.where(~(sure_said | _nearly_all(said)), bare)


def _nearly_all(labels: pd.Series) -> pd.Series:
    """Which rows have a label of the kind, words, letters or numbers, that nearly all rows have."""
    letters = labels.map(lambda label: re.sub(r"[\W\d_]", "", label))
    kinds = letters.str.len().clip(upper=2).where(labels != "", -1)
    shares = kinds.map(kinds.value_counts(normalize=True))
    return (labels != "") & (shares >= NEARLY_ALL)


def _whole(table: pd.DataFrame, shown: str) -> pd.DataFrame:
    """The rows that have both a question and an answer."""
    half = (table.Question == "") | (table.Answer == "")
    if half.all():
        raise UserError(f"{shown}: no row has both a question and an answer")
    if half.any():
        print(f"{shown}: without a question or an answer, and left out: {_in(table.index[half])}")
    return table[~half]


def _once_each(table: pd.DataFrame, shown: str) -> pd.DataFrame:
    """Exact doubles once, the training pair of two; different answers to one question are named."""
    first = table.sort_values("split", ascending=False, kind="stable")  # train, then heldout
    doubles = first.duplicated(["Question", "Answer"]).reindex(table.index)
    if doubles.any():
        print(f"{shown}: exact doubles, and left out: {_in(table.index[doubles])}")
    table = table[~doubles]
    again = table.index[table.Question.str.casefold().duplicated(keep=False)]
    if len(again):
        print(f"{shown}: one question, different answers, and kept: {_in(again)}")
    return table


def _in(rows) -> str:
    rows = list(rows)
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:NAMED]))}{more}"
