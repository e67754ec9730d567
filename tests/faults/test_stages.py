"""Every stage: two at once, killed between two renames, stopped, short of disk, and fed with damaged results."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from llama_qna import UserError, cli
from llama_qna.documents.chunks import load
from llama_qna.models import lineage
from llama_qna.project import files
from llama_qna.project.data import QNA_COLUMNS
from llama_qna.project.files import LOCK, locked, sha256, whole_folder, write_json, write_text
from llama_qna.project.stage import check_output
from llama_qna.project.variant import REPOSITORY
from llama_qna.training.stages import finetune, pretrain
from tests.faults import injected
from tests.faults.harness import (  # noqa: F401
    commands_fixture,
    nothing_half_done,
    results,
    tiny_folder_fixture,
    tiny_variant,
)
from tests.faults.test_checkpoints import flip


@pytest.fixture
def variant(tiny_folder, tmp_path, monkeypatch):
    """The tiny variant, with nothing done."""
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(tmp_path))
    return tiny_variant(tmp_path, tiny_folder)


@pytest.fixture(scope="module")
def finished_root(commands, tiny_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    tiny_variant(root, tiny_folder)
    status, said = commands.run(root, "run", "small")
    assert status == 0, said
    assert commands.run(root, "finetune", "small", "--without-pretraining")[0] == 0
    return root


@pytest.fixture
def finished(finished_root, tiny_folder, tmp_path):
    shutil.copytree(finished_root, tmp_path / "finished")
    return tiny_variant(tmp_path / "finished", tiny_folder)


def lines(said):
    assert "Traceback" not in said, said
    return [line.removeprefix("llama-qna: ") for line in said.splitlines() if line.startswith("llama-qna: ")]


# --- one at a time ---------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from llama_qna.project import files
with files.locked(Path(sys.argv[1]), "small", Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(variant):
    """Another process that works on the variant."""
    command = [sys.executable, "-c", HOLDER, variant.run, variant.root]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("command", [["load", "small"], ["run", "small"]])
def test_second_process_is_refused_with_one_line(command, holder, variant, capsys):
    assert cli.main(command) == 2
    wanted = f"llama-qna: small is in use by another llama-qna (process {holder.pid}); wait for its end, or stop it\n"
    assert capsys.readouterr().err == wanted
    assert not variant.chunks.exists()


def test_lock_ends_with_a_killed_process(holder, variant):
    holder.kill()
    holder.wait()
    assert (variant.run / LOCK).exists(), "what a kill leaves"
    load(variant)
    assert [path.name for path in variant.run.iterdir()] == ["chunks"]


def test_lock_is_taken_once_by_a_process_and_leaves_nothing(variant):
    with locked(variant.run, "small", variant.root):
        load(variant)
        assert (variant.run / LOCK).exists()
    assert [path.name for path in variant.run.iterdir()] == ["chunks"]
    shutil.rmtree(variant.run)
    with locked(variant.run, "small", variant.root):
        pass
    assert not (variant.root / "runs").exists()


# --- a result and its name -------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(variant):
    """The stage `load` was done, and the recipe has changed since; returns the earlier bytes too."""
    load(variant)
    before = results(variant)
    path = variant.root / "small/variant.yaml"
    path.write_text(path.read_text().replace("chunk_size: 400", "chunk_size: 200"))
    return variant, before


def fork(work) -> int:
    """Call in a fork of this process; its exit status."""
    process = os.fork()
    if not process:
        try:
            os._exit(work() or 0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("call", [1, 2])
def test_killed_between_the_renames_keeps_the_earlier_result(call, loaded, capsys):
    """Before the old folder goes aside, and before the new one takes its name."""
    variant, before = loaded

    def work():
        injected.kill_at_rename(call)
        return cli.main(["load", "small"])

    assert fork(work) == -signal.SIGKILL
    path = variant.root / "small/variant.yaml"
    path.write_text(path.read_text().replace("chunk_size: 200", "chunk_size: 400"))
    assert cli.main(["load", "small"]) == 0
    assert "done before" in capsys.readouterr().out or call == 2
    assert results(variant) == before
    nothing_half_done(variant)
    load(variant)
    assert not list(variant.run.glob("*.old"))


def test_killed_after_the_renames_keeps_the_new_result(loaded):
    variant, before = loaded

    def work():
        injected.kill_at("project.files.mend", call=2)  # the first is before the work
        return cli.main(["load", "small"])

    assert fork(work) == -signal.SIGKILL
    nothing_half_done(variant)
    assert results(variant) != before
    assert cli.main(["load", "small"]) == 0
    assert sorted(path.name for path in variant.run.iterdir()) == ["chunks"]


def test_text_that_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    write_text(path, "old")
    injected.full_disk(0, monkeypatch.setattr)
    with pytest.raises(OSError):
        write_text(path, "new")
    assert path.read_text() == "old" and [found.name for found in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize("stands", [True, False])
def test_folder_of_two_processes_is_that_of_one_and_whole(stands, tmp_path):
    """What stood there before gives way to the last one; what nobody had is made by the first."""
    folder = tmp_path / "made" / "model"
    if stands:
        folder.mkdir(parents=True)
        (folder / "old").touch()

    def make(name):
        with whole_folder(folder) as new:
            (new / "weights").write_text(name)

    with whole_folder(folder) as new:
        assert fork(lambda: make("the child's")) == 0
        (new / "weights").write_text("ours")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "weights": "ours" if stands else "the child's"
    }
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_folder_that_was_not_finished_leaves_the_old_one_and_nothing_else(tmp_path):
    with whole_folder(tmp_path / "model") as new:
        (new / "weights").write_text("old")

    def work(end):
        with whole_folder(tmp_path / "model") as new:
            (new / "weights").write_text("new")
            end()

    assert fork(lambda: work(lambda: os.kill(os.getpid(), signal.SIGKILL))) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ZeroDivisionError):
        work(lambda: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "old"


def test_folder_that_an_earlier_process_of_our_number_left_goes(tmp_path):
    """In a container the first process is always number 1."""
    (tmp_path / f"model.partial-{os.getpid()}" / "model").mkdir(parents=True)
    with whole_folder(tmp_path / "model") as new:
        with whole_folder(tmp_path / "model.other"):
            (new / "weights").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.other"]


# --- stopped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stopped_run_resumes_with_the_same_bytes(number, variant, monkeypatch, capfd):
    """In this process: the signal comes within step 3 of 9, between two lines of the log and within an epoch."""
    from llama_qna.pairs.qna import generate

    load(variant)
    generate(variant)
    pretrain(variant)
    wanted = results(variant)
    shutil.rmtree(variant.pretraining)
    with monkeypatch.context() as patch:
        injected.send_at_step(3, number, patch.setattr)
        assert cli.main(["pretrain", "small"]) == 128 + number
    (line,) = lines(capfd.readouterr().err)
    assert line.startswith("small pretraining_paper: stopped at step 3 of 9; its checkpoint is kept: ")
    assert pretrain(variant)["results"]["resumed_from"] == "checkpoint-3"
    assert results(variant) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "stage, function",
    [
        ("load", "documents.read.read_folder"),
        ("generate", "pairs.own.read_qna_file"),
        ("evaluate", "evaluation.compare.summarize"),
        ("figures", "reporting.plot.save"),
    ],
)
def test_signal_in_a_stage_that_does_not_train(number, stage, function, commands, finished):
    wanted = results(finished)
    shutil.rmtree(finished.stage_folders[stage])
    status, said = commands.run(finished.root, stage, "small", fault="send_at", function=function, number=int(number))
    assert status == 128 + number, said
    assert lines(said) == ["stopped; what was finished is kept, and the same command goes on there"]
    nothing_half_done(finished)
    assert commands.run(finished.root, stage, "small")[0] == 0
    assert results(finished) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_a_notebook_that_trains(number, commands, tiny_folder, tmp_path):
    """The signal goes to `run --notebooks`; its kernel, a process of its own, saves a checkpoint before it ends."""
    variant = tiny_variant(tmp_path, tiny_folder, max_steps=5000, save_steps=5000)
    assert commands.run(tmp_path, "load", "small")[0] == 0
    run = subprocess.Popen(
        [sys.executable, "-m", "llama_qna", "run", "small", "--notebooks", "06_pretraining"],
        cwd=REPOSITORY, env=os.environ | {"LLAMA_QNA_ROOT": str(tmp_path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    said = b""
    while b"step/s" not in said and (piece := run.stderr.read1()):  # the bar of training, once steps were made
        said += piece
    run.send_signal(number)
    said = run.communicate(timeout=120)[1].decode()
    assert run.returncode == 128 + number, said
    assert said.splitlines()[-1] == "llama-qna: stopped; what was finished is kept, and the same command goes on there"
    [saved] = lineage.checkpoints(variant.pretraining.with_name(f"{variant.pretraining.name}.partial"))
    assert 0 < lineage.step_of(saved) < 5000
    nothing_half_done(variant)


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_disk_of_a_small_tmpfs(finished_root, tiny_folder, tmp_path):
    """A tmpfs that is filled but for 0 to 400 kB, before each stage; then emptied, and the stages come to their end."""
    namespace = ["unshare", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size=64m tmpfs {tmp_path}"
    if subprocess.run([*namespace, "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here: neither root nor user namespaces")
    script = f"{mount} && exec {sys.executable} -m tests.faults.full_disk {finished_root} {tmp_path}/root"
    done = subprocess.run(
        [*namespace, "sh", "-c", script],
        cwd=REPOSITORY,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    counts = dict(line.split(": ") for line in done.stdout.splitlines() if line.startswith(("refused", "finished")))
    assert int(counts["refused"]) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("function", ["evaluation.compare.summarize", "models.base.load_base"])
def test_out_of_memory_in_a_stage_that_does_not_train(function, commands, finished):
    shutil.rmtree(finished.evaluation)
    status, said = commands.run(finished.root, "evaluate", "small", fault="hungry_at", function=function)
    assert status == 2, said
    assert lines(said) == [
        "out of memory; what was finished is kept: lower batch_size in this stage's part of the recipe"
    ]
    nothing_half_done(finished)


# --- damaged results -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, commands_then, again",
    [
        ("finetuning_qna_paper/checkpoint-9/adapter_model.safetensors", [("ask", "Why?"), ("evaluate",)], "finetune"),
        ("pretraining_paper/merged/model.safetensors", [("ask", "Why?"), ("evaluate",), ("finetune",)], "pretrain"),
        ("pretraining_paper/checkpoint-4/adapter_model.safetensors", [("evaluate",)], "pretrain"),
    ],
)
def test_flipped_bit_in_finished_weights_is_never_loaded(name, commands_then, again, commands, finished):
    wanted = results(finished)
    flip(finished.run / name)
    for command, *words in commands_then:
        status, said = commands.run(finished.root, command, "small", *words)
        assert status == 2
        assert lines(said) == [f"{name} is damaged or missing: run `llama-qna {again} small` again"]
    status, said = commands.run(finished.root, "run", "small")
    assert status == 0, said
    assert results(finished) == wanted


def test_finished_weights_are_read_once_and_again_when_they_were_replaced(variant, monkeypatch):
    """Those of a merged 13B are 26 GB, and every question asks whether they are whole."""
    read, name, record = [], "merged/model.safetensors", variant.pretraining / "run.json"
    weights = variant.pretraining / name
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path) or sha256(path))
    weights.parent.mkdir(parents=True)
    weights.write_text("weights")
    record.write_text(json.dumps({"outputs": {name: sha256(weights)}}))
    for _ in range(2):
        check_output(variant, "pretrain", name)
    assert read == [weights]
    weights.with_name("beside").write_text("another")
    os.replace(weights.with_name("beside"), weights)
    with pytest.raises(UserError, match="damaged or missing"):
        check_output(variant, "pretrain", name)


@pytest.mark.parametrize(("seed", "again"), [(42, "finetune small"), (43, "repeat small --seeds 43")])
def test_output_that_is_missing_or_of_no_record_is_refused(seed, again, variant):
    recipe = variant.recipe.model_copy(update={"seed": seed})
    found = replace(variant, recipe=recipe, repeats_another=seed != variant.recipe.seed)
    folder = found.finetuning
    folder.mkdir(parents=True)
    said = f"{folder.name}/checkpoint-3/a is damaged or missing: run `llama-qna {again}` again"
    for record in (None, "{}", "[]", '{"outputs": {}}', "torn", '{"outputs": {"checkpoint-3/a": "hash"}}'):
        if record:
            (folder / "run.json").write_text(record)
        with pytest.raises(UserError, match=said):
            check_output(found, "finetune", "checkpoint-3/a")


def test_weights_without_a_record_of_what_they_stand_on_are_refused(variant):
    for file in (variant.pretraining / "merged/model.safetensors", variant.qna / "qna.csv"):
        file.parent.mkdir(parents=True)
        file.write_text(",".join(QNA_COLUMNS) + "\n")
    for folder in (variant.pretraining, variant.finetuning):
        (folder / "checkpoint-4").mkdir(parents=True)
        (folder / "checkpoint-4/adapter_model.safetensors").write_bytes(b"weights")

    def refused(folder, stage, work):
        said = f"{folder.name}/run.json is damaged or missing: run `llama-qna {stage} small` again"
        with pytest.raises(UserError, match=said):
            work(variant)

    refused(variant.pretraining, "pretrain", lineage.points_of)
    refused(variant.pretraining, "pretrain", finetune)
    names = ("merged/model.safetensors", "checkpoint-4/adapter_model.safetensors")
    outputs = {name: sha256(variant.pretraining / name) for name in names}
    write_json(variant.pretraining / "run.json", {"outputs": outputs})
    for record in (None, "torn", "[]", "{}"):
        if record:
            (variant.finetuning / "run.json").write_text(record)
        refused(variant.finetuning, "finetune", lineage.points_of)
