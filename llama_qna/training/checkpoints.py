"""What makes a checkpoint valid, and which one to go on from.

Hugging Face's trainer writes a checkpoint file by file under its final name, takes the one with the highest number
unchecked, goes on without an optimizer in silence, and loads a flipped bit as a weight. Here a checkpoint is written
beside, synced and renamed, with the sha256 of every file, its step and the key of its stage in `manifest.json`; what
does not agree with its manifest is named and never used.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from llama_qna.models.lineage import checkpoints, step_of
from llama_qna.project.files import read_json, sha256, sync, write_json
from llama_qna.project.stage import note

MANIFEST = "manifest.json"
KEPT = ("adapter_model.safetensors", "adapter_config.json", "recipe.json")  # of a checkpoint of a finished stage
# what going on needs besides: optimizer, scheduler, random state, the trainer's and our own place in the run
STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "progress.json")
SCALER = "scaler.pt"  # where gradients are float16
# Checkpoints that keep their state. With two, a bad block in the newest one costs `save_steps` steps, and not the run.
RESUMABLE = 2


def seal(written: Path, checkpoint: Path, key: str) -> None:
    """Give a checkpoint that was written beside its manifest and its name; when this returns it is on the disk.

    Files that neither a resumed run nor a reader of the adapter needs are left out. Older checkpoints give up their
    state only now, and only when the new one reads back as it was written.

    Args:
        key: of the stage that the checkpoint belongs to.
    """
    for path in written.iterdir():
        if path.name not in (*KEPT, *STATE, SCALER):
            path.unlink()
    _write_manifest(written, step_of(checkpoint), key, [path.name for path in written.iterdir()])
    sync(written)
    written.rename(checkpoint)
    sync(checkpoint)
    if not problem(checkpoint, key):
        for older in checkpoints(checkpoint.parent)[:-RESUMABLE]:
            strip(older)


def strip(checkpoint: Path) -> None:
    """Take a valid checkpoint's state away, so that it holds the adapter alone; a kill in between leaves it valid."""
    manifest = read_json(checkpoint / MANIFEST)
    _write_manifest(checkpoint, manifest["step"], manifest["key"], KEPT, manifest["files"])
    for path in checkpoint.iterdir():
        if path.name not in (*KEPT, MANIFEST):
            path.unlink()


def _write_manifest(folder: Path, step: int, key: str, names, known: dict | None = None) -> None:
    # what was damaged since `known` was made must not be hashed anew, and so become right
    files = {name: known[name] if known else sha256(folder / name) for name in sorted(names)}
    write_json(folder / MANIFEST, {"step": step, "key": key, "files": files})


def problem(checkpoint: Path, key: str) -> str:
    """Why a checkpoint is not valid for a stage with this key, in a few words; nothing where it is valid."""
    try:
        manifest = read_json(checkpoint / MANIFEST)
        step, made_for, files = manifest["step"], manifest["key"], dict(manifest["files"])
    except FileNotFoundError:
        return f"no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MANIFEST} cannot be read"
    if made_for != key:
        return "made with another recipe or from other inputs"
    if step != step_of(checkpoint):
        return f"its manifest is of step {step}"
    if missing := [name for name in KEPT if name not in files]:
        return f"its manifest does not name {missing[0]}"
    for name, digest in files.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if sha256(checkpoint / name) != digest:
            return f"{name} is damaged"
    return ""


def newest(folder: Path, key: str) -> Path | None:
    """The newest valid checkpoint with its whole state, to go on from; None: begin at the first step.

    Every checkpoint that is not valid is named on stderr with the reason, and removed, as are those that an earlier run
    made after the one returned: going on makes them again.
    """
    start = None
    for checkpoint in reversed(checkpoints(folder)):
        if why := problem(checkpoint, key):
            print(f"{folder.name}: {checkpoint.name} is not used: {why}", file=sys.stderr)
            shutil.rmtree(checkpoint)
        elif start is None and set(STATE) <= set(read_json(checkpoint / MANIFEST)["files"]):
            start = checkpoint
    for checkpoint in checkpoints(folder):
        if start is None or step_of(checkpoint) > step_of(start):
            shutil.rmtree(checkpoint)
    for unfinished in folder.glob("checkpoint-*.partial"):
        shutil.rmtree(unfinished)
    return start


def results_of_training(folder: Path, key: str) -> dict | None:
    """The results of training that came to its end, of a stage that did not: what follows need not wait for it again.

    None where training did not end, or a checkpoint is no longer valid.
    """
    results = note(folder).get("trained")
    if not results or any(problem(folder / name, key) for name in results["checkpoints"]):
        return None
    return results
