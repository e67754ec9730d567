"""A stage is done once, whole or not at all, and `run.json` says what it read, wrote, cost and ran on.

A stage writes into `<folder>.partial` and the folder takes its name only when everything is there and on the disk,
`run.json` last. So a folder with its name is whole, and a stage that failed or was killed left the earlier result
untouched. One process at a time works on a variant, or one group of them, of which the first alone writes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from llama_qna import UserError
from llama_qna.project import files, processes
from llama_qna.project.code import code_hash
from llama_qna.project.provenance import git_state, machine, peak_memory_gb, versions
from llama_qna.project.variant import Variant

NOTE = "partial.json"  # in the folder of an unfinished stage: what it was begun for
ALONE = (
    "{stage} runs in one process; to write pairs or answers faster, let a server such as vLLM do it (docs/scaling.md)"
)
TOGETHER = ("pretrain", "finetune", "finetune_only")  # the stages that torchrun may start in several processes


def once(
    variant: Variant,
    stage: str,
    recipe: dict,
    inputs: dict[str, str],
    work: Callable[[Path], dict | None],
    resumes: bool = False,
) -> dict:
    """Do a stage unless this machine holds its result for the same recipe and the same inputs.

    Of several processes, which only training takes, the first one looks, locks, keeps the record and prints; they go on
    with nothing that an unfinished run left.

    Args:
        recipe: the parts of the recipe that the stage depends on.
        inputs: name and sha256 of everything that the stage reads.
        work: gets the folder to write into; what it returns is kept in the record under `results`.
        resumes: `work` can go on with what an earlier, unfinished run of the same stage left in the folder.

    Returns:
        The record, as it stands in `run.json`. `record["skipped"]` says whether the stage was done earlier.

    Raises:
        UserError: another process works on the variant, the disk is full, or torchrun started a stage that one process
            does alone.
    """
    if processes.count() > 1 and stage not in TOGETHER:
        raise UserError(ALONE.format(stage=stage))
    key = files.digest({"stage": stage, "recipe": recipe, "inputs": inputs, "code": code_hash(stage)})
    folder = variant.stage_folders[stage]
    if done := processes.first(lambda: _done(variant, stage, key)):
        return done
    with processes.entered_by_first(files.locked(variant.run, variant.name, variant.root)):
        processes.first(lambda: files.mend(folder))
        if done := processes.first(lambda: _done(variant, stage, key)):
            return done
        return _do(variant, stage, key, {"recipe": recipe, "inputs": inputs}, work, resumes)


def _done(variant: Variant, stage: str, key: str) -> dict | None:
    folder = variant.stage_folders[stage]
    record = valid_record(folder, stage)
    if not record or record["key"] != key or files.half_in_place(folder):
        return None
    print(f"{stage}: done before ({seconds_of(record):.0f} s, {record['finished']}), nothing has changed")
    return record | {"skipped": True}


def _do(variant: Variant, stage: str, key: str, asked: dict, work, resumes: bool) -> dict:
    folder = variant.stage_folders[stage]
    partial = folder.with_name(folder.name + ".partial")
    with files.said_when_full(partial):
        processes.first(lambda: _begin(partial, key, resumes))
        started, clock = datetime.now(UTC), time.perf_counter()
        try:
            results = work(partial) or {}
            processes.barrier()
        except BaseException:
            if processes.is_main() and {path.name for path in partial.iterdir()} <= {NOTE}:
                shutil.rmtree(partial)
            raise

        def record() -> dict:
            outputs = [path for path in sorted(partial.rglob("*")) if path.is_file() and path.name != NOTE]
            count = processes.count()
            content = {
                "stage": stage,
                "variant": variant.name,
                "seed": variant.recipe.seed,
                **asked,
                "results": results,
                "seconds": round(time.perf_counter() - clock, 2),
                "peak_memory_gb": peak_memory_gb(),
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "git": git_state(),
                "versions": versions(),
                "machine": machine() | ({"processes": count} if count > 1 else {}),
                "code": code_hash(stage),
                "outputs": {str(path.relative_to(partial)): files.sha256(path) for path in outputs},
                "key": key,
            }
            files.write_json(partial / "run.json", content)
            files.sync(partial)
            return content

        content = processes.first(record)
    processes.first(lambda: _finish(partial, folder))
    return content | {"skipped": False}


def _finish(partial: Path, folder: Path) -> None:
    files.put_in_place(partial, folder)
    (folder / NOTE).unlink()


@contextmanager
def amend(variant: Variant, stage: str) -> Iterator[Path]:
    """Let files of a finished stage be replaced in its folder; its record knows the new ones afterwards.

    After a kill in between the stage counts as not done.
    """
    folder = variant.stage_folders[stage]
    with files.locked(variant.run, variant.name, variant.root), files.said_when_full(folder):
        yield folder
        record = files.read_json(folder / "run.json")
        outputs = {name: files.sha256(folder / name) for name in record["outputs"]}
        files.write_json(folder / "run.json", record | {"outputs": outputs})


def _begin(partial: Path, key: str, resumes: bool) -> None:
    """Make the folder to write into; what is in it already stays if it was begun for the same key and can be used."""
    count = processes.count()
    shared = count > 1 or "processes" in note(partial)
    if partial.exists() and not (resumes and not shared and key in _begun_for(partial)):
        if resumes and shared:
            print(f"{partial.name}: only one process goes on, with a run of its own; what is there is discarded")
        elif resumes:
            print(f"{partial.name}: what an unfinished run of another recipe or input left there is discarded")
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    if not note(partial):
        files.write_json(partial / NOTE, {"key": key} | ({"processes": count} if count > 1 else {}))


def _begun_for(partial: Path) -> set:
    """The keys that an unfinished stage was begun for: its note's, or if that is damaged those of its checkpoints."""
    if known := note(partial).get("key"):
        return {known}
    found = set()
    for path in partial.glob("*/manifest.json"):
        try:
            found.add(files.read_json(path)["key"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def note(partial: Path) -> dict:
    """What an unfinished stage knows of itself: its `key`, and what its work has added with `add_to_note`."""
    try:
        found = files.read_json(partial / NOTE)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def add_to_note(partial: Path, **facts) -> None:
    files.write_json(partial / NOTE, note(partial) | facts)


def outputs_sha256(folder: Path) -> str:
    """The sha256 of all that a finished stage made; a stage done again with the same result keeps it."""
    return files.digest(files.read_json(folder / "run.json")["outputs"])


def sha256_once(path: Path) -> str:
    """The sha256 of a file, read once a process and again when it was replaced: weights may have many gigabytes."""
    found = path.stat()
    return _sha256(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=4096)
def _sha256(path: Path, *state: int) -> str:
    return files.sha256(path)


def check_output(variant: Variant, stage: str, name: str) -> None:
    """Refuse a file of a finished stage that is no longer what the stage wrote.

    Raises:
        UserError: with the file's name.
    """
    folder = variant.stage_folders[stage]
    path, record = folder / name, folder / "run.json"
    if path.is_file() and not record.exists():  # a person put it there, and nothing tells what it was
        return
    try:
        whole = sha256_once(path) == files.read_json(record)["outputs"][name]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{folder.name}/{name} is damaged or missing: run `{variant.again(stage)}` again")


def valid_record(folder: Path, stage: str) -> dict | None:
    """The record of a finished stage whose every output is still what it was, made by the code as it is; or None."""
    try:
        record = files.read_json(folder / "run.json")
        whole = all(sha256_once(folder / name) == digest for name, digest in record["outputs"].items())
        of_stage = record["stage"] == stage and record["code"] == code_hash(stage)
        return record if of_stage and whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def seconds_of(record: dict) -> float:
    """What a stage took by its `run.json`: of a training that went on, `seconds` are those of its last start alone."""
    return max(record["seconds"], (record.get("results") or {}).get("seconds_of_steps", 0.0))
