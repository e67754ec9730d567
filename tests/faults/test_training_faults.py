"""Training that is killed, stopped, out of memory, exploding or short of disk: what is lost, and what is said.

Each run is the real command on a tiny model with dropout, replay and rows grouped by length, in a process of its own.
"""

import json
import shutil
import signal

import pytest
from safetensors.torch import load_file

from tests.faults.harness import (  # noqa: F401
    commands_fixture,
    nothing_half_done,
    results,
    tiny_folder_fixture,
    tiny_variant,
)
from tests.faults.test_checkpoints import flip

pytestmark = pytest.mark.slow
PRETRAIN = ("pretrain", "small")


@pytest.fixture(scope="module")
def undisturbed(commands, tiny_folder, tmp_path_factory):
    """A root with chunks and pairs made, and what pretraining gives there when nothing happens; never changed."""
    root = tmp_path_factory.mktemp("undisturbed")
    variant = tiny_variant(root, tiny_folder)
    for command in ("load", "generate", "pretrain"):
        status, said = commands.run(root, command, "small")
        assert status == 0, said
    assert len(results(variant)) > 20
    return variant, results(variant)


@pytest.fixture
def variant(undisturbed, tiny_folder, tmp_path):
    """The same root without pretraining, to disturb."""
    root = tmp_path / "root"
    shutil.copytree(undisturbed[0].root, root)
    shutil.rmtree(root / "runs/small/pretraining_paper")
    return tiny_variant(root, tiny_folder)


def partial(variant):
    return variant.pretraining.with_name(variant.pretraining.name + ".partial")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def check_end(commands, variant, undisturbed, resumed_from):
    """The command again comes to its end, from that checkpoint, with the bytes of the undisturbed run."""
    status, said = commands.run(variant.root, *PRETRAIN)
    assert status == 0, said
    record = json.loads((variant.pretraining / "run.json").read_text())
    assert record["results"]["resumed_from"] == resumed_from
    assert results(variant) == undisturbed[1]
    assert names(variant.run) == ["chunks", "pretraining_paper", "qna"]
    return said


def one_line(said):
    """The last line, which must be the only complaint, and no traceback."""
    assert "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("llama-qna: ")]
    assert line == said.splitlines()[-1]
    return line.removeprefix("llama-qna: ")


# --- stopped and killed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, step", [(signal.SIGTERM, 3), (signal.SIGINT, 5), (signal.SIGTERM, 9)])
def test_signal_saves_and_says_how_to_go_on(number, step, commands, variant, undisturbed):
    """Within an epoch and between two lines of the log, at an epoch's end, and after the last step."""
    status, said = commands.run(variant.root, *PRETRAIN, fault="send_at_step", step=step, number=int(number))
    assert status == 128 + number
    assert one_line(said) == (
        f"small pretraining_paper: stopped at step {step} of 9; its checkpoint is kept: "
        "`llama-qna pretrain small` goes on there"
    )
    assert not variant.pretraining.exists()
    assert f"checkpoint-{step}" in names(partial(variant))
    check_end(commands, variant, undisturbed, f"checkpoint-{step}")


@pytest.mark.parametrize(
    "function, call, resumed_from",
    [
        ("training.checkpoints.seal", 1, None),
        ("training.checkpoints._write_manifest", 2, "checkpoint-2"),
        ("training.checkpoints.strip", 1, "checkpoint-6"),
        ("project.files.sync", 3, "checkpoint-2"),
        ("models.adapters.merge_adapter", 1, "checkpoint-8"),
        ("project.files.put_in_place", 1, None),
    ],
)
def test_killed_at_the_worst_moments(function, call, resumed_from, commands, variant, undisturbed):
    """While a checkpoint is written, synced or stripped, in the merge, and before the folder takes its name."""
    status, said = commands.run(variant.root, *PRETRAIN, fault="kill_at", function=function, call=call)
    assert status == -signal.SIGKILL, said
    nothing_half_done(variant)
    # training had ended, and is not done again
    if function in ("models.adapters.merge_adapter", "project.files.put_in_place"):
        resumed_from = None
        assert "trained" in json.loads((partial(variant) / "partial.json").read_text())
    check_end(commands, variant, undisturbed, resumed_from)


