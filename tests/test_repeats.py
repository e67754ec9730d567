"""Training with other seeds at toy size: two layers, three steps; and the arithmetic of its table."""

import json
import math
import shutil
from statistics import fmean, stdev

import pytest

from llama_qna import UserError, cli, publish, repeat
from llama_qna.documents.chunks import load
from llama_qna.evaluation import protocols
from llama_qna.evaluation.compare import SCORES
from llama_qna.pairs.qna import generate
from llama_qna.project.data import read_metrics
from llama_qna.project.files import sha256
from llama_qna.project.variant import Variant
from llama_qna.reporting import tables
from llama_qna.training.stages import finetune, pretrain
from tests import fixtures_metrics
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture  # noqa: F401

pytestmark = pytest.mark.slow  # two more trainings


@pytest.fixture(scope="module")
def repeated(shallow_folder, tmp_path_factory):
    """A shallow variant that was evaluated and repeated, its own seed given too, and the other one twice."""
    root = tmp_path_factory.mktemp("repeated")
    variant = shared.write_variant(root, str(shallow_folder))
    with pytest.MonkeyPatch.context() as patch:
        shared.shorten_evaluation(patch, root)
        for stage in (load, generate, pretrain, finetune, protocols.evaluate):
            stage(variant)
        before = files(variant.run)
        content = repeat.repeat(variant, [42, 43, 43])
        assert {path: digest for path, digest in files(variant.run).items() if path in before} == before
        yield variant, content


def files(folder):
    return {path: sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_every_seed_is_scored_by_its_own_last_checkpoint(repeated):
    variant, content = repeated
    rows = [json.loads(line) for line in (variant.repeats / "predictions.jsonl").read_text("utf-8").splitlines()]
    seen = {(row["seed"], row["protocol"]): 0 for row in rows}
    assert list(seen) == [(seed, protocol) for seed in (42, 43) for protocol in ("in_sample", "test")]
    perplexities = {int(seed): texts for seed, texts in content["perplexity"].items()}
    assert repeat.summarize("small", perplexities, rows) == content
    assert content == json.loads((variant.repeats / "seeds.json").read_text())
    adapters = [variant.finetuning, variant.run / "seeds/43" / variant.finetuning.name]
    assert len({sha256(path / "checkpoint-3/adapter_model.safetensors") for path in adapters}) == 2
    assert len(set(content["scores"]["perplexity domain"]["seeds"].values())) == 2


def test_own_seed_scores_as_evaluate_says(repeated):
    variant, content = repeated
    last = read_metrics(variant)["checkpoints"][-1]
    for name, value in last["rouge"].items():
        assert content["scores"][f"in_sample {name}"]["seeds"]["42"] == pytest.approx(value)
    for text, found in last["perplexity"].items():
        assert content["perplexity"]["42"][text] == pytest.approx(found, rel=1e-3)


def test_chunks_and_pairs_are_the_variants(repeated):
    variant, _ = repeated
    assert {path.name for path in (variant.run / "seeds/43").iterdir()} == {
        variant.pretraining.name, variant.finetuning.name,
    }  # fmt: skip
    record = json.loads((variant.run / "seeds/43" / variant.finetuning.name / "run.json").read_text())
    assert (record["seed"], record["inputs"]["qna.csv"]) == (43, sha256(variant.qna / "qna.csv"))


def test_second_call_trains_and_scores_nothing(repeated, capsys):
    variant, content = repeated
    before = files(variant.run)
    assert repeat.repeat(variant, [43]) == content
    assert capsys.readouterr().out.count("done before") == 3
    assert files(variant.run) == before


def test_seeds_are_read_until_the_variant_is_trained_again(repeated, tmp_path, monkeypatch):
    variant, content = repeated
    assert repeat.read_seeds(variant) == content
    root = shutil.copytree(variant.root, tmp_path / "root")
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(root))
    again = Variant.load("small")
    with (again.finetuning / "checkpoint-3/adapter_model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert repeat.read_seeds(again) is None
    shutil.rmtree(again.finetuning)
    assert repeat.read_seeds(again) is None
    shutil.rmtree(root)


def test_seeds_are_published_beside_the_metrics(repeated):
    variant, content = repeated
    fixtures_metrics.pages(variant.root)
    written = {path.name for path in publish.publish(variant) if path.parent == variant.folder}
    assert written == {
        "seeds.json", "seeds.predictions.jsonl", "seeds.run.json", "metrics.json", "predictions.jsonl", "run.json",
        "MODEL_CARD.md",
    }  # fmt: skip
    assert json.loads((variant.folder / "seeds.json").read_text()) == content
    assert "Other seeds: small" in (variant.root / "docs/results.md").read_text()


@pytest.mark.parametrize("seeds", ["42", "-1", "5000000000"])
def test_seeds_that_repeat_nothing_are_refused(repeated, monkeypatch, capsys, seeds):
    variant, _ = repeated
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(variant.root))
    before = files(variant.root)
    assert cli.main(["repeat", "small", f"--seeds={seeds}"]) == 2
    said = "llama-qna: repeat needs seeds from 0 to 2147483647, other than the recipe's own, 42\n"
    assert capsys.readouterr().err == said
    assert files(variant.root) == before


def rows_of(seed, protocol, score):
    return [{"seed": seed, "protocol": protocol, "system": "s"} | dict.fromkeys(SCORES, score + n / 10) for n in (0, 1)]


TEXTS = {seed: {"general": {"perplexity": 40.0 + seed}} for seed in (1, 2, 4)}


def test_mean_and_standard_deviation():
    rows = [row for seed in TEXTS for protocol in ("test", "in_sample") for row in rows_of(seed, protocol, seed / 10)]
    found = repeat.summarize("small", TEXTS, rows)
    assert found["questions"] == {"test": 2, "in_sample": 2}
    values = [0.15, 0.25, 0.45]
    assert found["scores"]["test f1"] == {
        "seeds": pytest.approx({"1": 0.15, "2": 0.25, "4": 0.45}),
        "mean": pytest.approx(fmean(values)),
        "standard_deviation": pytest.approx(stdev(values)),
    }
    assert found["scores"]["perplexity general"]["seeds"] == {"1": 41.0, "2": 42.0, "4": 44.0}
    table = tables.seeds_table(found)
    assert list(table.training) == ["seed 1", "seed 2", "seed 4", "mean", "standard deviation"]
    assert list(table["ROUGE-L, held out"]) == ["0.150", "0.250", "0.450", "0.283", "0.153"]


def test_without_gold_questions_memory_alone_is_compared():
    found = repeat.summarize("small", TEXTS, [row for seed in TEXTS for row in rows_of(seed, "in_sample", 0.5)])
    assert found["questions"] == {"test": 0, "in_sample": 2}
    assert list(found["scores"]) == [f"in_sample rouge{n}" for n in "12L"] + ["perplexity general"]


def test_score_that_is_no_number():
    texts = TEXTS | {2: {"general": {"perplexity": math.inf}}}
    with pytest.raises(UserError, match="small: perplexity on general text of seed 2 is inf, no number"):
        repeat.summarize("small", texts, [row for seed in texts for row in rows_of(seed, "in_sample", 0.5)])
