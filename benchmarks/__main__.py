"""Measure every stage, or one: `python -m benchmarks [STAGE] [--rounds 3] [--size full|small] [--variant VARIANT]`.

The study's way and ours take turns, so that a slow moment of the machine meets both, each in a child process. Writes
`benchmarks/results/<machine>.json`, from which `benchmarks.report` makes the page and the figure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report
from benchmarks.job import SIZES
from benchmarks.measures import STAGES, WAYS, machine_name, summary
from llama_qna.project import provenance
from llama_qna.project.files import write_json
from llama_qna.project.variant import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
VARIANT = "paper_135m"
LARGER = "physics_books_135m"  # for pairs: the paper has too few chunks of body text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("stage", nargs="?", choices=list(STAGES), help="all of them if none is named")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", choices=list(SIZES), default="full", help="small: only to see that everything runs")
    told = f"its run must be complete on this machine (make run); without it {VARIANT}, for generation {LARGER}"
    parser.add_argument("--variant", help=told)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    options = parser.parse_args(arguments)
    measured, limits = {}, []
    for number in range(options.rounds):
        limits.append(run("limits", "-", options))
        for stage in [options.stage] if options.stage else STAGES:
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                print(f"round {number + 1} of {options.rounds}: {stage}, {WAYS[way]}", file=sys.stderr, flush=True)
                outcome = run(stage, way, options)
                if outcome is None:
                    return 1
                measured.setdefault(stage, {}).setdefault(way, []).append(outcome)
    path = write(options, measured, limits)
    print(summary(json.loads(path.read_text(encoding="utf-8"))))
    if options.size == "full" and options.results == RESULTS:
        if options.stage in (None, "training"):
            print("profile of a training step", file=sys.stderr, flush=True)
            subprocess.run(
                [sys.executable, "-m", "benchmarks.step_profile", options.variant or VARIANT],
                cwd=REPOSITORY,
                check=True,
            )
        report.write()
    return 0


def run(stage: str, way: str, options) -> dict | None:
    """One measurement in a child process; None if it failed, after its output was printed."""
    command = [sys.executable, "-m", "benchmarks.job", stage, way, variant_of(stage, options), options.size]
    child = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if child.returncode:
        print(child.stderr[-3000:] or child.stdout[-3000:], file=sys.stderr)
        return None
    return json.loads(child.stdout.strip().splitlines()[-1])


def variant_of(stage: str, options) -> str:
    return options.variant or (LARGER if stage == "generation" else VARIANT)


def write(options, measured: dict, limits: list[dict]) -> Path:
    """Put what was measured into the machine's file; other stages of the file stay, each with its own limits."""
    machine = provenance.machine()
    path = options.results / f"{machine_name(machine)}.json"
    known = json.loads(path.read_text(encoding="utf-8"))["stages"] if path.is_file() else {}
    about = {"size": options.size, "work": SIZES[options.size], "limits": limits}
    about |= {
        "date": datetime.now(UTC).date().isoformat(),
        "git": provenance.git_state(),
        "versions": provenance.versions(),
    }
    stages = known | {stage: about | {"variant": variant_of(stage, options)} | ways for stage, ways in measured.items()}
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(path, {"machine": machine, "stages": {stage: stages[stage] for stage in STAGES if stage in stages}})
    return path


if __name__ == "__main__":
    sys.exit(main())
