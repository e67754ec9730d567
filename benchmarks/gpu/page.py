"""`docs/gpu.md` from the results of the proof."""

from __future__ import annotations

from benchmarks.gpu.steps import STEPS
from llama_qna.project.provenance import place
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.tables import markdown

PAGE = REPOSITORY / "docs" / "gpu.md"
HEAD = """\
# On a GPU

Made by `python -m benchmarks.gpu`: independent steps, each under 8 minutes in a process of its own; run it again with
the names of steps to add what is missing. Caps of memory are set on the card named in the last column, and are no
measurement of a smaller card. What each card would take by plan, computed and not measured: `llama-qna plan VARIANT
--gpu NAME`.

"""


def page(content: dict) -> str:
    """The page; a step without a result is an empty cell that says so."""
    rows = []
    for name, step in STEPS.items():
        found = content["steps"].get(name, {"passed": None, "said": "not run"})
        result = {True: "pass", False: "**fail**", None: ""}[found["passed"]]
        seconds = f"{found['seconds']:.0f}" if "seconds" in found else ""
        told = found.get("said") or _short(found["found"])
        rows.append([name, step.shows, result, seconds, told, place(found["machine"]) if "machine" in found else ""])
    return HEAD + markdown(["step", "what it shows", "result", "s", "found", "machine"], rows) + "\n"


def _short(found: dict) -> str:
    """What a step found, in a cell."""

    def words(value) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {words(part)}" for key, part in value.items())
        if isinstance(value, list):
            return " ".join(map(words, value)) or "none"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return "; ".join(f"{key}: {words(value)}" for key, value in found.items())
