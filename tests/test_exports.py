"""Tests of llama_qna/pairs/formats.py: the files are read back by the libraries that trainers use."""

import json

import pandas as pd
import pytest

from llama_qna.models import prompts
from llama_qna.pairs import formats

# what upsets writers and readers of JSONL: quotes, line breaks of every kind, scripts, astral characters, a backslash
QUESTION = 'What does "Δx·Δp ≥ ħ/2" bound?\u2028Say it\tbriefly.'
ANSWER = "The product of uncertainties: 不確定性.\r\nSee C:\\notes 🙂"


@pytest.fixture
def chunks():
    return pd.DataFrame(
        [
            {"chunk_id": "reader-0001", "document": "reader", "page": 3, "split": "train", "text": "…"},
            {"chunk_id": "reader-0002", "document": "reader", "page": 4, "split": "heldout", "text": "…"},
        ]
    )


@pytest.fixture
def pairs():
    origin = {"document": "reader", "recipe": "reader", "model": "embedded/smollm2"}
    return pd.DataFrame(
        [
            {"Question": QUESTION, "Answer": ANSWER, "chunk_id": "reader-0001", "page": 3, "split": "train"} | origin,
            {"Question": "Why?", "Answer": "Because.", "chunk_id": "reader-0002", "page": 4, "split": "heldout"}
            | origin,
        ]
    )


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
def test_datasets_reads_what_was_exported(format, pairs, chunks, tmp_path):
    from datasets import load_dataset

    path = tmp_path / "new folder" / f"{format}.jsonl"
    assert formats.export(pairs, chunks, format, path) == 2
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
def test_pandas_reads_it_and_a_person_can(format, pairs, chunks, tmp_path):
    path = tmp_path / "pairs.jsonl"
    formats.export(pairs, chunks, format, path)
    rows = pd.read_json(path, lines=True).to_dict("records")
    assert [turns(row, format) for row in rows] == [[QUESTION, ANSWER], ["Why?", "Because."]]
    assert "Δx·Δp ≥ ħ/2" in path.read_text(encoding="utf-8"), "not \\u0394x"
    assert len(path.read_bytes().splitlines()) == 2


def test_a_users_own_pairs_have_no_metadata(chunks, tmp_path):
    path = tmp_path / "own.jsonl"
    own = pd.DataFrame([{"Question": "Why?", "Answer": "Because."}])
    assert formats.export(own, chunks, "alpaca", path) == 1
    assert json.loads(path.read_text()) == {"instruction": "Why?", "input": "", "output": "Because."}


def test_empty_cells_are_left_out_and_pages_stay_numbers(pairs, chunks, tmp_path):
    """A CSV in which some pairs have a page and others have none, as pandas reads it in either way."""
    mixed = pd.concat([pairs, pd.DataFrame([{"Question": "My own?", "Answer": "Yes."}])])
    mixed.to_csv(tmp_path / "qna.csv", index=False)
    for keep in (True, False):
        table = pd.read_csv(tmp_path / "qna.csv", keep_default_na=keep)
        formats.export(table, chunks, "messages", tmp_path / "mixed.jsonl")
        rows = [json.loads(line) for line in (tmp_path / "mixed.jsonl").read_text().split("\n")[:-1]]
        assert [row.get("metadata", {}).get("page") for row in rows] == [3, 4, None]
        assert "metadata" not in rows[2]


def test_the_chunk_fills_in_what_the_pair_does_not_say(chunks, tmp_path):
    named = pd.DataFrame([{"Question": "Why?", "Answer": "Because.", "chunk_id": "reader-0002"}])
    formats.export(named, chunks, "alpaca", tmp_path / "named.jsonl")
    assert json.loads((tmp_path / "named.jsonl").read_text())["metadata"] == {
        "chunk_id": "reader-0002",
        "document": "reader",
        "page": 4,
        "split": "heldout",
    }


def test_a_page_that_is_no_number_is_kept(chunks, tmp_path):
    own = pd.DataFrame([{"Question": "Why?", "Answer": "Because.", "page": "iv", "chunk_id": "my-own"}])
    formats.export(own, chunks, "alpaca", tmp_path / "own.jsonl")
    assert json.loads((tmp_path / "own.jsonl").read_text())["metadata"] == {"chunk_id": "my-own", "page": "iv"}


def test_a_failed_export_leaves_the_earlier_file(pairs, chunks, tmp_path):
    path = tmp_path / "pairs.jsonl"
    formats.export(pairs, chunks, "alpaca", path)
    before = path.read_bytes()
    half_a_character = pd.Series(["fine", "\ud83d"], dtype=object)  # which no file can hold
    with pytest.raises(UnicodeEncodeError):
        formats.export(pairs.assign(Question=half_a_character), chunks, "alpaca", path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