def test_flipped_bit_in_the_newest_checkpoint_costs_two_steps(commands, variant, undisturbed):
    commands.run(variant.root, *PRETRAIN, fault="send_at_step", step=6, number=int(signal.SIGTERM))
    flip(partial(variant) / "checkpoint-6" / "optimizer.pt")
    said = check_end(commands, variant, undisturbed, "checkpoint-4")
    assert "pretraining_paper.partial: checkpoint-6 is not used: optimizer.pt is damaged" in said


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "adapter_model.safetensors"])
def test_missing_file_in_the_newest_checkpoint(name, commands, variant, undisturbed):
    commands.run(variant.root, *PRETRAIN, fault="send_at_step", step=4, number=int(signal.SIGTERM))
    (partial(variant) / "checkpoint-4" / name).unlink()
    said = check_end(commands, variant, undisturbed, "checkpoint-2")
    assert f"checkpoint-4 is not used: {name} is missing" in said


def test_unfinished_run_of_another_recipe_is_discarded(commands, variant, tiny_folder, undisturbed):
    commands.run(variant.root, *PRETRAIN, fault="send_at_step", step=4, number=int(signal.SIGTERM))
    tiny_variant(variant.root, tiny_folder, learning_rate=2e-3)
    status, said = commands.run(variant.root, *PRETRAIN, fault="send_at_step", step=2, number=int(signal.SIGTERM))
    assert (
        "pretraining_paper.partial: what an unfinished run of another recipe or input left there is discarded" in said
    )
    assert names(partial(variant)) == ["checkpoint-2", "partial.json"]
    tiny_variant(variant.root, tiny_folder)
    check_end(commands, variant, undisturbed, None)


@pytest.mark.parametrize("content", [None, "", "torn {", "[]", "{}"])
def test_note_of_an_unfinished_run_is_damaged(content, commands, variant, undisturbed):
    """The checkpoints say themselves what they were made for."""
    commands.run(variant.root, *PRETRAIN, fault="send_at_step", step=4, number=int(signal.SIGTERM))
    note = partial(variant) / "partial.json"
    note.unlink() if content is None else note.write_text(content)
    check_end(commands, variant, undisturbed, "checkpoint-4")


def test_checkpoint_of_another_recipe_is_not_used(commands, variant, undisturbed):
    """Copied into the folder by a person: its manifest says what it was made for."""
    commands.run(variant.root, *PRETRAIN, fault="send_at_step", step=4, number=int(signal.SIGTERM))
    stranger = partial(variant) / "checkpoint-4"
    manifest = json.loads((stranger / "manifest.json").read_text())
    (stranger / "manifest.json").write_text(json.dumps(manifest | {"key": "another"}))
    said = check_end(commands, variant, undisturbed, "checkpoint-2")
    assert "checkpoint-4 is not used: made with another recipe or from other inputs" in said


