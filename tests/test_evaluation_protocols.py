"""The stage `evaluate` without gold questions, by one protocol alone, and with bad input: two layers, three steps."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from llama_qna import cli
from llama_qna.documents.chunks import load
from llama_qna.evaluation import bench, perplexity, protocols
from llama_qna.models import adapters, prompts
from llama_qna.pairs.qna import generate
from llama_qna.project.data import read_qna
from llama_qna.project.generated import GENERATED
from llama_qna.project.systems import FREE
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import tables
from llama_qna.training.stages import finetune, pretrain
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture  # noqa: F401


@pytest.fixture(scope="module")
def trained_root(shallow_folder, tmp_path_factory):
    """The root of a shallow variant that is trained and not evaluated."""
    variant = shared.write_variant(tmp_path_factory.mktemp("trained"), str(shallow_folder))
    for stage in (load, generate, pretrain, finetune):
        stage(variant)
    return variant.root


@pytest.fixture
def trained(trained_root, tmp_path, monkeypatch):
    """A copy of it that a test may change."""
    root = shutil.copytree(trained_root, tmp_path / "root")
    shared.shorten_evaluation(monkeypatch, root)
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    yield Variant.load("small")
    shutil.rmtree(root)


def protocols_of(variant):
    lines = (variant.evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["protocol"] for line in lines}


def with_protocol(variant, protocol):
    settings = variant.recipe.evaluation.model_copy(update={"protocol": protocol})
    return dataclasses.replace(variant, recipe=variant.recipe.model_copy(update={"evaluation": settings}))


def with_passages(variant):
    """The variant as one whose fine-tuning shows passages."""
    stage = variant.recipe.finetuning.model_copy(update={"passages": "shares"})
    return dataclasses.replace(variant, recipe=variant.recipe.model_copy(update={"finetuning": stage}))


def test_no_gold_file_no_systems(trained):
    trained.gold.unlink()
    (trained.chunks / "heldout.txt").write_text("A section that nothing was trained on.")
    metrics = protocols.evaluate(trained)
    assert (metrics["chosen"], metrics["systems"], metrics["retrieval"]) == ("finetuning checkpoint-3", [], None)
    assert metrics["questions"] == {"in_sample": 2, "dev": 0, "test": 0}
    assert not any("dev" in checkpoint for checkpoint in metrics["checkpoints"])
    tokens = [{kind: text["tokens"] for kind, text in found["perplexity"].items()} for found in metrics["checkpoints"]]
    assert list(tokens[0]) == ["domain", "heldout", "general"] and len(tokens) == 5


@pytest.mark.slow
def test_pairs_kept_from_training_are_asked_where_there_are_no_gold_questions(trained, capsys):
    trained.gold.unlink()
    path = trained.qna / "qna.csv"
    kept = pd.read_csv(path, keep_default_na=False, dtype=str).tail(2).assign(split="heldout", chunk_id="page-0001")
    pd.concat([pd.read_csv(path).head(2), kept]).to_csv(path, index=False)
    metrics = protocols.evaluate(with_protocol(trained, "heldout"))
    source = {"source": GENERATED, "count": 2}
    assert metrics["questions"] == source | {"in_sample": 2, "dev": 1, "test": 1}
    assert [system["scores"]["evidence_right"]["mean"] for system in metrics["systems"][-1:]] == [1]
    assert GENERATED in tables.systems_table(metrics).columns[0]


def test_a_pair_that_was_too_long_to_train_on_is_not_asked(trained):
    pairs = read_qna(trained)
    longer = pairs.head(1).assign(Question=f"What {'and so on ' * trained.recipe.finetuning.max_length}?")
    at_work = bench.Bench(trained, pd.concat([longer, pairs]), None, {})
    assert [row["question"] for row, _ in at_work.in_sample("base")] == list(pairs.Question.head(2))
    assert list(at_work.trained_pairs.Question) == list(pairs.Question)


@pytest.mark.parametrize("name", ["chunks.csv", "text.txt", "heldout.txt"])
def test_other_chunks_are_evaluated_again(trained, monkeypatch, name):
    def work(*args):
        raise RuntimeError("evaluated again")

    def done(variant, points, pairs, questions, texts, folder):
        (folder / "metrics.json").write_text("{}")

    monkeypatch.setattr(protocols, "_evaluate", done)
    protocols.evaluate(trained)
    monkeypatch.setattr(protocols, "_evaluate", work)
    assert protocols.evaluate(trained) == {}
    with (trained.chunks / name).open("a") as file:
        file.write("\n")
    with pytest.raises(RuntimeError, match="evaluated again"):
        protocols.evaluate(trained)


def test_published_protocol_asks_no_gold_question(trained):
    metrics = protocols.evaluate(with_protocol(trained, "published"))
    assert protocols_of(trained) == {"in_sample", "published"}
    assert (metrics["chosen"], metrics["systems"]) == ("finetuning checkpoint-3", [])
    assert len(metrics["published"]) == 3


def test_heldout_protocol_leaves_the_study_out_and_old_checkpoints_of_fine_tuning_only(trained):
    """Without questions to choose on, the last checkpoint is reported."""
    shared.write_gold(trained.gold, [row for row in shared.GOLD if "test" in row])
    shutil.copytree(trained.finetuning, trained.finetuning_only)  # made by another stage
    metrics = protocols.evaluate(with_protocol(trained, "heldout"))
    assert metrics["published"] == [] and metrics["chosen"] == "finetuning checkpoint-3"
    names = ["base", "pretrained", "finetuned", "base+passages", "finetuned+passages", "base+right_chunk"]
    names = [*list(FREE)[:4], *names, "gold_evidence"]
    assert [system["name"] for system in metrics["systems"]] == names
    assert protocols_of(trained) == {"in_sample", "test"}


def test_unanswerable_questions_are_asked_with_passages_and_of_no_model(trained):
    rows = "question_id,Question,document,section,fold\nu1,Who paid for the moon?,page,1 Introduction,test\n"
    trained.unanswerable.write_text(rows)
    metrics = protocols.evaluate(with_protocol(trained, "heldout"))
    assert metrics["unanswerable"] == 1
    asked = {system["name"]: system["says_so"] for system in metrics["systems"] if system["says_so"]}
    assert list(asked) == [*list(FREE)[:4], "base+passages", "finetuned+passages"]
    assert asked["always_not"]["right"]["mean"] == asked["always_not"]["wrong"]["mean"] == 1
    assert "unanswerable.csv" in json.loads((trained.evaluation / "run.json").read_text())["inputs"]


def test_a_model_trained_with_passages_is_asked_by_the_answerer_and_scored_with_its_evidence(trained):
    metrics = protocols.evaluate(with_passages(with_protocol(trained, "heldout")))
    systems = {system["name"]: system for system in metrics["systems"]}
    system = systems["finetuned+passages"]
    assert (system["context"], system["checkpoint"]) == ("passages", metrics["chosen"])
    assert {"right", "new_words_f1", "evidence_right", "page_right", "answer_or_evidence"} <= set(system["scores"])
    assert {"base+passages", "best_sentence"} <= set(system["against"]) and "reader" not in systems


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture
def refused(trained, capsys):
    """Evaluate by the terminal; the complaint. There are no metrics after it, nor half of them."""

    def run():
        capsys.readouterr()
        assert cli.main(["evaluate", "small"]) == 2
        assert not trained.evaluation.exists()
        assert list(trained.run.rglob("metrics.json*")) == []
        return capsys.readouterr().err.splitlines()[-1].removeprefix("llama-qna: ")

    return run


@pytest.mark.parametrize("stage", ["pretraining", "finetuning"])
def test_checkpoint_of_another_base(trained, refused, stage):
    other = "meta-llama/Llama-2-7b-hf"
    adapters.name_base_in_adapter(getattr(trained, stage) / "checkpoint-2", other)
    base = trained.recipe.base_model
    assert refused() == f"{stage} checkpoint-2 was trained on {other}, but the recipe's base is {base}"


def test_gold_question_near_a_training_question(trained, refused):
    shared.write_gold(trained.gold, Question="What did the very first test show?")
    assert refused() == (
        "gold.csv, page-1: near the training question 'What did the first test show?'; `llama-qna run small` trains "
        "without it"
    )
    assert not list(trained.run.glob("evaluation*"))


def test_gold_row_without_its_evidence(trained, refused):
    shared.write_gold(trained.gold, evidence="The moon is made of cheese.")
    assert refused() == (
        "paper/gold.csv, row 1 (page-1): its evidence stands in no chunk of section '1 Introduction': "
        "'The moon is made of cheese.'"
    )
    assert not list(trained.run.glob("evaluation*"))


def test_empty_gold_file(trained, refused):
    trained.gold.write_text("")
    assert refused() == "paper/gold.csv: the gold file is empty"
    assert not list(trained.run.glob("evaluation*"))


@pytest.mark.parametrize("text", ["text", "study"])
def test_score_that_is_no_number(trained, refused, monkeypatch, text):
    if text == "text":
        found = perplexity.perplexity
        monkeypatch.setattr(
            perplexity, "perplexity", lambda *args, **more: found(*args, **more) | {"perplexity": math.nan}
        )
        what = "perplexity on domain text"
    else:
        monkeypatch.setattr(perplexity, "published_perplexity", lambda *args, **more: math.nan)
        what = "perplexity by the study's arithmetic"
    assert refused() == (f"small: {what} of base is nan, no number; look at the training log for a loss that exploded")
    assert not list(trained.run.glob("evaluation*"))


# --- WikiText-2 ------------------------------------------------------------------------------------------------------


def wanting_wikitext2(variant):
    settings = variant.recipe.evaluation.model_copy(update={"wikitext2": True})
    return dataclasses.replace(variant, recipe=variant.recipe.model_copy(update={"evaluation": settings}))


def test_wikitext2_is_measured_where_it_is_wanted(trained, monkeypatch):
    asked = []

    def load_dataset(*args, **more):
        asked.append((args, more))
        return {"text": [" = Robert Boulter = \n", "", " Robert Boulter is an actor . \n"]}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert list(bench.texts_of(trained)) == ["domain", "general"] and not asked
    variant = with_protocol(wanting_wikitext2(trained), "published")
    metrics = protocols.evaluate(variant)
    assert asked == [(("Salesforce/wikitext", "wikitext-2-raw-v1"), {"split": "test"})]
    text = " = Robert Boulter = \n\n\n\n\n Robert Boulter is an actor . \n"
    tokens = len(prompts.encode_document(shared.tokenizer(), text)) - 1
    assert [found["perplexity"]["wikitext2"]["tokens"] for found in metrics["checkpoints"]] == [tokens] * 5
    assert "WikiText-2" in metrics["protocols"]["perplexity"]
    assert "wikitext2 text" in json.loads((variant.evaluation / "run.json").read_text())["inputs"]
    assert list(tables.checkpoints_table(metrics).columns)[2:4] == ["perplexity, general", "perplexity, WikiText-2"]


def test_without_a_network_wikitext2_is_left_out_with_one_line(trained):
    """The real loader, in a process whose hub is a closed port of this machine."""
    program = """
import dataclasses, time
from llama_qna.evaluation import bench
from llama_qna.project.variant import Variant

time.sleep = lambda seconds: None  # between the attempts
small = Variant.load("small")
settings = small.recipe.evaluation.model_copy(update={"wikitext2": True})
recipe = small.recipe.model_copy(update={"evaluation": settings})
print(list(bench.texts_of(dataclasses.replace(small, recipe=recipe))))
"""
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(trained.root / "hub"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | nowhere, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    line, kinds = done.stdout.splitlines()
    assert line.startswith("WikiText-2 is left out: Salesforce/wikitext cannot be loaded from the hub (")
    assert kinds == "['domain', 'general']"


def test_nothing_fine_tuned_yet(trained, refused):
    shutil.rmtree(trained.finetuning)
    assert refused() == "no fine-tuned model yet for small: run `llama-qna finetune small` first"
