"""Tests of llama_qna/training/rows.py: what does not fit is named, cut anew or left out; the shipped rows all fit."""

import pandas as pd
import pytest

from llama_qna import UserError, cli
from llama_qna.models import prompts
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.training.rows import chunk_rows, pair_rows
from tests.fixtures_models import tokenizer, write_variant

LONG = " ".join(f"Turn valve {n} to the left." for n in range(40))
PAIRS = [("Who wrote it?", "Ilse Brandt wrote it."), (f"What next? {LONG}", "Stop."), ("How is it started?", LONG)]


def pairs(rows):
    return pd.DataFrame(rows, columns=["Question", "Answer"])


def chunks(*texts):
    return pd.DataFrame({"chunk_id": [f"d-{n}" for n in range(len(texts))], "text": texts})


def test_pairs_that_do_not_fit_are_left_out_and_named_in_one_line(capsys):
    rows = pair_rows(tokenizer(), pairs(PAIRS), 64, "small finetuning")
    assert rows == [prompts.training_row(tokenizer(), *PAIRS[0])]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("small finetuning: 2 of 3 pairs are longer") and "What next?" in line and len(line) < 1200


@pytest.mark.parametrize("rows", [PAIRS[1:], []])
def test_no_pair_that_fits_is_one_line(rows):
    with pytest.raises(UserError, match="small finetuning") as caught:
        pair_rows(tokenizer(), pairs(rows), 64, "small finetuning")
    assert "\n" not in str(caught.value)


def test_every_row_ends_with_the_end_of_text():
    for length in range(40, 400, 7):
        for row in pair_rows(tokenizer(), pairs(PAIRS), length, "small"):
            assert row["labels"][-1] == tokenizer().eos_token_id and len(row["labels"]) <= length


def test_finetuning_on_pairs_of_which_none_fits_is_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    variant = write_variant(tmp_path, gold=False)
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(tmp_path))
    (tmp_path / "pairs.csv").write_text("Question,Answer\n" + "".join(f"Why {n}?,{LONG}\n" for n in range(3)))
    assert [cli.main([stage, "small"]) for stage in ("load", "generate")] == [0, 0]
    capsys.readouterr()
    assert cli.main(["finetune", "small", "--without-pretraining"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "3 of 3 pairs" in line and "max_length" in line
    assert not variant.finetuning.exists()


@pytest.mark.parametrize("length", [64, 200])
@pytest.mark.parametrize(
    "long",
    [
        LONG * 2,
        "全文" * 300,
        "น้ำขึ้นวันละสองครั้งและชาวประมงรออยู่ที่ท่าเรือเก่า" * 6,
        "Прилив поднимается дважды в день, и рыбаки ждут его. " * 12,
        "\n".join(f"{n} | {n * 37 % 1000} | {n * n}" for n in range(60)),
        "a" * 3000,
    ],
)
def test_chunk_that_does_not_fit_makes_several_rows_and_is_named(long, length, capsys):
    rows = chunk_rows(tokenizer(), chunks("Short.", long), length, "small pretraining")
    assert rows[0]["input_ids"] == prompts.text_ids(tokenizer(), "Short.")
    assert len(rows) > 2 and all(len(row["input_ids"]) <= length for row in rows)
    (line,) = capsys.readouterr().out.splitlines()
    assert "1 of 2 chunks" in line and f"{len(rows)} in all: d-1" in line
    first = rows[1]["input_ids"][:1]
    text = tokenizer().decode(first + [token for row in rows[1:] for token in row["labels"][1:]])
    assert text == long, "nothing is lost"


def test_chunks_without_text_are_one_line():
    with pytest.raises(UserError, match="small pretraining"):
        chunk_rows(tokenizer(), chunks("", "a"), 64, "small pretraining")


@pytest.mark.parametrize("name", ["paper_135m", "physics_books_135m"])
def test_rows_of_the_shipped_variants_all_fit_and_are_what_they_were(name, capsys):
    """The published adapters were trained on texts and pairs that were cut off at `max_length`."""
    variant = Variant.load(name)
    recipe, folder = variant.recipe, REPOSITORY / "data" / variant.recipe.corpus
    tables = (pd.read_csv(folder / file, keep_default_na=False) for file in ("chunks.csv", "qna.csv"))
    texts, asked = (table[table.split == "train"] for table in tables)
    length = recipe.pretraining.max_length
    cut = [prompts.encode_document(tokenizer(), text)[:length] for text in texts.text]
    assert chunk_rows(tokenizer(), texts, length, name) == [{"input_ids": row, "labels": row} for row in cut]
    rows = pair_rows(tokenizer(), asked, recipe.finetuning.max_length, name)
    for row, pair in zip(rows, asked.itertuples(), strict=True):
        answer = [*prompts.encode_document(tokenizer(), pair.Answer), tokenizer().eos_token_id]
        question = prompts.question_ids(tokenizer(), pair.Question)
        assert row == {"input_ids": question + answer, "labels": [-100] * len(question) + answer}
    assert capsys.readouterr().out == ""
