"""Tests of notebooks/: the form of a course, and that what is committed holds nothing of the machine that made it."""

import ast
import json
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import torch

from llama_qna import run
from llama_qna.documents import read
from llama_qna.documents.arxiv import fetch
from llama_qna.documents.chunks import load
from llama_qna.evaluation import progress
from llama_qna.models import prompts
from llama_qna.pairs.qna import generate
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import results
from llama_qna.run import default_variant
from tests.fixtures_models import tiny_llama, write_variant

COURSE = sorted((REPOSITORY / "notebooks").glob("0[1-5]_*.ipynb"))
MACHINE = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|mnt)/|\w+Warning:")


def cells_of(path, kind):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem[:2])
class TestNotebook:
    def test_it_is_short_and_says_first_what_it_needs(self, path):
        prose, code = cells_of(path, "markdown"), cells_of(path, "code")
        assert 15 <= len(prose) + len(code) <= 25
        assert max(len(cell["source"]) for cell in code) <= 8
        head = "".join(prose[0]["source"])
        assert all(f"| {row} |" in head for row in ("goes in", "comes out", "hardware", "time"))
        assert sum("**Try it.**" in "".join(cell["source"]) for cell in prose) >= 2

    def test_parameters_are_literals_and_name_a_variant(self, path):
        (parameters,) = (cell for cell in cells_of(path, "code") if "parameters" in cell["metadata"].get("tags", []))
        for line in ast.parse("".join(parameters["source"])).body:
            ast.literal_eval(line.value)
        Variant.load(default_variant(path))

    def test_outputs_hold_nothing_of_a_machine(self, path):
        outputs = [output for cell in cells_of(path, "code") for output in cell["outputs"]]
        texts = ["".join(output.get("text", [])) for output in outputs]
        texts += ["".join(output.get("data", {}).get("text/html", [])) for output in outputs]
        texts += ["".join(output.get("data", {}).get("text/plain", [])) for output in outputs]
        assert not [found[0] for text in texts if (found := MACHINE.search(text))]
        assert not [output for output in outputs if output["output_type"] == "error"]


def test_the_recorded_paper_of_notebook_3(tmp_path, monkeypatch):
    """A folder with arXiv's two addresses, served as it is, is an arXiv with one paper."""
    recorded = partial(SimpleHTTPRequestHandler, directory=REPOSITORY / "data" / "arxiv_recorded")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), recorded) as server:
        monkeypatch.setenv("LLAMA_QNA_ARXIV", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        paper = fetch("2400.00001", tmp_path)
        server.shutdown()
        thread.join()
    assert paper.read_bytes() == (REPOSITORY / "data" / "arxiv_recorded" / "pdf" / "2400.00001v1").read_bytes()
    assert json.loads(paper.with_suffix(".json").read_text(encoding="utf-8"))["number"] == "2400.00001v1"


# --- cells that meet what users have ---------------------------------------------------------------------------------


def run_cells(notebook, numbers, **known):
    """The names that some cells of a notebook leave behind; `known` are those that earlier cells would have left."""
    (path,) = (REPOSITORY / "notebooks").glob(f"{notebook}_*.ipynb")
    sources = {cell["id"]: "".join(cell["source"]) for cell in cells_of(path, "code")}
    for number in numbers.split():
        exec(re.sub("(?m)^%.*", "", sources[f"nb{notebook}-{number}"]), known)
    return known


@pytest.mark.parametrize(("notebook", "cells"), [("01", "03 05 07 09 11 12 14 16"), ("02", "03 05 07 08 11 19")])
@pytest.mark.parametrize("readable", ["z.pdf", "z.txt"])
def test_loading_goes_on_where_the_first_pdf_cannot_be_read_or_there_is_none(
    notebook, cells, readable, toy_root, make_pdf
):
    folder = toy_root / "data/pdfs/paper"
    (folder / "wicketfold.pdf").write_text("no PDF")
    if readable == "z.pdf":
        make_pdf(folder / readable, ["Hello there."])
    else:
        (folder / readable).write_text("Hello there.")
    found = run_cells(notebook, cells, VARIANT="paper_135m")
    assert found["path"] == folder / readable
    assert [section.page_content for section in found["sections"]] == ["Hello there."]


@pytest.mark.parametrize(("notebook", "cells"), [("04", "15 17 18 20"), ("05", "09 13 15")])
def test_pairs_of_ones_own_pass_through_no_funnel(notebook, cells, toy_root, edit_recipe):
    edit_recipe("  reference_questions: true", "  reference_questions: false\n  qna_file: mine.csv")
    (toy_root / "mine.csv").write_text("Question,Answer\nWhat is a wicket?,A small door.\n")
    variant = Variant.load("paper_135m")
    load(variant)
    found = run_cells(notebook, cells, variant=variant, pd=pd)
    assert found["rejected"].empty and found["made"].empty and len(found["pairs"]) == 1


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ("data/paper/gold.csv", ["07_finetuning", "08_evaluation"]),
        ("data/paper/unanswerable.csv", ["08_evaluation"]),
        ("reader_135m/adapter/adapter_model.safetensors", ["07_finetuning", "08_evaluation"]),
    ],
)
def test_a_notebook_is_executed_again_when_a_file_that_its_stages_read_has_changed(
    changed, again, toy_root, monkeypatch
):
    executed = []

    def execute(source, target, variant):  # the notebooks themselves take minutes
        executed.append(source.stem)
        target.write_text("{}")

    monkeypatch.setattr(run, "_execute", execute)
    monkeypatch.setattr("llama_qna.project.variant.REPOSITORY", toy_root)  # where the reader is
    (toy_root / "reader_135m").mkdir()
    shutil.copy(REPOSITORY / "reader_135m/reader.yaml", toy_root / "reader_135m")
    (toy_root / changed).parent.mkdir(parents=True)
    for content in ("one", "one", "two"):
        executed.clear()
        (toy_root / changed).write_text(content)
        run.run_notebooks(Variant.load("paper_135m"), ["07_finetuning", "08_evaluation"])
    assert executed == again


