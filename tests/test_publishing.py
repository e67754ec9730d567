"""Tests of llama_qna/publish.py and project/marked.py: a run goes into the pages whole or not at all."""

import json
import shutil

import pytest

from llama_qna import UserError, publish
from llama_qna.project import marked
from llama_qna.project import stage as stage_module
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting.tables import seeds_table
from tests import fixtures_metrics as made_up
from tests.fixtures_commands import files
from tests.fixtures_results import root_fixture, tables  # noqa: F401

# --- the marks -------------------------------------------------------------------------------------------------------


def test_marked_parts_are_replaced_and_writing_them_again_changes_nothing(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- a:begin -->\nold\n<!-- a:end -->\n\nafter ü\n", encoding="utf-8")
    marked.write(page, a="| \\1 | new |\n")
    once = page.read_text(encoding="utf-8")
    assert once == "# Title\n\n<!-- a:begin -->\n| \\1 | new |\n<!-- a:end -->\n\nafter ü\n"
    marked.write(page, a="| \\1 | new |\n")
    assert page.read_text(encoding="utf-8") == once
    assert marked.read(page, "a") == "| \\1 | new |\n"


@pytest.mark.parametrize(
    "text", ["no marks", "<!-- a:begin -->\n", "<!-- a:end --><!-- a:begin -->\n", "<!-- a:end -->"]
)
def test_a_page_without_both_marks_is_left_alone(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        marked.write(page, a="table")
    assert page.read_text(encoding="utf-8") == text


# --- publishing ------------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(root, monkeypatch):
    """A root whose paper_135m was evaluated on this machine, anew."""
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    variant, content = Variant.load("paper_135m"), made_up.metrics()
    content["systems"][0]["scores"]["right"]["mean"] = 0.111

    def work(folder):
        (folder / "metrics.json").write_text(json.dumps(content))
        (folder / "predictions.jsonl").write_text(json.dumps({"protocol": "in_sample"}))

    stage_module.once(variant, "evaluate", {}, {}, work)
    return variant


def long_tables(root):
    publish.write_pages(root)
    return marked.read(root / "docs/results.md", "results")


def test_the_page_of_results_gets_every_published_variant(root):
    text = long_tables(root)
    assert len(tables(text)) == 5
    head = tables(text)[-1][0]
    assert [cell.split(" ")[0] for cell in head[1:3]] == ["paper_135m", "physics_books_135m"]
    assert head[1].endswith(", 2 CPU cores)") and head[2].endswith(", L4)")


def test_publishing_writes_the_run_into_the_pages(finished):
    written = publish.publish(finished)
    folder, root = finished.folder, finished.root
    assert written == [
        *(folder / name for name in ("metrics.json", "predictions.jsonl", "run.json")),
        *(root / page for page in made_up.PAGES),
        folder / "MODEL_CARD.md",
    ]
    heldout, *_ = tables(marked.read(root / "docs/results.md", "results"))
    assert heldout[2][1].startswith("0.111")
    (front,) = tables(marked.read(root / "README.md", "results"))
    assert front[2][:3] == ["the question itself, printed as the answer", "6", "8"]  # of 50 each


def test_executed_notebooks_go_where_the_course_has_them(finished, monkeypatch):
    name = "07_finetuning.ipynb"
    course, ran = finished.root / "course", finished.run / "notebooks"
    for folder in (course, ran):
        folder.mkdir(parents=True)
        shutil.copy(REPOSITORY / "notebooks" / name, folder)
    executed = json.loads((ran / name).read_text(encoding="utf-8"))
    executed["cells"][0]["source"] = ["seen"]
    (ran / name).write_text(json.dumps(executed, indent=1), encoding="utf-8")
    monkeypatch.setattr(publish, "NOTEBOOKS", course)
    assert course / name in publish.publish(finished)
    assert json.loads((course / name).read_text(encoding="utf-8"))["cells"][0]["source"] == ["seen"]


def test_another_variant_of_an_older_form_is_left_out_and_named(finished, capsys):
    other = finished.root / "physics_books_135m/metrics.json"
    other.write_text(json.dumps({"variant": "physics_books_135m", "systems": []}))
    publish.publish(finished)
    assert "physics_books_135m" in capsys.readouterr().out
    *_, in_sample = tables(marked.read(finished.root / "docs/results.md", "results"))
    assert [cell.split(" ")[0] for cell in in_sample[0][1:]] == ["paper_135m", "Paper-7b", "MK-PhysX-7b"]


@pytest.mark.parametrize("broken", ["page", "other", "missing"])
def test_nothing_is_half_published(finished, broken, monkeypatch):
    if broken == "page":
        (finished.root / "docs/results.md").write_text("no marks")
    elif broken == "other":
        (finished.root / "physics_books_135m/metrics.json").write_text("{")
    else:
        evaluated = publish.FILES["evaluate"] | {"more.json": "more.json"}
        monkeypatch.setitem(publish.FILES, "evaluate", evaluated)
    before = files(finished.root)
    with pytest.raises(UserError):
        publish.publish(finished)
    assert files(finished.root) == before


# --- other seeds -----------------------------------------------------------------------------------------------------


def test_the_page_shows_each_seed_with_mean_and_spread(root):
    assert "Other seeds" not in long_tables(root)
    content = made_up.seeds()
    (root / "paper_135m/seeds.json").write_text(json.dumps(content))
    text = long_tables(root)
    assert "**Other seeds: paper_135m**, trained anew with each" in text
    (table,) = [rows for rows in tables(text) if rows[0][0] == "training"]
    assert table[0] == ["training", "ROUGE-L, held out", "F1, held out", "ROUGE-L, in-sample", "perplexity, general"]
    assert table[2:] == [
        ["seed 42", "0.300", "0.320", "0.600", "42.00"],
        ["seed 43", "0.200", "0.220", "0.700", "43.00"],
        ["seed 44", "0.250", "0.270", "0.800", "44.00"],
        ["mean", "0.250", "0.270", "0.700", "43.00"],
        ["standard deviation", "0.050", "0.050", "0.100", "1.00"],
    ]
    assert seeds_table(content).to_numpy().tolist() == table[2:]


def test_published_seeds_of_another_training_go(finished):
    for name in ("seeds.json", "seeds.run.json", "seeds.predictions.jsonl"):
        (finished.folder / name).write_text(json.dumps(made_up.seeds()))
    publish.publish(finished)
    assert list(finished.folder.glob("seeds*")) == []
    assert "Other seeds" not in (finished.root / "docs/results.md").read_text(encoding="utf-8")


# --- the pages of the repository -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(made_up.PAGES))
def test_committed_pages_are_what_the_published_files_make(page, written_anew):
    assert (written_anew / page).read_bytes() == (REPOSITORY / page).read_bytes(), "write them with benchmarks.rescore"


@pytest.fixture(scope="module")
def written_anew(tmp_path_factory):
    """The generated parts of the committed pages, made once more of the committed files beside them."""
    root = tmp_path_factory.mktemp("pages")
    for page in made_up.PAGES:
        (root / page).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / page, root / page)
    for path in REPOSITORY.glob("*/metrics.json"):
        (root / path.parent.name).symlink_to(path.parent)
    publish.write_pages(root)
    return root
