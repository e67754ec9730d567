"""`docs/gpu.md` from the results of the proof."""

from __future__ import annotations

from benchmarks.gpu.steps import STEPS
from llama_qna.project.provenance import place
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.tables import markdown

PAGE = REPOSITORY / "docs" / "gpu.md"
HEAD = """\
# On a GPU

{begin} lists the checks that are ready, and what each found where it ran.
What is listed after "Not run" was not tried on any machine. What each card would take by plan is computed by
`llama-qna plan VARIANT --gpu NAME` and stands in the READMEs of [paper_7b](../paper_7b/README.md),
[paper_13b](../paper_13b/README.md) and
[physics_mk_books_7b](../physics_mk_books_7b/README.md).

Made by `python -m benchmarks.gpu`: independent steps, each under 8 minutes in a process of its own; run it again with
the names of steps to add what is missing. A size in a step's name, such as 22GiB, is a cap on what the step may take of
whatever card it runs on; it is no measurement of a smaller card.

"""


def page(content: dict) -> str:
    """The page: a table of the steps that were run, and a list of the others."""
    rows, others, on_card = [], [], False
    for name, step in STEPS.items():
        if name not in content["steps"]:
            others.append(name)
            continue
        found = content["steps"][name]
        result = {True: "pass", False: "**fail**", None: ""}[found["passed"]]
        card = found["machine"]["gpu"] if "machine" in found else None
        on_card = on_card or bool(card)
        if found["passed"] and "machine" in found and not card:
            result = "no GPU found; passed on the CPU"
        seconds = f"{found['seconds']:.0f}" if "seconds" in found else ""
        told = found.get("said") or _short(found["found"])
        rows.append([name, step.shows, result, seconds, told, place(found["machine"]) if "machine" in found else ""])
    table = markdown(["step", "what it shows", "result", "s", "found", "machine"], rows)
    head = HEAD.format(begin="This page" if on_card else "Nothing here has run on a GPU yet. This page")
    return f"{head}{table}\n" + (f"\n**Not run:** {'; '.join(others)}.\n" if others else "")


def _short(found: dict) -> str:
    """What a step found, in a cell."""

    def words(value) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {words(part)}" for key, part in value.items())
        if isinstance(value, list):
            return " ".join(map(words, value)) or "none"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return "; ".join(f"{key}: {words(value)}" for key, value in found.items())
