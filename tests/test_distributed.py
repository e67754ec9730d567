"""Tests of llama_qna/project/processes.py and of training in several processes, as torchrun starts them."""

import json
import os
import socket
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch

from llama_qna import UserError
from llama_qna.evaluation.protocols import evaluate
from llama_qna.pairs.qna import generate
from llama_qna.project import processes
from llama_qna.project.variant import REPOSITORY
from llama_qna.training.stages import finetune, pretrain
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture  # noqa: F401


@pytest.fixture
def process(monkeypatch):
    """Be one of several processes, as the launcher's environment says it: `process(rank, count)`."""

    def be(rank, count):
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count)):
            monkeypatch.setenv(name, str(value))

    return be


def test_one_process_is_the_first_of_one(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # left in a shell; without a rank no launcher started this process
    assert (processes.count(), processes.rank(), processes.local_rank()) == (1, 0, 0)
    assert processes.is_main() and not processes.sharded()
    assert processes.gather("a") == ["a"] and processes.from_main("a") == "a"
    assert processes.first(lambda: "a") == "a"
    with pytest.raises(OSError, match="full"), processes.entered_by_first(nullcontext()):
        raise OSError("full")
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("count", [5, 17])
def test_rows_that_cannot_be_shared_evenly_are_refused_before_loading(process, shallow_variant, monkeypatch, count):
    process(0, count)
    monkeypatch.setattr("llama_qna.training.stages.load_base", None)
    with pytest.raises(UserError, match="evenly"):
        pretrain(shallow_variant)
    assert not shallow_variant.pretraining.exists()


def test_split_model_is_refused_where_it_must_be_whole(process, shallow_variant, monkeypatch):
    process(0, 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    replayed = shared.write_variant(shallow_variant.root, shallow_variant.recipe.base_model, replay_tokens=128)
    with pytest.raises(UserError, match="replay_tokens"):
        pretrain(replayed)


def test_pairs_and_scores_are_the_work_of_one_process(process, shallow_variant, monkeypatch):
    process(0, 2)
    with pytest.raises(UserError, match="docs/scaling.md"):
        generate(shallow_variant)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    pretrain(shallow_variant), finetune(shallow_variant)
    process(0, 2)
    with pytest.raises(UserError, match="docs/scaling.md"):
        evaluate(shallow_variant)


def launch(root, count, *arguments):
    """The terminal in several processes as torchrun starts them, on loopback and one core each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torchrun = ["torch.distributed.run", "--nproc_per_node", str(count), "--master_addr", "127.0.0.1"]
    command = [sys.executable, "-m", *torchrun, "--master_port", port, "-m", "llama_qna", *arguments]
    told = {"LLAMA_QNA_ROOT": str(root), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=os.environ | told, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_two_processes_train_one_adapter(shallow_variant):
    """Two gloo processes share each step's rows; the loss falls as in one process, and one of them prints."""
    variant = shared.write_variant(
        shallow_variant.root, shallow_variant.recipe.base_model, batch_size=4, max_steps=6, save_steps=6
    )
    outcome = launch(variant.root, 2, "pretrain", variant.name)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    record = json.loads((variant.pretraining / "run.json").read_text())
    assert record["machine"]["processes"] == 2 and outcome.stdout.count("final loss") == 1
    losses = [row["loss"] for row in json.loads((variant.pretraining / "log.json").read_text())]
    (variant.pretraining / "run.json").unlink()
    pretrain(variant)
    alone = [row["loss"] for row in json.loads((variant.pretraining / "log.json").read_text())]
    assert losses[-1] < losses[0] and losses[-1] == pytest.approx(alone[-1], rel=0.1)


@pytest.mark.slow
def test_an_error_of_the_user_is_one_line(shallow_variant):
    outcome = launch(shallow_variant.root, 2, "finetune", shallow_variant.name)
    assert outcome.returncode and outcome.stderr.count("llama-qna: ") == 1
