"""Stages over several processes: the same rows in every step, and the same results as in one process."""

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import yaml
from datasets import Dataset
from llama_qna.training.distributed_stages import work_together
from llama_qna.training.shared_steps import shared_trainer
from torch.utils.data import RandomSampler, SequentialSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from llama_qna import UserError
from llama_qna.project import processes
from llama_qna.project import processes as processes_module
from llama_qna.project.processes import (
    announce,
    entered_by_first,
    first,
    from_main,
    gather,
    is_main,
    local_rank,
    mine,
    rows_each,
    sharded,
    shares,
    together,
)
from llama_qna.project.variant import REPOSITORY
from llama_qna.training.loss import Replay
from llama_qna.training.stages import pretrain
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture  # noqa: F401
from tests.test_losses import adapted, replayed


@pytest.fixture
def process(monkeypatch):
    """Be one of several processes, as the launcher's environment says it: `process(rank, count)`."""

    def be(rank, count):
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count)):
            monkeypatch.setenv(name, str(value))

    return be


# --- helpers ---------------------------------------------------------------------------------------------------------


def test_one_process_is_the_first_of_one(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # left in a shell; without a rank no launcher started this process
    assert (processes_module.count(), processes_module.rank(), local_rank()) == (1, 0, 0)
    assert is_main() and not sharded()
    assert gather("a") == ["a"] and from_main("a") == "a"
    assert first(lambda: "a") == "a"
    with pytest.raises(OSError, match="full"), entered_by_first(nullcontext()):
        raise OSError("full")
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [0, 1, 7, 8])
def test_items_are_dealt_out_and_come_together(process, items, count):
    parts = []
    for rank in range(count):
        process(rank, count)
        parts.append(mine(range(items)))
    assert together(parts) == list(range(items))
    split = shares(range(items), count)
    assert sum(split, []) == list(range(items))
    sizes = [len(share) for share in split]
    assert len(sizes) == count and sizes == sorted(sizes, reverse=True) and max(sizes) - min(sizes) <= 1


def test_rows_of_a_step_are_announced_once(process, capsys):
    process(0, 3)
    announce(8)
    process(1, 3)
    announce(8)
    assert capsys.readouterr().out == "3 processes share each step of 8 rows: 3, 3, 2\n"
    assert rows_each(8) == 3


def test_more_processes_than_rows_are_refused_before_loading(process, shallow_variant, monkeypatch):
    process(0, 17)
    monkeypatch.setattr("llama_qna.models.base.load_base", None)
    with pytest.raises(UserError, match="^17 processes for steps of 16 rows: start at most 16, or raise batch_size"):
        pretrain(shallow_variant)
    assert not shallow_variant.pretraining.exists()


def test_split_model_is_refused_where_it_must_be_whole(process, shallow_variant, monkeypatch, tmp_path):
    process(0, 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="evaluate needs the whole model"):
        work_together(shallow_variant, "evaluate", None, tmp_path)
    replayed = shared.write_variant(shallow_variant.root, shallow_variant.recipe.base_model, replay_tokens=128)
    with pytest.raises(UserError, match="replay_tokens needs the whole model"):
        work_together(replayed, "pretrain", None, tmp_path)
    assert work_together(shallow_variant, "pretrain", lambda folder: {"folder": folder}, tmp_path)["folder"] == tmp_path


# --- the rows of each step -------------------------------------------------------------------------------------------

LENGTHS = [5, 9, 2, 7, 7, 3, 8, 4, 6, 1, 9, 2, 5]


class Steps:
    """As much of a trainer as orders rows."""

    def __init__(self, sampling: str, accumulation: int):
        self.train_dataset = Dataset.from_list(
            [{"input_ids": [n] * m, "labels": [n] * m} for n, m in enumerate(LENGTHS)]
        )
        self.sampling, self.args = sampling, type("Arguments", (), {"gradient_accumulation_steps": accumulation})

    def _get_train_sampler(self, rows):
        if self.sampling == "by length":
            return LengthGroupedSampler(1, dataset=rows)  # the batch of one process
        return {"in order": SequentialSampler, "random": RandomSampler}[self.sampling](rows)


def batches(process, monkeypatch, count, accumulation, sampling, batch_size):
    """The batches of every process of an epoch, and the number of the blank row."""
    monkeypatch.setattr(processes, "from_main", lambda value: value)
    found = []
    for rank in range(count):
        process(rank, count)
        torch.manual_seed(3)
        trainer = shared_trainer(Steps, batch_size)(sampling, accumulation)
        sampler = trainer._get_train_sampler()
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    assert trainer.train_dataset[-1] == {"input_ids": [9], "labels": [-100]}
    return found, len(trainer.train_dataset) - 1


@pytest.mark.parametrize("sampling", ["in order", "by length", "random"])
@pytest.mark.parametrize(("count", "accumulation"), [(2, 1), (2, 2), (3, 1), (4, 1)])
def test_every_step_has_the_rows_of_one_process(process, monkeypatch, count, accumulation, sampling):
    torch.manual_seed(3)
    if sampling == "by length":
        order = list(LengthGroupedSampler(4, lengths=LENGTHS))
    else:
        generator = torch.Generator().manual_seed(3)  # accelerate draws each epoch anew from the seed
        rows = range(len(LENGTHS))
        order = torch.randperm(len(LENGTHS), generator=generator).tolist() if sampling == "random" else list(rows)
    found, blank = batches(process, monkeypatch, count, accumulation, sampling, batch_size=4)
    assert len({len(part) for part in found}) == 1
    for step, start in enumerate(range(0, len(LENGTHS), 4)):
        taken = [part[step * accumulation : (step + 1) * accumulation] for part in found]
        assert sorted(n for part in taken for rows in part for n in rows if n != blank) == sorted(
            order[start : start + 4]
        )
    assert [rows for part in found for rows in part if blank in rows] == [[blank]] * (
        count - 1
    )  # of 13 rows one is left