@pytest.mark.parametrize("unread", ["pypdfium2", "pdfminer"])
def test_a_pdf_that_one_extractor_cannot_read_is_said_and_the_other_s_words_are_shown(
    unread, toy_root, make_pdf, monkeypatch, capsys
):
    def read_one(path, extractor, limits, real=read.read_one):
        return "reading it failed" if extractor == unread else real(path, extractor, limits)

    path = make_pdf(toy_root / "page.pdf", ["Hello there."])
    monkeypatch.setattr(read, "read_one", read_one)
    found = run_cells("02", "19 20", variant=Variant.load("paper_135m"), path=path, pd=pd)
    assert sorted([found["one"].total(), found["other"].total()]) == [0, 2]
    assert capsys.readouterr().out.startswith(f"{unread}: reading it failed\nonly in pypdfium2:")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_few_pairs_are_asked_once_each_and_the_last_one_was_trained_on(count, toy_root, edit_recipe, monkeypatch):
    edit_recipe("  reference_questions: true", "  reference_questions: false\n  qna_file: mine.csv")
    (toy_root / "mine.csv").write_text("Question,Answer\n" + "".join(f"Who is {n}?,Nobody.\n" for n in range(count)))
    variant = Variant.load("paper_135m")
    load(variant)
    monkeypatch.setattr(progress, "progress", lambda *a: {"points": [{"step": 0, "answers": a[-1]}]})
    found = run_cells("07", "18 21 23", variant=variant, pairs=generate(variant), pd=pd)
    assert found["asked"][-1] == f"Who is {min(1, count - 1)}?"
    assert len(set(found["asked"])) == len(found["asked"]) == min(count, 4 if count > 5 else 3)


def test_the_original_of_a_layer_is_loaded_beside_no_other_model_on_the_card():
    asked = []

    def load_base(*arguments, **options):
        asked.append(options)
        return tiny_llama()

    run_cells("06", "09", load_base=load_base, variant=Variant.load("paper_135m"), torch=torch)
    assert asked == [{"on": "cpu"}]


def test_a_variant_without_the_study_s_protocol_has_no_row_beside_it():
    found = run_cells("08", "23", metrics={"published": []}, pd=pd, results=results, REPOSITORY=REPOSITORY)
    assert len(found["models"]) == len(results.STUDY)


def test_only_marked_gold_questions_are_asked_however_a_spreadsheet_wrote_them(tmp_path):
    variant = write_variant(tmp_path)
    load(variant)
    gold = pd.read_csv(variant.gold, keep_default_na=False, dtype=str)
    gold.assign(checked=["", "yes", "", "yes"]).to_csv(variant.gold, sep=";", index=False)
    known = {"variant": variant, "prompts": prompts, "pd": pd, "wordings": {}}
    found = run_cells("10", "18", table_of=lambda forms: pd.DataFrame({"question": list(forms)}), **known)
    assert found["forms"] == {
        "What does SkipNet leave out?": ["SkipNet skips single residual blocks.", "single residual blocks"]
    }
