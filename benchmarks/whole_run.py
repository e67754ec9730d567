"""What one `make run` took, stage by stage: read from the records of the run, and from the clock of the command.

    /usr/bin/time -f %e make run                         # in a fresh clone; note the seconds, and those of the set-up
    python -m benchmarks.whole_run SECONDS [VARIANT]     # SECONDS: without the set-up

Writes `benchmarks/results/run.json`, of which `benchmarks.report` makes a table.
"""

from __future__ import annotations

import json
import sys

from llama_qna.project.files import write_json
from llama_qna.project.variant import REPOSITORY, Variant

STAGES = ("load", "generate", "pretrain", "finetune", "evaluate", "figures")


def main(seconds: str, name: str = "paper_135m") -> None:
    folders = Variant.load(name).stage_folders
    found = {stage: json.loads((folders[stage] / "run.json").read_text(encoding="utf-8")) for stage in STAGES}
    about = {key: found["evaluate"][key] for key in ("git", "machine", "versions")}
    stages = {stage: record["seconds"] for stage, record in found.items()}
    date = found["evaluate"]["finished"][:10]
    path = REPOSITORY / "benchmarks" / "results" / "run.json"
    write_json(path, {"variant": name, "seconds": float(seconds), "seconds_of": stages, "date": date} | about)


if __name__ == "__main__":
    main(*sys.argv[1:])
