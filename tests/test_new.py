"""Tests of `llama-qna new` and of what `plan` says of the stages."""

import shutil

import pytest
import yaml

from llama_qna import cli
from llama_qna.documents.own import Size, fitted, measure
from llama_qna.models import forecast
from llama_qna.models.device import GIB
from llama_qna.models.plan import plan_stage
from llama_qna.project.recipe import Recipe
from llama_qna.project.variant import REPOSITORY, Variant

KNOWN = Variant.load("paper_135m").recipe


@pytest.fixture
def corpus(toy_root, make_pdf):
    """Documents put into data/pdfs/letters, as the README says."""
    folder = toy_root / "data" / "pdfs" / "letters"
    (folder / "old").mkdir(parents=True)
    make_pdf(folder / "a.pdf", ["A letter about the ferry."])
    (folder / "old" / "b.md").write_text("# One\n\nAnother letter.\n\n# Two\n\nIts end.\n")
    (folder / "c.docx").write_bytes(b"")
    return folder


def size(documents=1, pages=300, chunks=600, tokens=150_000, references=0):
    return Size(documents, pages, chunks, references, tokens, 1.0)


def test_new_writes_a_recipe_that_loads_and_names_what_is_left_out(corpus, toy_root, capsys):
    assert cli.main(["new", "letters"]) == 0
    said = capsys.readouterr().out
    assert "c.docx" in said and "2 documents" in said and "letters/variant.yaml" in said
    recipe = Variant.load("letters").recipe
    assert (recipe.corpus, recipe.heldout.fraction, recipe.base_model) == ("letters", 0.0, KNOWN.base_model)
    assert cli.main(["load", "letters"]) == 0
    assert "Another letter." in (toy_root / "runs" / "letters" / "chunks" / "chunks.csv").read_text()


def test_something_is_held_out_if_asked_for(corpus):
    assert cli.main(["new", "letters", "--heldout", "0.2"]) == 0
    assert Variant.load("letters").recipe.heldout.fraction == 0.2


@pytest.mark.parametrize("source", ["paper_7b", "paper_13b", "physics_mk_books_7b", "physics_books_135m"])
def test_any_recipe_can_be_the_source(source, corpus, toy_root):
    shutil.copytree(REPOSITORY / source, toy_root / source)
    assert cli.main(["new", "letters", "--from", source]) == 0
    recipe, known = Variant.load("letters").recipe, Variant.load(source).recipe
    assert (recipe.base_model, recipe.lora, recipe.quantization) == (known.base_model, known.lora, known.quantization)
    assert recipe.pretraining.max_steps == recipe.finetuning.max_steps == -1, "the epochs decide"


