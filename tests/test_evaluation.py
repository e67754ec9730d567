"""The stage's files against its own predictions, and these against prompts and answers made anew."""

import hashlib
import json

import pytest

from llama_qna.evaluation import bench, compare, perplexity, protocols
from llama_qna.models import adapters, prompts
from llama_qna.models.base import EMBEDDED, load_base
from llama_qna.models.generate import generate_texts
from llama_qna.project.data import read_chunks
from llama_qna.project.gold import read_gold
from llama_qna.project.systems import FREE, LABELS
from llama_qna.text.scores import ROUGE_NAMES, rouge, score
from llama_qna.text.search import Search
from tests import fixtures_models as shared
from tests.fixtures_models import small_run_fixture  # noqa: F401

CHECKPOINTS = ["base", "pretraining checkpoint-2", "pretraining checkpoint-3"]
UNASKED = ("pretrained+passages", "finetuned_only+passages")  # for they have not learnt to read
SYSTEMS = [name for name in LABELS if name not in UNASKED]
ALONE = ["finetuning_only checkpoint-2", "finetuning_only checkpoint-3"]
CHECKPOINTS += ["finetuning checkpoint-2", "finetuning checkpoint-3"]


def read_predictions(variant):
    return [json.loads(line) for line in (variant.evaluation / "predictions.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture
def predictions(small_run):
    return read_predictions(small_run.variant)


@pytest.fixture
def gold(small_run):
    return read_gold(small_run.variant.gold, read_chunks(small_run.variant))


def of(predictions, protocol, system=None):
    """The answers of the models that were trained here, and of their base."""
    others = (*FREE, "reader")
    return [
        row for row in predictions
        if row["protocol"] == protocol and system in (None, row["system"]) and row["system"] not in others
    ]  # fmt: skip


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoints_in_order(small_run):
    found = small_run.metrics["checkpoints"]
    assert [checkpoint["name"] for checkpoint in found] == CHECKPOINTS
    steps = [("base", 0), ("pretraining", 2), ("pretraining", 3), ("finetuning", 2), ("finetuning", 3)]
    assert [(checkpoint["stage"], checkpoint["step"]) for checkpoint in found] == steps
    assert (small_run.metrics["variant"], small_run.metrics["base_model"]) == ("small", EMBEDDED)
    assert small_run.metrics["questions"] == {
        "in_sample": 2, "dev": 2, "test": 2, "source": "gold", "count": 4
    }  # fmt: skip
    written = json.loads((small_run.variant.evaluation / "metrics.json").read_text())
    assert written == small_run.metrics


def test_every_checkpoint_answers_the_sample_and_the_last_and_the_chosen_ones_all(small_run, predictions):
    whole = {found["name"] for found in small_run.metrics["checkpoints"] if found["whole"]}
    assert whole == {"base", "pretraining checkpoint-3", "finetuning checkpoint-3", small_run.metrics["chosen"]}
    for name in CHECKPOINTS:
        rows = of(predictions, "in_sample", name)
        asked = {(row["question"], row["reference"]) for row in rows}
        assert sum(row["sample"] for row in rows) == 1 and len(rows) == len(asked)
        assert asked == set(shared.PAIRS[:2]) if name in whole else len(asked) == 1
    assert len({row["question"] for row in of(predictions, "in_sample") if row["sample"]}) == 1, "the same for all"


def test_every_checkpoint_answers_the_dev_questions(predictions, gold):
    dev = [(row["system"], row["question_id"], row["checkpoint"]) for row in of(predictions, "dev")]
    wanted = gold[gold.fold == "dev"].question_id
    names = [*CHECKPOINTS[:3], *ALONE, *CHECKPOINTS[3:]]
    assert dev == [(name, question_id, name) for name in names for question_id in wanted]


def test_scores_are_means_of_the_predictions(small_run, predictions):
    for checkpoint in small_run.metrics["checkpoints"]:
        for protocol, scores in (("in_sample", checkpoint["rouge"]), ("dev", checkpoint["dev"])):
            rows = of(predictions, protocol, checkpoint["name"])
            assert scores == pytest.approx({name: sum(row[name] for row in rows) / len(rows) for name in scores})
    assert any(row["rouge1"] > 0 for row in of(predictions, "in_sample"))


def test_every_checkpoint_scores_the_same_tokens(small_run):
    text = (small_run.variant.chunks / "text.txt").read_text()
    assert (small_run.variant.chunks / "heldout.txt").read_text() == ""  # so that there is nothing to score
    wanted = {
        kind: len(prompts.text_ids(shared.tokenizer(), text)) - 1
        for kind, text in (("domain", text), ("general", shared.GENERAL))
    }
    sampled = [found["perplexity"]["domain"]["sample"]["tokens"] for found in small_run.metrics["checkpoints"]]
    assert len(set(sampled)) == 1 and 0 < sampled[0] < wanted["domain"]
    for checkpoint in small_run.metrics["checkpoints"]:
        scored = {kind: scores["tokens"] for kind, scores in checkpoint["perplexity"].items()}
        assert scored == wanted if checkpoint["whole"] else scored["domain"] == sampled[0]


def test_training_lowers_domain_perplexity(small_run):
    base, second, third, *_ = [found["sample"]["perplexity"]["domain"] for found in small_run.metrics["checkpoints"]]
    assert base > second > third


def test_checkpoint_scores_are_those_of_a_fresh_load(small_run):
    """The stage swaps adapters on one base; the base and a swapped checkpoint must score as if loaded alone."""
    found = {point["name"]: point["perplexity"]["general"]["nll"] for point in small_run.metrics["checkpoints"]}
    recipe = small_run.variant.recipe
    text = (shared.tokenizer(), shared.GENERAL, recipe.evaluation.window, recipe.evaluation.stride)
    base = load_base(recipe.base_model, recipe.quantization)  # its own: the adapter is folded into its copy
    assert perplexity.perplexity(base, *text)["nll"] == pytest.approx(found["base"], rel=1e-3)
    adapted = adapters.attach_adapter(base, small_run.variant.pretraining / "checkpoint-3")
    assert perplexity.perplexity(adapted, *text)["nll"] == pytest.approx(found["pretraining checkpoint-3"], rel=1e-3)
    assert len({round(nll, 2) for nll in found.values()}) == len(found)


# --- systems ---------------------------------------------------------------------------------------------------------


def test_systems_in_order(small_run, predictions):
    chosen, alone = (compare.best_on_dev(predictions, stage) for stage in ("finetuning", "finetuning_only"))
    assert chosen == small_run.metrics["chosen"] and chosen.startswith("finetuning checkpoint-") and alone in ALONE
    found = [(system["name"], system["checkpoint"], system["context"]) for system in small_run.metrics["systems"]]
    assert [name for name, *_ in found] == SYSTEMS
    assert [where for where in found if where[0] not in FREE] == [
        ("reader", "reader", "passages"),
        ("base", "base", "none"),
        ("pretrained", "pretraining checkpoint-3", "none"),
        ("finetuned_only", alone, "none"),
        ("finetuned", chosen, "none"),
        ("base+passages", "base", "retrieved"),
        ("finetuned+passages", chosen, "retrieved"),
        ("base+right_chunk", "base", "right chunk"),
    ]


def test_every_system_answers_every_test_question_once(predictions, gold):
    asked = list(gold[gold.fold == "test"].question_id)
    for system in SYSTEMS:
        found = [row for row in predictions if (row["protocol"], row["system"]) == ("test", system)]
        assert [row["question_id"] for row in found] == asked


def test_scores_are_those_of_the_answers(small_run, predictions):
    for row in of(predictions, "test"):
        wanted = score(row["answer"], row["reference"], row["variants"], row["question"], ended=not row["run_on"])
        assert {name: row[name] for name in wanted} == wanted
    assert {row["run_on"] for row in of(predictions, "test")} == {1.0}  # none of the answers fits four tokens
    for row in of(predictions, "published"):
        assert {name: row[name] for name in ROUGE_NAMES} == rouge(row["answer"], row["reference"], strip=False)


def test_retrieved_chunks_are_what_the_retriever_finds(small_run, predictions):
    table = read_chunks(small_run.variant)
    body = table[table.kind == "body"]
    retriever = Search(list(body.chunk_id), list(body.text))
    for system in ("base+passages", "finetuned+passages"):
        for row in of(predictions, "test", system):
            (wanted,) = retriever.search([row["question"]], 5)
            assert row["retrieved"] == [chunk_id for chunk_id, _ in wanted] != []
            assert row["shown"] == row["retrieved"][: len(row["shown"])] != []
    assert small_run.metrics["retrieval"]["recall@5"] == 1.0


def test_hashes_are_those_of_the_prompts(small_run, predictions, gold):
    """Built anew from a row's question and the chunks shown; the prompt with the right chunk holds the evidence."""
    table = read_chunks(small_run.variant)
    texts = dict(zip(table.chunk_id, table.text, strict=True))
    evidence = dict(zip(gold.question_id, gold.evidence, strict=True))
    hashes = {}
    for row in predictions:
        if row["system"] in FREE or row["system"] == "reader":
            continue
        context = row.get("context", "none")
        seen = [texts[chunk_id] for chunk_id in row.get("shown", [])]
        ids = prompts.fit_chunks(shared.tokenizer(), row["question"], seen, 900)[0]
        assert row["prompt_sha256"] == hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()[:16]
        assert shared.tokenizer().decode(ids).count("Text: ") == len(seen)
        assert len(seen) <= {"none": 0, "retrieved": 2, "right chunk": 1}[context]
        if context == "right chunk":
            assert evidence[row["question_id"]] in shared.tokenizer().decode(ids)
        hashes.setdefault((row["question"], context), set()).add(row["prompt_sha256"])
    assert all(len(found) == 1 for found in hashes.values())  # one prompt for every model


def test_evidence_in_an_overlap_makes_two_chunks_right(predictions):
    (row,) = [row for row in of(predictions, "test", "base") if row["question_id"] == "page-3"]
    assert row["chunk_ids"] == ["page-0001", "page-0002"]


# --- the study's protocol --------------------------------------------------------------------------------------------


def test_published_answers_are_sampled_and_the_same_again(small_run, predictions):
    assert [entry["name"] for entry in small_run.metrics["published"]] == ["base", "pretraining", "finetuning"]
    assert {row["system"] for row in of(predictions, "published")} == {"finetuning"}
    rows = of(predictions, "published", "finetuning")
    assert [row["reference"] for row in rows] == [f"Answer: {answer}" for _, answer in shared.PAIRS]
    ids = [prompts.question_ids(shared.tokenizer(), row["question"]) for row in rows]
    seeds = [f"{small_run.variant.recipe.seed} {row['question']}" for row in rows]

    variant = small_run.variant
    base = load_base(EMBEDDED, variant.recipe.quantization, weights=variant.pretraining / "merged")
    model = adapters.attach_adapter(base, variant.finetuning / "checkpoint-3")

    def answers(**more):
        limit = shared.SAMPLED_TOKENS
        return generate_texts(model, shared.tokenizer(), ids, max_new_tokens=limit, batch_size=4, **more)

    assert answers(temperature=0.6, seeds=seeds) == [row["answer"] for row in rows] != answers()


def test_published_perplexity_is_its_own_arithmetic(small_run):
    table = read_chunks(small_run.variant)
    found = perplexity.published_perplexity(shared.dequantized_base(), shared.tokenizer(), list(table.text))
    assert small_run.metrics["published"][0]["perplexity"] == pytest.approx(found, rel=1e-3)


# --- the stage as a whole --------------------------------------------------------------------------------------------


def test_evaluation_is_done_once(small_run, monkeypatch):
    monkeypatch.setattr(bench, "GENERAL_TEXT", small_run.variant.root / "general.txt")
    monkeypatch.setattr(protocols, "_evaluate", lambda *args: pytest.fail("evaluated twice"))
    assert protocols.evaluate(small_run.variant) == small_run.metrics
