"""`models.cards`: the forecast for a card that is not here, and the folders of the variants that we have not run."""

import json
from dataclasses import replace

import pytest

from benchmarks import study_folders
from llama_qna import UserError
from llama_qna.commands import EXPORTS, FORMATS, GPUS
from llama_qna.models import cards
from llama_qna.models.plan import Batch, step_flops
from llama_qna.models.shapes import shapes_of
from llama_qna.pairs import formats
from llama_qna.project import marked
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.serving import exports


@pytest.fixture(autouse=True)
def repository_root(monkeypatch):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(REPOSITORY))


def test_terminal_takes_what_the_packages_know():
    assert tuple(cards.CARDS) == GPUS
    assert {*formats.DIALOGUES, "alpaca"} == set(FORMATS)
    assert exports.FORMATS == EXPORTS
    assert all(card.source.startswith("https://") for card in cards.CARDS.values())


@pytest.mark.parametrize("name", cards.CARDS)
@pytest.mark.parametrize("variant", ["paper_7b", "paper_13b", "paper_135m"])
def test_every_shipped_recipe_has_a_forecast_on_every_card(variant, name):
    variant = Variant.load(variant)
    found = cards.forecast(variant, cards.CARDS[name])
    assert all(plan.peak <= cards.CARDS[name].usable for plan in found.stages)
    assert found.rows >= found.rows_with_passages > 0
    text = cards.report(variant, name)
    assert "computed, not measured" in text and text.count("plan: ") == 2 and "export: " in text


def test_a_card_with_more_of_everything_is_not_slower():
    seconds = []
    for name in ("T4", "L4", "A100-80", "H200"):
        found = cards.forecast(Variant.load("paper_7b"), cards.CARDS[name])
        seconds.append(cards.step_seconds(found.stages[0], shapes_of(Variant.load("paper_7b").recipe.base_model)[0],
                                          cards.CARDS[name])[1])  # fmt: skip
    assert seconds == sorted(seconds, reverse=True)


def test_the_smaller_share_is_the_studys():
    """14.0 s a step of 8 rows of 1,024 tokens of 7B, with checkpointing, on an L4."""
    recipe = Variant.load("paper_7b").recipe
    published = json.loads((REPOSITORY / "data/published_results.json").read_text())["speed_on_one_l4"]
    seconds = published["pretraining_physics_seconds_per_step_of_8x1024_tokens"]
    shapes, _ = shapes_of(recipe.base_model)
    flops = step_flops(shapes, recipe, recipe.pretraining, Batch(8, 1024, 1, True), "cuda")
    assert flops / seconds / (cards.CARDS["L4"].tflops * 1e12) == pytest.approx(cards.REACHED[0], abs=0.015)


def test_card_that_a_recipe_does_not_fit():
    small = replace(cards.CARDS["T4"], memory=6)
    with pytest.raises(UserError, match="does not fit"):
        cards.forecast(Variant.load("paper_13b"), small)


@pytest.mark.parametrize("name", study_folders.VARIANTS)
def test_folders_of_the_studys_variants_are_what_its_numbers_make(name):
    variant = Variant.load(name)
    for path, text in study_folders.files(variant).items():
        assert path.read_text(encoding="utf-8") == text
    assert marked.read(variant.folder / "README.md", "cards") == study_folders.table(variant)


def test_forecast_is_a_verb_and_stands_alone(run_cli):
    found = run_cli("plan", "paper_135m", "--gpu", "T4")
    assert found.returncode == 0 and "T4, by its published figures" in found.stdout
    found = run_cli("plan", "paper_135m", "--gpu", "L4", "--memory", "8GiB")
    assert (found.returncode, found.stdout) == (2, "") and found.stderr.count("\n") == 1
