"""CSV files of strangers and damaged ones of ours: read whole, or refused in one line; fields stay what they are."""

import json

import pandas as pd
import pytest

from llama_qna import UserError, cli
from llama_qna.pairs.qna import read_qna_file
from llama_qna.project import data
from llama_qna.project.data import CHUNK_COLUMNS as CHUNK_COLUMNS
from llama_qna.project.data import QNA_COLUMNS as PAIR_COLUMNS
from llama_qna.project.data import read_chunks, read_qna
from llama_qna.project.gold import GOLD_COLUMNS as GOLD_COLUMNS
from llama_qna.project.gold import read_gold
from llama_qna.project.variant import Variant

FORMULA = "=cmd|' /C calc'!A0"


def chunk_row(text):
    return dict(zip(CHUNK_COLUMNS, ["a-0000", "a", 1, "", "body", "train", text, 3], strict=True))


@pytest.fixture(params=["chunks.csv", "qna.csv", "qna_file", "gold.csv"])
def table(request, toy_root):
    """Each kind of table: its path, a function that reads it, and its columns."""
    variant = Variant.load("paper_135m")
    chunks = pd.DataFrame([chunk_row("Some text.")])
    path, read, columns = {
        "chunks.csv": (variant.chunks / "chunks.csv", lambda: read_chunks(variant), CHUNK_COLUMNS),
        "qna.csv": (variant.qna / "qna.csv", lambda: read_qna(variant), PAIR_COLUMNS),
        "qna_file": (toy_root / "mine.csv", lambda: read_qna_file(toy_root / "mine.csv"), ["Question", "Answer"]),
        "gold.csv": (variant.gold, lambda: read_gold(variant.gold, chunks), GOLD_COLUMNS),
    }[request.param]
    path.parent.mkdir(parents=True, exist_ok=True)
    return path, read, columns


def complaint(read):
    with pytest.raises(UserError) as caught:
        read()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
    return str(caught.value)


def row_of(columns, value="word"):
    return ",".join("1" if name in ("page", "tokens") else value for name in columns) + "\n"


CASES = {
    "wrong columns": (lambda head, row: "a,b\n1,2\n", "no column "),
    "semicolons": (lambda head, row: (head + row).replace(",", ";"), "no column "),
    "a header of a megabyte": (lambda head, row: "x" * 2**20 + "\n1\n", "no column "),
    "hostile names of columns": (lambda head, row: '"\x1b[2J\nERROR: all is lost",b\n1,2\n', "no column "),
    "NUL bytes": (lambda head, row: head + row.replace("word", "wo\0rd", 1), "NUL bytes"),
    "NUL bytes alone": (lambda head, row: "\0" * 5000, "no column "),
    "more fields than names": (lambda head, row: head + row.strip() + ",more\n", "more fields than the header"),
    "more fields in one row": (lambda head, row: head + row + row.strip() + ",more\n", "not readable as CSV"),
    "an open quote": (lambda head, row: head + '"' + row * 9, "not readable as CSV"),
    "UTF-16": (lambda head, row: (head + row).encode("utf-16"), "not readable as CSV.*save it as UTF-8"),
    "mixed encodings": (lambda head, row: (head + row).encode() + "é\n".encode("cp1252"), "save it as UTF-8"),
    "a picture": (lambda head, row: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "not readable as CSV"),
}


@pytest.mark.parametrize("case", CASES)
def test_table_that_is_no_good_is_refused(case, table):
    path, read, columns = table
    make, reason = CASES[case]
    if case == "semicolons" and (columns == ["Question", "Answer"] or path.name == "gold.csv"):
        pytest.skip("a table that a person writes may be written so")
    content = make(",".join(columns) + "\n", row_of(columns))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=reason):
        read()
    complaint(read)


def test_endless_field_is_refused(table, monkeypatch):
    """The real limit is a million characters; a lower one is the same, sooner."""
    monkeypatch.setattr(data, "LONGEST_FIELD", 1000)
    path, read, columns = table
    path.write_text(",".join(columns) + "\n" + row_of(columns).replace("word", "x" * 1001, 1))
    assert "a field of 1,001 characters; the longest that is read has 1,000" in complaint(read)


def test_table_of_many_gigabytes_is_not_opened(table):
    path, read, _ = table
    with open(path, "wb") as file:
        file.truncate(2**41)  # sparse
    assert "2048.0 GB is more than the 1 GB of a table" in complaint(read)


def test_page_that_is_no_number_is_refused(toy_root):
    variant = Variant.load("paper_135m")
    variant.chunks.mkdir(parents=True)
    row = ",".join(str(value) for value in chunk_row("Text.").values())
    (variant.chunks / "chunks.csv").write_text(",".join(CHUNK_COLUMNS) + "\n" + row.replace(",1,", ",one,") + "\n")
    assert "column page holds something that is no whole number" in complaint(lambda: read_chunks(variant))


def test_sections_and_texts_of_digits_stay_text(toy_root):
    variant = Variant.load("paper_135m")
    variant.chunks.mkdir(parents=True)
    row = chunk_row("1984") | {"section": "007", "document": "12"}
    pd.DataFrame([row]).to_csv(variant.chunks / "chunks.csv", index=False)
    assert read_chunks(variant).to_dict("records") == [row]


def test_formulas_pass_as_the_text_that_they_are(toy_root, edit_recipe, make_pdf):
    """Neither run nor changed from a user's file to the export; a guard such as a quote would be trained on."""
    pairs = [(FORMULA, "@SUM(1+9)"), ("+1 is what?", "-2"), ("What is\r\nthis?", '=HYPERLINK("http://x","y")')]
    pd.DataFrame(pairs, columns=["Question", "Answer"]).to_csv(toy_root / "mine.csv", index=False)
    edit_recipe("generation:\n", "generation:\n  qna_file: mine.csv\n")
    edit_recipe("reference_questions: true", "reference_questions: false")
    make_pdf(toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf", ["A small document."])
    assert cli.main(["load", "paper_135m"]) == 0
    assert cli.main(["generate", "paper_135m", "--export", "alpaca"]) == 0
    kept = read_qna(Variant.load("paper_135m"))
    plain = [(question.replace("\r\n", "\n"), answer) for question, answer in pairs]  # a line ends in one way
    assert list(zip(kept.Question, kept.Answer, strict=True)) == plain
    lines = (toy_root / "runs/paper_135m/qna_alpaca.jsonl").read_text(encoding="utf-8").splitlines()
    assert [(row["instruction"], row["output"]) for row in map(json.loads, lines)] == plain


def test_damaged_chunks_are_one_line_in_the_terminal(toy_root, capsys):
    variant = Variant.load("paper_135m")
    variant.chunks.mkdir(parents=True)
    (variant.chunks / "chunks.csv").write_bytes(b'chunk_id,document\n"a')
    assert cli.main(["generate", "paper_135m"]) == 2
    assert capsys.readouterr().err.startswith("llama-qna: chunks.csv of paper_135m: not readable as CSV")
