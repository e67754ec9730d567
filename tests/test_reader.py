"""The committed reader: it is the one that its record names, and its pages show what was measured."""

import json

import pytest

from benchmarks import embedding, other_subjects
from benchmarks import reader as choices
from llama_qna import UserError
from llama_qna.answering import reader as reading
from llama_qna.answering.reader import ReadingAnswerer
from llama_qna.models.lineage import READER, check_reader
from llama_qna.models.prompts import NOT_SAID
from llama_qna.project import marked
from llama_qna.project.data import CHUNK_COLUMNS, read_table
from llama_qna.project.files import read_json, sha256
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.reporting.reader import reader_block


@pytest.fixture(scope="module")
def reader():
    return Reader.load(READER)


@pytest.fixture(scope="module")
def answerer(reader):
    path = REPOSITORY / "data" / "paper" / "chunks.csv"
    return ReadingAnswerer.of(read_table(path, path.name, CHUNK_COLUMNS, numbers=("page", "tokens")), reader)


def test_the_adapter_is_small_and_the_one_that_was_measured(reader):
    check_reader(reader)
    weights = reader.adapter / "adapter_model.safetensors"
    assert weights.stat().st_size <= 15_000_000
    measured = read_json(reader.folder / "metrics.json")["all"]["measured"]
    assert measured["adapter"] == sha256(weights)
    config = read_json(reader.adapter / "adapter_config.json")
    assert (config["r"], config["base_model_name_or_path"]) == (reader.recipe.lora.r, reader.recipe.base_model)


def test_its_page_shows_its_metrics(reader):
    page = reader.folder / "README.md"
    metrics = read_json(reader.folder / "metrics.json")
    assert marked.read(page, "results") == f"{reader_block(metrics)}\n"


def test_the_page_of_experiments_shows_what_its_choices_rest_on():
    assert (
        marked.read(choices.PAGE, "reader") == f"{choices.tables(*map(read_json, (choices.RESULTS, choices.BEFORE)))}\n"
    )
    for name, made in (("embedding", embedding), ("other_subjects", other_subjects)):
        assert marked.read(choices.PAGE, name) == f"{made.table(read_json(made.RESULTS))}\n"


def test_it_answers_as_it_was_measured(answerer, reader):
    lines = (reader.folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["corpus"] == "paper" and row["system"] == "reader"]
    asked = rows[:4] + [row for row in rows if "unanswerable" in row["protocol"]][:1]
    answers = answerer.answer([row["question"] for row in asked])
    shown = [answer.evidence and answer.evidence.sentence for answer in answers]
    same = [sentence == row["evidence"] for sentence, row in zip(shown, asked, strict=True)]
    # not the words: in 16 bits two of them may be as good as equally likely, and a batch decides
    assert sum(same) >= len(same) - 1, "another processor may round one of them to another sentence"
    for answer in answers:
        assert answer.said_not == (answer.text == NOT_SAID) == (answer.evidence is None)
        assert answer.sources


@pytest.mark.parametrize("question", ["", "  ", "why " * 400, "caf\udce9"])
def test_what_cannot_be_asked_is_one_line(answerer, question):
    with pytest.raises(UserError):
        answerer.answer([question])


def test_a_question_about_something_else_is_not_answered(answerer, monkeypatch):
    """Though a sentence shares a word with it, and the doubt alone would let it pass."""
    asked = ["What did Donald Hebb suppose happens between two neurons if one keeps helping to make the other fire?"]
    (answer,) = answerer.answer(asked)
    assert answer.said_not and answer.text == NOT_SAID and answer.sources
    monkeypatch.setattr(reading, "SHARE", 0.0)
    assert not answerer.answer(asked)[0].said_not


def test_a_question_of_nothing_but_stop_words_is_not_answered(answerer):
    answer = answerer.answer(["What is it and why is that so?"])[0]
    assert answer.said_not and not answer.sources
