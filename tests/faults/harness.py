"""What the fault tests share: a tiny variant with all its stages, commands that can be killed, and what came out."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from llama_qna.project.variant import REPOSITORY, Variant
from tests import fixtures_models as shared

STAGES = ["load", "generate", "pretrain", "finetune", "finetune --without-pretraining", "evaluate", "figures"]
STEPS = {"max_steps": 9, "save_steps": 2, "logging_steps": 3, "batch_size": 2, "replay_tokens": 128}


class Commands:
    """`llama-qna` in forks of a process that has imported everything; one at a time."""

    def __init__(self, folder: Path):
        self.out, self.err = folder / "out", folder / "err"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            cwd=REPOSITORY,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, root: Path, *arguments: str, fault: str = "", **options) -> int:
        """Begin a command on the variants below `root`, with a fault of `injected` if named; its process id."""
        job = {"arguments": [*arguments], "environment": {"LLAMA_QNA_ROOT": str(root)}, "fault": fault}
        job |= {"options": options, "out": str(self.out), "err": str(self.err)}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """Wait for the end of the command; its exit status, negative for a signal."""
        return int(self.process.stdout.readline())

    def run(self, root: Path, *arguments: str, fault: str = "", **options) -> tuple[int, str]:
        """A whole command: exit status, and what it said on both streams."""
        self.start(root, *arguments, fault=fault, **options)
        return self.end(), self.said()

    def killed(self, root: Path, *arguments: str, after: float) -> int:
        """Begin a command and send SIGKILL after so many seconds; its exit status."""
        process = self.start(root, *arguments)
        timer = threading.Timer(after, _kill, [process])
        timer.start()
        status = self.end()
        timer.cancel()
        return status

    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


@pytest.fixture(scope="session", name="commands")
def commands_fixture(tmp_path_factory):
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture(scope="session", name="tiny_folder")
def tiny_folder_fixture(tmp_path_factory):
    """A random two-layer Llama with the embedded model's tokenizer, as a model folder."""
    folder = tmp_path_factory.mktemp("tiny")
    shared.tiny_llama().bfloat16().save_pretrained(folder)
    shared.tokenizer().save_pretrained(folder)
    return folder


def tiny_variant(root: Path, tiny_folder: Path, top: dict | None = None, **stage) -> Variant:
    """The variant `small` on the tiny model, with dropout and replay, whose random states a resumed run needs."""
    shared.write_variant(root, str(tiny_folder), top, gold=False, **STEPS | stage)
    path = root / "small/variant.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["lora"]["dropout"] = 0.1
    path.write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_QNA_ROOT", str(root))
        return Variant.load("small")


def results(variant: Variant) -> dict[str, bytes]:
    """Every file of the finished stages but the records, which hold times."""
    folders = [folder for folder in variant.stage_folders.values() if folder.exists()]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(variant.run)): path.read_bytes() for path in files}


def nothing_half_done(variant: Variant) -> None:
    """A folder with a stage's name is whole, whatever happened to the process that made it."""
    from llama_qna.project.stage import valid_record

    for stage, folder in variant.stage_folders.items():
        assert not folder.exists() or valid_record(folder, stage), f"{folder.name} looks finished"


def moments(seed: int, count: int, seconds: float) -> list[float]:
    """Random moments within the time that a command takes, most after its start."""
    chance = random.Random(seed)
    return [chance.uniform(0, seconds) for _ in range(count)]


def seconds_of(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
