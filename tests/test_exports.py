"""Tests of llama_qna/pairs/formats.py: the files are read back by the libraries that trainers use."""

import pandas as pd
import pytest

from llama_qna.models import prompts
from llama_qna.pairs import formats
from llama_qna.project.data import QNA_COLUMNS
from llama_qna.project.files import read_lines

# what upsets writers and readers of JSONL: quotes, line breaks of every kind, scripts, astral characters, a backslash
QUESTION = 'What does "Δx·Δp ≥ ħ/2" bound?\u2028Say it\tbriefly.'
ANSWER = "The product of uncertainties: 不確定性.\r\nSee C:\\notes 🙂"


@pytest.fixture
def pairs():
    origin = {"document": "reader", "recipe": "reader", "model": "embedded/smollm2", "evidence": ""}
    first = {"Question": QUESTION, "Answer": ANSWER, "chunk_id": "reader-0001", "page": 3, "split": "train"}
    second = {"Question": "Why?", "Answer": "Because.", "chunk_id": "reader-0002", "page": 4, "split": "heldout"}
    return pd.DataFrame([first | origin, second | origin])


def turns(row, format):
    """Question and answer of a row in any of the formats, and the system message if it has one."""
    if format == "alpaca":
        assert row["input"] == ""
        return [row["instruction"], row["output"]]
    key, role, text = {"messages": ("messages", "role", "content"), "sharegpt": ("conversations", "from", "value")}[
        format
    ]
    roles = {"messages": ["system", "user", "assistant"], "sharegpt": ["system", "human", "gpt"]}[format]
    assert [turn[role] for turn in row[key]] == roles
    assert row[key][0][text] == prompts.SYSTEM
    return [turn[text] for turn in row[key][1:]]


FORMATS = pytest.mark.parametrize("format", ["messages", "alpaca", "sharegpt"])


@FORMATS
def test_datasets_reads_what_was_exported(format, pairs, tmp_path):
    from datasets import load_dataset

    path = tmp_path / f"{format}.jsonl"
    assert formats.export(pairs, format, path) == 2
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert [turns(row, format) for row in rows] == [[QUESTION, ANSWER], ["Why?", "Because."]]
    assert rows[0]["metadata"] == {
        "chunk_id": "reader-0001",
        "document": "reader",
        "page": 3,
        "split": "train",
        "recipe": "reader",
        "model": "embedded/smollm2",
    }
    assert [row["metadata"]["split"] for row in rows] == ["train", "heldout"]


@FORMATS
def test_pandas_reads_it_and_a_person_can(format, pairs, tmp_path):
    path = tmp_path / "pairs.jsonl"
    formats.export(pairs, format, path)
    rows = pd.read_json(path, lines=True).to_dict("records")
    assert [turns(row, format) for row in rows] == [[QUESTION, ANSWER], ["Why?", "Because."]]
    assert "Δx·Δp ≥ ħ/2" in path.read_text(encoding="utf-8"), "not \\u0394x"
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(("page", "kept"), [("3", 3), ("3.0", 3), ("iv", "iv")])
def test_a_users_own_pairs_say_what_they_know_and_pages_are_numbers(page, kept, tmp_path):
    known = {"Question": "Why?", "Answer": "Because.", "page": page, "split": "train", "recipe": "file"}
    formats.export(pd.DataFrame([dict.fromkeys(QNA_COLUMNS, "") | known]), "alpaca", tmp_path / "own.jsonl")
    (row,) = read_lines(tmp_path / "own.jsonl")
    assert row["metadata"] == {"page": kept, "split": "train", "recipe": "file"}


def test_a_failed_export_leaves_the_earlier_file(pairs, tmp_path):
    path = tmp_path / "pairs.jsonl"
    formats.export(pairs, "alpaca", path)
    before = path.read_bytes()
    half_a_character = pd.Series(["fine", "\ud83d"], dtype=object)  # which no file can hold
    with pytest.raises(UnicodeEncodeError):
        formats.export(pairs.assign(Question=half_a_character), "alpaca", path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
