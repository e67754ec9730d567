"""What makes a checkpoint valid: files as a disk, a kill or a person may leave them."""

import json
import shutil

import pytest

from llama_qna.models import lineage
from llama_qna.project.files import write_json
from llama_qna.training import checkpoints
from llama_qna.training.checkpoints import KEPT, MANIFEST, STATE

KEY = "of this recipe"


def write(folder, step, key=KEY):
    """A checkpoint of small files, sealed as training does it."""
    written = folder / "scratch"
    written.mkdir(parents=True)
    for name in (*KEPT, *STATE, "training_args.bin"):
        (written / name).write_bytes(f"{name} of step {step}\n".encode() * 50)
    checkpoints.seal(written, folder / f"checkpoint-{step}", key)
    return folder / f"checkpoint-{step}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """The real fsync takes most of the time of these tests; one test looks at it."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def folder(tmp_path):
    """A stage's folder with checkpoints of steps 2, 4 and 6."""
    for step in (2, 4, 6):
        write(tmp_path / "stage.partial", step)
    return tmp_path / "stage.partial"


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_newest_valid_one_is_taken(folder, capsys):
    assert checkpoints.newest(folder, KEY) == folder / "checkpoint-6"
    assert capsys.readouterr().err == ""
    assert [path.name for path in lineage.checkpoints(folder)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


@pytest.mark.parametrize("name", [*KEPT, *STATE])
@pytest.mark.parametrize("damage, said", [(flip, "is damaged"), (cut, "is damaged"), ("unlink", "is missing")])
def test_damaged_file_is_named_and_the_one_before_is_taken(name, damage, said, folder, capsys):
    path = folder / "checkpoint-6" / name
    path.unlink() if damage == "unlink" else damage(path)
    assert checkpoints.newest(folder, KEY) == folder / "checkpoint-4"
    assert capsys.readouterr().err == f"stage.partial: checkpoint-6 is not used: {name} {said}\n"
    assert not (folder / "checkpoint-6").exists()


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "no manifest.json"),
        ("", "manifest.json cannot be read"),
        ('{"step": 6, "key"', "manifest.json cannot be read"),
        ("[]", "manifest.json cannot be read"),
        ("\0" * 300, "manifest.json cannot be read"),
        ('{"step": 6, "key": "of this recipe", "files": {}}', "its manifest does not name adapter_model.safetensors"),
        ('{"step": 4, "key": "of this recipe", "files": {}}', "its manifest is of step 4"),
        ('{"step": 6, "key": "other", "files": {}}', "made with another recipe or from other inputs"),
    ],
)
def test_manifest_that_is_missing_damaged_or_of_another(content, said, folder, capsys):
    (folder / "checkpoint-6" / MANIFEST).unlink()
    if content is not None:
        (folder / "checkpoint-6" / MANIFEST).write_text(content)
    assert checkpoints.newest(folder, KEY) == folder / "checkpoint-4"
    assert capsys.readouterr().err == f"stage.partial: checkpoint-6 is not used: {said}\n"


def test_every_single_bit_counts(folder):
    """A flip anywhere in the weights is found, at whatever place."""
    path = folder / "checkpoint-6" / KEPT[0]
    good = path.read_bytes()
    for n in range(0, len(good), 37):
        flip(path, n / len(good))
        assert checkpoints.problem(folder / "checkpoint-6", KEY) == f"{KEPT[0]} is damaged"
        path.write_bytes(good)
    assert checkpoints.problem(folder / "checkpoint-6", KEY) == ""


@pytest.mark.parametrize("name", STATE)
def test_never_goes_on_without_optimizer_scheduler_or_random_state(name, tmp_path):
    """A checkpoint that was made without one of them is whole, and still none to go on from."""
    checkpoint = write(tmp_path, 2)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    del manifest["files"][name]
    write_json(checkpoint / MANIFEST, manifest)
    (checkpoint / name).unlink()
    assert checkpoints.problem(checkpoint, KEY) == ""
    assert checkpoints.newest(tmp_path, KEY) is None
    assert not checkpoint.exists()


def test_all_damaged_begins_at_the_first_step(folder, capsys):
    for step in (2, 4, 6):
        cut(folder / f"checkpoint-{step}" / KEPT[0])
    assert checkpoints.newest(folder, KEY) is None
    assert capsys.readouterr().err.count("adapter_model.safetensors is damaged") == 3
    assert lineage.checkpoints(folder) == []


def test_two_checkpoints_keep_their_state_and_older_ones_the_adapter(folder):
    kept = {path.name: {file.name for file in path.iterdir()} for path in lineage.checkpoints(folder)}
    assert kept == {
        "checkpoint-2": {*KEPT, MANIFEST},
        "checkpoint-4": {*KEPT, *STATE, MANIFEST},
        "checkpoint-6": {*KEPT, *STATE, MANIFEST},
    }
    assert [checkpoints.problem(path, KEY) for path in lineage.checkpoints(folder)] == ["", "", ""]


def test_state_is_kept_while_the_new_checkpoint_is_not_valid(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "problem", lambda checkpoint, key: "it reads back otherwise")
    write(folder, 8)
    monkeypatch.undo()
    assert (folder / "checkpoint-4" / "optimizer.pt").exists()


@pytest.mark.parametrize("left", range(len(STATE) + 1))
def test_killed_while_state_is_taken_away(left, folder):
    """At whatever file: the checkpoint is valid, and either one to go on from or not."""
    checkpoint = folder / "checkpoint-4"
    kept = {name: (checkpoint / name).read_bytes() for name in STATE}
    checkpoints.strip(checkpoint)
    for name in STATE[:left]:  # those that the kill left
        (checkpoint / name).write_bytes(kept[name])
    assert checkpoints.problem(checkpoint, KEY) == ""
    assert checkpoints.newest(folder, KEY) == folder / "checkpoint-6"
    assert checkpoint.exists()


def test_damage_stays_found_when_the_state_is_taken_away(folder):
    flip(folder / "checkpoint-4" / KEPT[0])
    checkpoints.strip(folder / "checkpoint-4")
    assert checkpoints.problem(folder / "checkpoint-4", KEY) == f"{KEPT[0]} is damaged"


def test_what_a_kill_left_half_written_has_no_name_and_goes(folder):
    shutil.copytree(folder / "checkpoint-6", folder / "checkpoint-8.partial" / "checkpoint-8")
    (folder / "checkpoint-8.partial" / "checkpoint-8" / MANIFEST).unlink()
    assert checkpoints.newest(folder, KEY) == folder / "checkpoint-6"
    assert not (folder / "checkpoint-8.partial").exists()


def test_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("os.fsync", lambda file: seen.append((tmp_path / "checkpoint-2").exists()))
    write(tmp_path, 2)
    assert seen.count(False) >= len(KEPT) + len(STATE) + 1 and seen[-1]
