"""Tests of the redrawn figures of the study: they show its published numbers, at the steps that its recipe gives."""

import json

import pytest

from llama_qna.project.variant import REPOSITORY
from llama_qna.reporting import figures

PUBLISHED = json.loads((REPOSITORY / "data" / "published_results.json").read_text(encoding="utf-8"))


def curves(numbers):
    """By model and score."""
    return {
        (panel["title"].split(":")[0], curve["label"]): curve
        for panel in numbers["panels"]
        for curve in panel["curves"]
    }


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    names = ["published_perplexity", "published_rouge", "published_training_loss"]
    assert figures.draw_published(folder) == [folder / f"{name}.png" for name in names]
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names}


def test_every_published_figure_says_what_it_is(redrawn):
    for numbers in redrawn.values():
        assert "study" in numbers["title"] and "training data" in numbers["note"]


def test_published_perplexity_has_the_real_steps(redrawn):
    found = curves(redrawn["published_perplexity"])
    paper, physics = found["Paper-7b", "its text"], found["MK-PhysX-7b", "its text"]
    assert paper["step"] == list(range(0, 181, 15))
    assert physics["step"] == [0, 800, 1000, 1200, 1400, 1600, 1800, 2000, 2200, 2400, 2500]
    assert paper["value"] == [6.91, *PUBLISHED["perplexity"]["paper_7b"].values()]
    assert physics["value"] == [6.56, *PUBLISHED["perplexity"]["physics_mk_books_7b"].values()]


def test_published_general_text_starts_at_the_first_checkpoint_measured(redrawn):
    found = curves(redrawn["published_perplexity"])
    own, other = found["Paper-7b", "its text"], found["Paper-7b", "WikiText-2, not trained on"]
    assert own["step"][0] == 0 and other["step"] == own["step"][1:]
    assert other["value"] == list(PUBLISHED["perplexity"]["paper_7b_on_wikitext2"].values())


def test_published_rouge_names_the_right_model(redrawn):
    """The study's own combined figure has the two models the wrong way round."""
    found = curves(redrawn["published_rouge"])
    for key, model in (("paper_7b", "Paper-7b"), ("physics_mk_books_7b", "MK-PhysX-7b")):
        for rouge, label in (("rouge1", "ROUGE-1"), ("rouge2", "ROUGE-2"), ("rougeL", "ROUGE-L")):
            curve = found.pop((model, label))
            assert curve["step"] == [int(step) for step in PUBLISHED["rouge"][key]]
            assert curve["value"] == [scores[rouge] for scores in PUBLISHED["rouge"][key].values()]
    assert not found


def test_published_loss_gets_its_steps_from_the_recipe(redrawn):
    panels = {panel["title"]: panel["curves"][0] for panel in redrawn["published_training_loss"]["panels"]}
    for title, key, stage, every, last in [
        ("Paper-7b: Domain pretraining", "paper_7b", "pretraining", 9, 180),
        ("Paper-7b: Q&A fine-tuning", "paper_7b", "finetuning", 9, 378),
        ("MK-PhysX-7b: Domain pretraining", "physics_mk_books_7b", "pretraining", 10, 2490),
        ("MK-PhysX-7b: Q&A fine-tuning", "physics_mk_books_7b", "finetuning", 10, 2640),
    ]:
        curve = panels.pop(title)
        assert curve["step"] == list(range(every, last + 1, every))
        assert curve["value"] == [entry["loss"] for entry in PUBLISHED["training_loss"][key][stage]]
    assert not panels
