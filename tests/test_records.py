"""Tests of llama_qna/project/stage.py: a stage is done once, whole or not at all, and its record says how."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from llama_qna import UserError
from llama_qna.documents.chunks import load
from llama_qna.project import stage as stage_module
from llama_qna.project.files import sha256, write_json
from llama_qna.project.stage import valid_record
from llama_qna.project.variant import REPOSITORY, Variant


@pytest.fixture
def variant(toy_root):
    return Variant.load("paper_135m")


@pytest.fixture
def do(variant):
    """Do the stage `load` with a work that writes two files; how often it worked is `do.worked`."""

    def once(recipe=None, inputs=None, stage="load"):
        def work(folder):
            once.worked += 1
            (folder / "deep").mkdir()
            (folder / "deep" / "a.txt").write_text("first")
            (folder / "b.txt").write_text("second")
            return {"files": 2}

        return stage_module.once(variant, stage, recipe or {"size": 1}, inputs or {"a.pdf": "hash"}, work)

    once.worked = 0
    return once


def test_result_and_record_are_there(do, variant):
    record = do()
    assert record["skipped"] is False
    assert (variant.chunks / "deep" / "a.txt").read_text() == "first"
    saved = json.loads((variant.chunks / "run.json").read_text())
    assert saved == {name: value for name, value in record.items() if name != "skipped"}
    assert saved["results"] == {"files": 2}
    assert saved["outputs"] == {
        name: sha256(variant.chunks / name) for name in (os.path.join("deep", "a.txt"), "b.txt")
    }
    assert [path.name for path in variant.run.iterdir()] == ["chunks"], "nothing half-done is left beside"


def test_second_time_is_skipped(do, capsys):
    first = do()
    second = do()
    assert do.worked == 1
    assert second == first | {"skipped": True}
    assert "load: done before" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"a.pdf": "other hash"}},
        {"inputs": {"b.pdf": "hash"}},
        {"inputs": {"a.pdf": "hash", "b.pdf": "hash"}},
        {"recipe": {"size": 2}},
        {"recipe": {"size": 1, "overlap": 0}},
    ],
)
def test_changed_input_or_recipe_is_done_again(change, do):
    do()
    assert do(**change)["skipped"] is False
    assert do(**change)["skipped"] is True
    assert do.worked == 2


def test_order_of_the_recipe_does_not_matter(do):
    do(recipe={"a": 1, "b": {"c": 2, "d": 3}})
    assert do(recipe={"b": {"d": 3, "c": 2}, "a": 1})["skipped"] is True


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "b.txt").write_text("tampered with"),
        lambda folder: (folder / "deep" / "a.txt").unlink(),
        lambda folder: (folder / "run.json").unlink(),
        lambda folder: (folder / "run.json").write_text((folder / "run.json").read_text()[:-20]),
        lambda folder: (folder / "run.json").write_text("{}"),
        lambda folder: (folder / "run.json").write_text("[]"),
    ],
    ids=["output changed", "output missing", "no record", "record cut off", "record empty", "record no record"],
)
def test_damaged_result_is_done_again(damage, do, variant):
    do()
    damage(variant.chunks)
    assert valid_record(variant.chunks, "load") is None
    assert do()["skipped"] is False
    assert valid_record(variant.chunks, "load")["results"] == {"files": 2}


def test_result_of_other_code_is_done_again(do, variant):
    do()
    record = json.loads((variant.chunks / "run.json").read_text())
    write_json(variant.chunks / "run.json", record | {"code": "of another day"})
    assert do()["skipped"] is False


def test_what_a_person_put_beside_the_result_goes_when_it_is_done_again(do, variant):
    do()
    (variant.chunks / "old.txt").write_text("from another recipe")
    do(recipe={"size": 2})
    assert not (variant.chunks / "old.txt").exists()


@pytest.mark.parametrize("error", [UserError("no good"), RuntimeError("a fault of ours"), KeyboardInterrupt()])
def test_failing_work_leaves_the_earlier_result(error, do, variant):
    first = do()

    def fails(folder):
        (folder / "b.txt").write_text("half of it")
        raise error

    with pytest.raises(type(error)):
        stage_module.once(variant, "load", {"size": 2}, {"a.pdf": "hash"}, fails)
    assert (variant.chunks / "b.txt").read_text() == "second"
    assert do() == first | {"skipped": True}


def test_work_after_a_failed_one_begins_from_nothing(do, variant):
    def fails(folder):
        (folder / "rubbish.txt").write_text("half of it")
        raise UserError("no good")

    with pytest.raises(UserError):
        stage_module.once(variant, "load", {}, {}, fails)
    assert not variant.chunks.exists()
    do()
    assert not (variant.chunks / "rubbish.txt").exists()


def test_stages_keep_apart(do, variant):
    do()
    do(stage="generate")
    assert do.worked == 2
    assert do()["skipped"] and do(stage="generate")["skipped"]
    assert valid_record(variant.chunks, "generate") is None


# --- what a record says ----------------------------------------------------------------------------------------------


@pytest.fixture
def real_record(variant):
    """The record of a real stage on the real paper."""
    load(variant)
    return json.loads((variant.chunks / "run.json").read_text(encoding="utf-8"))


def test_record_says_what_it_ran_with(real_record):
    assert real_record["seed"] == 42
    assert real_record["variant"] == "paper_135m"
    assert real_record["stage"] == "load"
    assert real_record["versions"]["python"] == platform.python_version()
    for package in ("pypdfium2", "langchain-text-splitters", "transformers", "torch"):
        assert real_record["versions"][package] == metadata.version(package)
    assert real_record["machine"]["cores"] >= 1 and real_record["machine"]["memory_gb"] > 0
    assert real_record["peak_memory_gb"]["process"] > 0.01
    assert real_record["seconds"] > 0
    assert real_record["started"] <= real_record["finished"]
    assert real_record["recipe"]["chunking"] == {"chunk_size": 1024, "chunk_overlap": 100}


def test_record_names_its_inputs_by_their_hash(real_record, toy_root):
    pdf = toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf"
    assert real_record["inputs"]["wicketfold.pdf"] == sha256(pdf)
    assert len(real_record["inputs"]["embedded/smollm2-135m-instruct"]) == 64


def test_record_names_the_commit(real_record):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    if head.returncode:
        assert real_record["git"] is None
    else:
        assert real_record["git"]["commit"] == head.stdout.strip()
        assert isinstance(real_record["git"]["modified"], bool)


def test_record_tells_nothing_of_folders_host_or_user(real_record, tmp_path):
    text = json.dumps(real_record)
    for private in (tmp_path, REPOSITORY, Path.home(), platform.node()):
        assert str(private) not in text
    values = [text for text in json.dumps(real_record).split('"') if text.startswith("/")]
    assert values == [], "an absolute path"


def test_sha256_is_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"loss": 1.0, "name": "Léonard"})
    assert "Léonard" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["loss"] == 1.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]
