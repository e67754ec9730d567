"""Run the steps of the proof, each in a process of its own, and write what they found.

    python -m benchmarks.gpu                      every step, each under 8 minutes; steps that need a GPU wait for one
    python -m benchmarks.gpu preflight parity     only these; what was found before of the others stays

Writes `benchmarks/results/gpu.json`, and from it `docs/gpu.md`. A step that was not run is an empty cell that says why.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.page import PAGE, page
from benchmarks.gpu.steps import STEPS
from llama_qna.models.device import device
from llama_qna.project import provenance
from llama_qna.project.files import read_json, write_json, write_text
from llama_qna.project.variant import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results" / "gpu.json"
LIMIT = 480  # seconds of a step


def run(name: str, has_card: bool, limit: int = LIMIT) -> dict:
    """One step in a process of its own; its failure is a result too.

    Returns:
        `passed` (None: not run), `seconds`, and what it `found` or `said`.
    """
    if STEPS[name].needs_card and not has_card:
        return {"passed": None, "said": "not run: needs an NVIDIA GPU"}
    started = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.gpu", "--child", name]
    try:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        child = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=REPOSITORY, env=environment)
    except subprocess.TimeoutExpired:
        return {"passed": False, "seconds": limit, "said": f"not done in {limit} s"}
    seconds = round(time.perf_counter() - started, 1)
    if child.returncode:
        lines = child.stderr.strip().splitlines() or ["it said nothing"]
        return {"passed": False, "seconds": seconds, "said": lines[-1][:300]}
    return {"passed": True, "seconds": seconds, "found": json.loads(child.stdout.splitlines()[-1])}


def about() -> dict:
    """What a result was found with."""
    return {"machine": provenance.machine(), "git": provenance.git_state(), "versions": provenance.versions()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="in place of benchmarks/results/gpu.json")
    parser.add_argument("--child", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.steps) - set(STEPS):
        parser.error(f"there is no step {sorted(unknown)[0]!r}; there are: {', '.join(STEPS)}")
    if options.child:
        print(json.dumps(STEPS[options.child].work()))
        return 0
    content = read_json(options.results) if options.results.is_file() else {"steps": {}}
    has_card = device() != "cpu"
    for name in options.steps or STEPS:
        found = run(name, has_card)
        content["steps"][name] = found if found["passed"] is None else found | about()
        print(
            f"{name:28}{ {True: 'pass', False: 'FAIL', None: '-'}[found['passed']]:6}{found.get('said', '')}",
            flush=True,
        )
        write_json(options.results, content)
    if options.results == RESULTS:
        write_text(PAGE, page(content))
    return 1 if any(found["passed"] is False for found in content["steps"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
