"""Perplexity against plain re-computations, and the stage's files against its own predictions."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from llama_qna import evaluation, models, serving
from llama_qna.evaluation import examples, perplexity
from llama_qna.prompts import text_row
from llama_qna.variants import Evaluation
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture, small_run_fixture  # noqa: F401

TEXT = "The lid of the kettle weighs three kilograms, and <|im_end|> is only a word here. Its inventor was naïve. " * 3
ROUGE = ["rouge1", "rouge2", "rougeL"]


def settings(window, stride):
    return Evaluation(window=window, stride=stride, max_new_tokens=4, batch_size=4)


@pytest.fixture(scope="module")
def tiny():
    return shared.tiny_llama()


@pytest.fixture(scope="module")
def ids():
    return text_row(shared.tokenizer(), TEXT, 10_000)["input_ids"]


@torch.no_grad()
def token_by_token(model, ids, window, stride):
    """Nats of every token but the first, each from a forward of its own over the context that its window gives it."""
    nats = []
    for position in range(1, len(ids)):
        begin = 0
        while begin + window <= position:  # the first window that holds the token
            begin += stride
        logits = model(torch.tensor([ids[begin:position]])).logits[0, -1].float()
        nats.append(F.cross_entropy(logits, torch.tensor(ids[position])).item())
    return nats


# --- perplexity ------------------------------------------------------------------------------------------------------


def test_short_text_is_one_plain_forward():
    model, text = shared.float32_base(), TEXT[:150]
    ids = torch.tensor([text_row(shared.tokenizer(), text, 10_000)["input_ids"]])
    with torch.no_grad():
        nats = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).item()
    scores = perplexity(model, shared.tokenizer(), text, settings(window=512, stride=256))
    assert scores["perplexity"] == pytest.approx(math.exp(nats), rel=1e-4)
    assert scores["tokens"] == ids.shape[1] - 1


@pytest.mark.parametrize(("window", "stride"), [(2, 1), (8, 1), (16, 4), (16, 5), (16, 15), (60, 7), (1000, 500)])
def test_windows_equal_token_by_token(tiny, ids, window, stride):
    nats = token_by_token(tiny, ids, window, stride)
    scores = perplexity(tiny, shared.tokenizer(), TEXT, settings(window, stride))
    assert scores["tokens"] == len(ids) - 1 == len(nats)
    assert scores["nll"] == pytest.approx(sum(nats), rel=1e-4)
    assert scores["perplexity"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-3)


def test_windows_matter(tiny, ids):
    """Otherwise the test above would hold for any window."""
    assert sum(token_by_token(tiny, ids, 8, 1)) != pytest.approx(sum(token_by_token(tiny, ids, 60, 7)), rel=1e-3)


def test_text_that_fills_its_windows_exactly(tiny, ids):
    window = len(ids)
    scores = perplexity(tiny, shared.tokenizer(), TEXT, settings(window, window // 2))
    assert scores["nll"] == pytest.approx(sum(token_by_token(tiny, ids, window, window)), rel=1e-4)
    assert scores["tokens"] == window - 1


@pytest.mark.parametrize("stride", [16, 20])
def test_stride_that_leaves_tokens_out_scores_all_or_is_refused(tiny, ids, stride):
    """Windows side by side leave each one's first token without context; a longer stride skips tokens."""
    try:
        chosen = settings(window=16, stride=stride)
    except ValidationError as error:
        assert "stride" in str(error)
        return
    assert stride == 16, "a stride longer than the window skips tokens"
    assert perplexity(tiny, shared.tokenizer(), TEXT, chosen)["tokens"] == len(ids) - 1


@pytest.mark.parametrize(("window", "stride"), [(16, 4), (1000, 500)])
def test_uniform_model_has_the_vocabularys_perplexity(window, stride):
    model = shared.tiny_llama(seed=1)
    torch.nn.init.zeros_(model.lm_head.weight)
    scores = perplexity(model, shared.tokenizer(), TEXT, settings(window, stride))
    assert scores["perplexity"] == pytest.approx(49152, rel=1e-4)


def test_bits_per_byte_agrees_with_perplexity(tiny):
    scores = perplexity(tiny, shared.tokenizer(), TEXT, settings(16, 8))
    bits = scores["tokens"] * math.log2(scores["perplexity"])
    assert len(TEXT.encode()) > len(TEXT)  # bytes, not characters
    assert scores["bits_per_byte"] == pytest.approx(bits / len(TEXT.encode()))


def test_bits_per_byte_does_not_depend_on_the_tokenizer():
    """A uniform model over bytes has eight bits a byte, one over pairs of bytes as well (but for the first token)."""

    class Bytes:
        bos_token_id, all_special_tokens = None, []

        def __init__(self, width):
            self.width = width

        def __call__(self, text, **options):
            data = text.encode()
            pieces = [data[i : i + self.width] for i in range(0, len(data), self.width)]
            return {"input_ids": [int.from_bytes(piece, "big") for piece in pieces]}

    text = "abcd" * 64
    for width in (1, 2):
        model = shared.tiny_llama(vocabulary=256**width)
        torch.nn.init.zeros_(model.lm_head.weight)
        scores = perplexity(model, Bytes(width), text, settings(64, 32))
        assert scores["bits_per_byte"] == pytest.approx(8, rel=0.01)


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