def test_parts_of_replay_add_up(process):
    model = adapted()
    whole = replayed(model, Replay(shared.tokenizer(), tokens=384, seed=1)).item()
    for count, accumulation in ((1, 2), (2, 1), (2, 2)):
        parts = 0.0
        for rank in range(count):
            process(rank, count)
            replay = Replay(shared.tokenizer(), tokens=384, seed=1)
            parts += sum(replayed(model, replay, accumulation).item() for _ in range(accumulation))
            assert not replay.due
        assert parts == pytest.approx(whole, rel=1e-4)


# --- two processes on a CPU ------------------------------------------------------------------------------------------

SCRIPT = """
import os, sys
from pathlib import Path
import trl
from llama_qna import cli, measuring

measuring.GENERAL_TEXT = Path(os.environ["LLAMA_QNA_ROOT"], "general.txt")
measuring.PUBLISHED |= {"max_new_tokens": 8}
if parts := int(os.environ.get("ACCUMULATION", "0")):
    plain = trl.SFTConfig

    def accumulating(**options):
        assert options["gradient_accumulation_steps"] == 1
        options["per_device_train_batch_size"] //= parts
        return plain(**options | {"gradient_accumulation_steps": parts})

    trl.SFTConfig = accumulating
sys.exit(cli.main(sys.argv[1:]))
"""


def launch(root, processes, *arguments, **environment):
    """The terminal in one process, or in several as torchrun starts them, on loopback and one core each."""
    script = root / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_addr", "127.0.0.1"]
    command = [sys.executable, *([] if processes == 1 else [*torchrun, "--master_port", port]), str(script), *arguments]
    told = {"LLAMA_QNA_ROOT": str(root), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=os.environ | told | environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All stages of one small variant, by one process that accumulates two batches a step and by two processes."""
    one = tmp_path_factory.mktemp("one")
    variant = shared.write_variant(
        one, top={"stacking": "continue"}, batch_size=6, max_steps=3, save_steps=3, replay_tokens=256
    )
    recipe = yaml.safe_load((variant.folder / "variant.yaml").read_text())
    recipe["chunking"] = {"chunk_size": 400, "chunk_overlap": 40}
    recipe["generation"] |= {"qna_file": None, "batch_size": 4, "min_score": -3.0, "attempts": 2}
    recipe["finetuning"]["replay_tokens"] = 0  # of a short step: one process would take its pieces in one batch
    (variant.folder / "variant.yaml").write_text(yaml.safe_dump(recipe))
    (one / "general.txt").write_text(shared.GENERAL)
    two = tmp_path_factory.mktemp("two")
    shutil.copytree(one, two, dirs_exist_ok=True)
    outcomes = launch(one, 1, "run", "small", ACCUMULATION="2"), launch(two, 2, "run", "small")
    for outcome in outcomes:
        assert outcome.returncode == 0, outcome.stderr[-3000:]
    return one / "runs/small", two / "runs/small", outcomes[1]


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.mark.slow
def test_two_processes_write_the_pairs_of_one(runs):
    one, two, _ = runs
    for name in ("qna.csv", "qna_rejected.csv"):
        assert (one / "qna" / name).read_bytes() == (two / "qna" / name).read_bytes()
    assert len((one / "qna/qna.csv").read_text().splitlines()) == 8  # 7 pairs: steps of six rows and of one
    keys = [sorted(json.loads(line)["entry"]["key"] for line in open(run / "qna.ledger")) for run in (one, two)]
    assert keys[0] == keys[1]  # nothing was written twice


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretraining_paper", "finetuning_qna_paper"])
def test_two_processes_have_the_loss_curve_of_one(runs, stage):
    one, two, _ = runs
    curves = [read(run / stage, "log.json") for run in (one, two)]
    assert len(curves[0]) == 3
    for ours, theirs in zip(*curves, strict=True):
        for row in (ours, theirs):
            del row["epoch"]  # transformers counts it in batches, of which accumulation makes more
        assert ours == pytest.approx(theirs, rel=1e-5)
    losses = [row["loss"] for row in curves[0]]
    assert min(losses) > 0 and len(set(losses)) == 3
    processes = [read(run / stage, "run.json")["machine"].get("processes") for run in (one, two)]
    assert processes == [None, 2]


@pytest.mark.slow
def test_two_processes_predict_what_one_does(runs):
    one, two, _ = runs
    predictions = [(run / "evaluation/predictions.jsonl").read_text().splitlines() for run in (one, two)]
    assert predictions[0] == predictions[1]
    rows = [json.loads(line) for line in predictions[0]]
    assert {row["protocol"] for row in rows} == {"in_sample", "dev", "test", "published"}
    assert {"finetuned", "finetuned_retrieval"} <= {row["system"] for row in rows}
    assert read(one / "evaluation", "metrics.json") == read(two / "evaluation", "metrics.json")


@pytest.mark.slow
def test_only_the_first_process_prints(runs):
    *_, outcome = runs
    assert outcome.stdout.count("2 processes share each step of 6 rows: 3, 3") == 2
    assert outcome.stdout.count("seconds per stage") == 1
    assert outcome.stderr.count("evaluating:   0%") == 1  # a bar may write its last line twice


@pytest.mark.slow
def test_an_error_of_the_user_is_one_line(runs):
    one, *_ = runs
    outcome = launch(one.parents[1], 2, "pretrain", "unknown")
    assert outcome.returncode != 0
    assert outcome.stderr.count("llama-qna: there is no variant 'unknown'") == 1
