"""The committed figures and scores are what the committed metrics make: no number was typed by hand."""

import json

import pytest

from llama_qna import repeat
from llama_qna.project.recipe import read_recipe
from llama_qna.project.variant import REPOSITORY, variant_names
from llama_qna.reporting import figures

EMBEDDED = ["paper_135m", "paper_reader_135m", "physics_books_135m"]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def committed(folder):
    """The numbers of the figures of a folder, by name; each must have its two pictures."""
    found = {path.stem: read(path) for path in folder.glob("*.json")}
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{ending}" for name in found for ending in ("png", "svg", "json")
    }
    return found


def test_the_embedded_variants_and_no_others_are_published():
    names = [name for name in variant_names(REPOSITORY) if (REPOSITORY / name / "metrics.json").is_file()]
    assert names == EMBEDDED


@pytest.mark.parametrize("name", EMBEDDED)
def test_figures_are_what_the_metrics_make(name):
    about = read_recipe(REPOSITORY / name / "variant.yaml").description
    made = figures.numbers(figures.committed_sources(REPOSITORY, name), about)
    assert set(figures.FIGURES) == set(made)  # all variants have gold questions and all records
    found = committed(REPOSITORY / "figs" / name)
    found.pop("evidence", None)  # notebook 10 makes it, of an answer
    assert found == made


def test_figures_of_the_study_are_what_its_numbers_make():
    made = figures.published_numbers(read(REPOSITORY / "data" / "published_results.json"))
    assert committed(REPOSITORY / "figs" / "published") == made


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("*/seeds.json")), ids=lambda path: path.parent.name)
def test_scores_of_other_seeds_are_what_their_answers_make(path):
    content = read(path)
    lines = path.with_name("seeds.predictions.jsonl").read_text(encoding="utf-8").splitlines()
    perplexities = {int(seed): texts for seed, texts in content["perplexity"].items()}
    assert repeat.summarize(content["variant"], perplexities, [json.loads(line) for line in lines]) == content
