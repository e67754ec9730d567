"""The stage's files against its own predictions."""

import json

import pytest

from llama_qna import evaluation, models, serving
from llama_qna.evaluation import examples, perplexity
from llama_qna.prompts import text_row
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture, small_run_fixture  # noqa: F401

ROUGE = ["rouge1", "rouge2", "rougeL"]


# --- the stage -------------------------------------------------------------------------------------------------------


@pytest.fixture
def predictions(small_run):
    lines = (small_run.variant.evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_systems_in_order(small_run):
    systems = small_run.metrics["systems"]
    assert [(system["name"], system["stage"], system["step"]) for system in systems] == [
        ("base", "base", 0),
        ("pretraining checkpoint-2", "pretraining", 2),
        ("pretraining checkpoint-3", "pretraining", 3),
        ("finetuning checkpoint-2", "finetuning", 2),
        ("finetuning checkpoint-3", "finetuning", 3),
    ]
    assert small_run.metrics["base_model"] == models.EMBEDDED
    written = json.loads((small_run.variant.evaluation / "metrics.json").read_text())
    assert written == small_run.metrics


def test_a_row_for_every_system_and_question(small_run, predictions):
    names = [system["name"] for system in small_run.metrics["systems"]]
    found = [(row["system"], row["question"], row["reference"]) for row in predictions]
    assert found == [(name, *pair) for name in names for pair in shared.PAIRS[:2]]


def test_scores_are_means_of_the_predictions(small_run, predictions):
    for system in small_run.metrics["systems"]:
        rows = [row for row in predictions if row["system"] == system["name"]]
        assert system["rouge"]["questions"] == len(rows) == 2
        for name in ROUGE:
            assert system["rouge"][name] == pytest.approx(sum(row[name] for row in rows) / 2)
    assert any(row["rouge1"] > 0 for row in predictions)


def test_every_system_scores_the_same_tokens(small_run):
    text = (small_run.variant.chunks / "text.txt").read_text()
    wanted = {
        "domain": len(text_row(shared.tokenizer(), text, 10**6)["input_ids"]) - 1,
        "general": len(text_row(shared.tokenizer(), shared.GENERAL, 10**6)["input_ids"]) - 1,
    }
    for system in small_run.metrics["systems"]:
        assert {kind: scores["tokens"] for kind, scores in system["perplexity"].items()} == wanted


def test_training_lowers_domain_perplexity(small_run):
    base, second, third, *_ = [system["perplexity"]["domain"]["perplexity"] for system in small_run.metrics["systems"]]
    assert base > second
    assert base > third


def test_checkpoint_scores_are_those_of_a_fresh_load(small_run):
    """The stage swaps adapters on one base; the base and a swapped checkpoint must score as if loaded alone."""
    systems = {system["name"]: system["perplexity"]["general"]["nll"] for system in small_run.metrics["systems"]}
    score = (shared.tokenizer(), shared.GENERAL, small_run.variant.recipe.evaluation)
    recipe = small_run.variant.recipe
    base = models.load_base(recipe.base_model, recipe.quantization)  # its own: the adapter is folded into its copy
    assert perplexity(base, *score)["nll"] == pytest.approx(systems["base"], rel=1e-3)
    adapted = models.attach_adapter(base, small_run.variant.pretraining / "checkpoint-3")
    assert perplexity(adapted, *score)["nll"] == pytest.approx(systems["pretraining checkpoint-3"], rel=1e-3)
    assert len({round(nll, 2) for nll in systems.values()}) == len(systems)


def test_evaluation_is_done_once(small_run, monkeypatch):
    monkeypatch.setattr(evaluation, "GENERAL_TEXT", small_run.variant.root / "general.txt")
    monkeypatch.setattr(evaluation, "_evaluate", lambda *args: pytest.fail("evaluated twice"))
    assert evaluation.evaluate(small_run.variant) == small_run.metrics


def test_examples_side_by_side(small_run, predictions):
    path = small_run.variant.evaluation / "predictions.jsonl"
    table = examples(path, ["base", "finetuning checkpoint-3"], 5)
    assert list(table.columns) == ["question", "reference", "base", "finetuning checkpoint-3"]
    assert sorted(table.question) == sorted(question for question, _ in shared.PAIRS[:2])
    for row in predictions:
        if row["system"] in table:
            shown = table[table.question == row["question"]][row["system"]]
            assert list(shown) == [row["answer"]]


# --- serving ---------------------------------------------------------------------------------------------------------


def test_ask_answers_as_the_last_checkpoint(small_run, predictions):
    wanted = [row["answer"] for row in predictions if row["system"] == "finetuning checkpoint-3"]
    questions = [question for question, _ in shared.PAIRS[:2]]
    assert serving.ask(small_run.variant, questions) == wanted


def test_ask_answers_every_question(shallow_variant):
    from llama_qna.training import finetune, pretrain

    with pytest.raises(evaluation.UserError, match="run `llama-qna run small` first"):
        serving.ask(shallow_variant, ["Who?"])
    pretrain(shallow_variant), finetune(shallow_variant)
    answers = serving.ask(shallow_variant, ["Who?", "Where is the workshop?", "Why?"])
    assert [type(answer) for answer in answers] == [str, str, str]