@pytest.mark.parametrize("stage", [{"packing": True}, {"replay_tokens": 0, "epochs": 2, "max_steps": -1}])
def test_other_orders_of_rows_resume_too(stage, commands, variant, tiny_folder):
    """Packed blocks in a random order; as many steps as two epochs make."""
    tiny_variant(variant.root, tiny_folder, **stage)
    assert commands.run(variant.root, *PRETRAIN)[0] == 0
    wanted = results(variant)
    last = json.loads((variant.pretraining / "run.json").read_text())["results"]["steps"]
    for step in sorted({1, last // 2, last - 1} - {0}):
        shutil.rmtree(variant.pretraining)
        status, said = commands.run(variant.root, *PRETRAIN, fault="send_at_step", step=step, number=15)
        assert status == 143, said
        assert commands.run(variant.root, *PRETRAIN)[0] == 0
        assert results(variant) == wanted, step


# --- a loss that explodes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss, said", [(float("nan"), "nan"), (float("inf"), "inf"), (1e6, "1e+06")])
def test_exploded_loss_stops_at_the_step(loss, said, commands, variant):
    status, output = commands.run(variant.root, *PRETRAIN, fault="loss_at_step", step=5, loss=loss)
    assert status == 2
    assert one_line(output) == (
        f"small pretraining_paper: the loss became {said} at step 5; try a lower learning_rate "
        "(checkpoint-4 from before is kept in pretraining_paper.partial)"
    )
    assert names(partial(variant)) == ["checkpoint-2", "checkpoint-4", "partial.json"]
    weights = load_file(partial(variant) / "checkpoint-4" / "adapter_model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())
    assert not variant.pretraining.exists()


# --- memory ----------------------------------------------------------------------------------------------------------


def test_out_of_memory_lowers_the_micro_batch(commands, variant, tiny_folder, undisturbed):
    """The effective batch stays: the losses are those of the undisturbed run but for the rounding of sums."""
    tiny_variant(variant.root, tiny_folder, replay_tokens=256, batch_size=4, logging_steps=1)
    assert commands.run(variant.root, *PRETRAIN)[0] == 0
    wanted = json.loads((variant.pretraining / "log.json").read_text())
    shutil.rmtree(variant.pretraining)
    status, said = commands.run(variant.root, *PRETRAIN, fault="little_memory", rows=2)
    assert status == 0, said
    assert "out of memory (" in said and "; on with 2 of 4 rows at once, their gradients added up" in said
    record = json.loads((variant.pretraining / "run.json").read_text())["results"]
    assert (record["rows_at_once"], record["steps"]) == (2, 9)
    log = json.loads((variant.pretraining / "log.json").read_text())
    assert [row["step"] for row in log] == [row["step"] for row in wanted]  # a part of an epoch is counted in halves
    # dropout draws other masks, and sums are rounded otherwise
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted], rel=0.05)


def test_out_of_memory_with_one_row_gives_up(commands, variant):
    status, said = commands.run(variant.root, *PRETRAIN, fault="little_memory", rows=0)
    assert status == 2
    assert "; on with 1 of 2 rows at once" in said
    line = one_line(said)
    assert line.startswith("small pretraining_paper: out of memory with one row at a time (")
    assert line.endswith("; lower max_length")
    assert not variant.pretraining.exists()


def test_resumed_run_keeps_its_micro_batch(commands, variant, tiny_folder):
    tiny_variant(variant.root, tiny_folder, batch_size=4)
    commands.run(variant.root, *PRETRAIN, fault="little_memory", rows=2)
    wanted = results(variant)
    shutil.rmtree(variant.pretraining)
    status, _ = commands.run(variant.root, *PRETRAIN, fault="little_memory_and_kill", rows=2, saves=2)
    assert status == -signal.SIGKILL
    status, said = commands.run(variant.root, *PRETRAIN, fault="little_memory", rows=2)
    assert status == 0 and "out of memory" not in said
    assert results(variant) == wanted


# --- disk ------------------------------------------------------------------------------------------------------------


def test_disk_need_is_known_before_the_first_step(commands, variant):
    status, said = commands.run(variant.root, *PRETRAIN, fault="little_disk", free=10**6)
    assert status == 2
    line = one_line(said)
    assert line.startswith("small pretraining_paper: its 5 checkpoints and the merged model needs ")
    assert line.endswith(" MB of disk, and 1.0 MB are free: make room, and start again")
    assert names(variant.run) == ["chunks", "qna"]


@pytest.mark.parametrize("after", [0, 2, 14, 60])
def test_write_that_finds_the_disk_full(after, commands, variant, undisturbed):
    """At the note, in the first checkpoint, and later: nothing looks finished that is not, and the run goes on."""
    status, said = commands.run(variant.root, *PRETRAIN, fault="full_disk", after=after)
    assert status == 2
    assert one_line(said) == (
        "the disk is full: pretraining_paper.partial could not be written to its end, and nothing there is taken as "
        "finished; make room, and start again"
    )
    nothing_half_done(variant)
    assert not variant.pretraining.exists()
    status, said = commands.run(variant.root, *PRETRAIN)
    assert status == 0, said
    assert results(variant) == undisturbed[1]