@pytest.mark.parametrize(
    "arguments",
    [
        ["paper_135m"],
        ["data"],
        ["runs"],
        ["a/b"],
        [".."],
        [""],
        ["x" + chr(10) + "y"],
        ["letters", "--from", "nosuch"],
        ["letters", "--heldout", "1.5"],
    ],
)
def test_a_bad_name_is_one_line_and_status_2_and_writes_nothing(arguments, corpus, toy_root, capsys):
    before = sorted(toy_root.rglob("*"))
    assert cli.main(["new", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(toy_root.rglob("*")) == before


def test_a_file_in_the_place_of_the_documents_is_named_before_anything_is_made(toy_root, capsys):
    (toy_root / "data/pdfs/letters").write_bytes(b"%PDF-")
    for _ in range(2):
        assert cli.main(["new", "letters"]) == 2
        assert capsys.readouterr().err == "llama-qna: data/pdfs/letters is a file; it must be a folder with documents\n"
    assert not (toy_root / "letters").exists()


def test_an_existing_name_keeps_its_recipe(corpus, toy_root, capsys):
    assert cli.main(["new", "letters"]) == 0
    (toy_root / "letters" / "variant.yaml").write_text("mine")
    assert cli.main(["new", "letters"]) == 2
    assert (toy_root / "letters" / "variant.yaml").read_text() == "mine"


def test_without_documents_it_says_where_they_belong(toy_root, capsys):
    assert cli.main(["new", "empty"]) == 0
    assert "data/pdfs/empty/" in capsys.readouterr().out
    assert (toy_root / "data" / "pdfs" / "empty").is_dir()
    assert not any("loader" in name for name in Variant.load("empty").recipe.notebooks), "there is no page to show"
    (toy_root / "data" / "pdfs" / "words").mkdir()
    (toy_root / "data" / "pdfs" / "words" / "a.docx").write_bytes(b"")
    assert cli.main(["new", "words"]) == 2
    assert "a.docx" in capsys.readouterr().err and not (toy_root / "words").exists()


def test_epochs_fit_the_amount_of_text():
    epochs = []
    for pages in (8, 80, 300, 1200, 5000):
        recipe = Recipe.model_validate(fitted(KNOWN, "own", size(1, pages, 4 * pages, 1000 * pages), 0.0))
        epochs.append((recipe.pretraining.epochs, recipe.finetuning.epochs))
        assert recipe.pretraining.save_steps <= 200
    assert epochs == sorted(epochs, reverse=True) and epochs[0][0] > 4 and epochs[-1] == (1, 1)


def test_notebooks_and_references_are_those_of_the_documents():
    paper = Recipe.model_validate(fitted(KNOWN, "own", size(1, 12, 100, 15_000, references=30), 0.0))
    books = Recipe.model_validate(fitted(KNOWN, "own", size(3, 900), 0.0))
    for recipe in (paper, books):
        assert all((REPOSITORY / "notebooks" / f"{name}.ipynb").is_file() for name in recipe.notebooks)
    assert any("paper" in name for name in paper.notebooks) and not any("paper" in name for name in books.notebooks)
    notes = Size(documents=3, pages=3, chunks=20, references=0, tokens=4000, seconds=0.1, pdfs=0)
    assert fitted(KNOWN, "own", notes, 0.0)["notebooks"] == books.notebooks[1:], "the first one shows pages of PDFs"
    assert paper.generation.reference_questions and not books.generation.reference_questions


def test_size_counts_what_is_read(corpus):
    found = measure(corpus, KNOWN)
    assert (found.documents, found.pages, found.chunks, found.references) == (2, 2, 3, 0)
    assert any("c.docx" in line for line in found.left_out)


@pytest.fixture
def limit(monkeypatch):
    monkeypatch.setattr(forecast, "measure", lambda *_: {"matmul": 1e12, "copy": 1e10})


def test_plan_tells_the_time_of_every_stage_before_a_book_starts(limit):
    known, recipe = Variant.load("paper_135m"), KNOWN
    times = []
    for measured in (size(), size(chunks=1200, tokens=300_000)):
        rows = forecast.expected_rows(recipe, measured)
        plans = [plan_stage(known, name, 24 * GIB, "cpu", rows[name]) for name in forecast.STAGES]
        times.append(forecast.stage_times(recipe, measured, plans, 1e12))
    assert list(times[0]) == ["load", "generate", "pretrain", "finetune", "evaluate", "figures"]
    assert all(times[1][stage] > seconds for stage, seconds in times[0].items() if stage not in ("load", "figures"))
    last = forecast.report(known, 24 * GIB, "cpu", size=size()).splitlines()[-1]
    assert all(stage in last for stage in times[0]) and "in all" in last


def test_a_step_is_one_of_the_rows_that_the_documents_make_and_of_full_rows_without_any(limit):
    reader = Variant.load("paper_reader_135m")
    rows = forecast.expected_rows(reader.recipe, size(chunks=80, tokens=8000))
    assert rows["pretraining"] == [100] * 160 + [300] * 80  # two epochs, and a row of the reading set for every two
    assert rows["finetuning"].count(75) == 3 * 8 and len(rows["finetuning"]) == 3 * 40 * 5 // 4  # half a pair a chunk
    text = forecast.report(reader, 24 * GIB, "cpu", size=size(chunks=80, tokens=8000))
    assert "time: pretraining: 30 steps of" in text and "rows of 167 tokens on average" in text
    text = forecast.report(reader, 24 * GIB, "cpu")
    assert "for a step of rows of full length, 512 tokens; how many steps" in text and "on average" not in text


def test_plan_without_documents_says_so(limit, toy_root, capsys):
    for path in (toy_root / "data" / "pdfs" / "paper").glob("*"):
        path.unlink()
    assert cli.main(["plan", "paper_135m"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("no times of the stages: no document")


@pytest.mark.parametrize("seconds, text", [(5, "5 s"), (80, "80 s"), (200, "3 min"), (9000, "2.5 h")])
def test_durations_are_rounded_to_what_is_known(seconds, text):
    assert forecast.duration(seconds) == text


def test_recipe_is_plain_yaml_with_its_reasons(corpus, toy_root):
    cli.main(["new", "letters"])
    text = (toy_root / "letters" / "variant.yaml").read_text()
    assert text.startswith("# ") and "nothing is held out" in text and "paper_135m/variant.yaml" in text
    assert yaml.safe_load(text)["corpus"] == "letters"
