"""What the scores of the published runs were worth: the first tables of docs/experiments.md.

    python -m benchmarks.lesson            the tables from benchmarks/results/lesson.json, into the page
    python -m benchmarks.lesson --measure  that file first, from the committed metrics of the two embedded variants

The file keeps the scores of the runs of which the page speaks; later runs are published without changing it.
"""

import argparse
from pathlib import Path

from benchmarks import marked
from llama_qna.project.files import read_json, write_json
from llama_qna.project.variant import REPOSITORY
from llama_qna.reporting.results import with_interval
from llama_qna.text.tables import markdown

RESULTS = Path(__file__).parent / "results" / "lesson.json"
PAGE = REPOSITORY / "docs" / "experiments.md"
VARIANTS = ("paper_135m", "physics_books_135m")
SCORES = ("right", "new_words_f1", "rougeL", "f1")
DIFFERENCES = [("finetuned", "base"), ("finetuned", "question"), ("base+passages", "base")]
DIFFERENCES += [("finetuned+passages", "best_sentence")]
BY_KIND = ("best_sentence", "base+right_chunk", "finetuned+passages", "gold_evidence")


def measured(variant: str) -> dict:
    """The scores of a published run that the tables show."""
    metrics, run = (read_json(REPOSITORY / variant / name) for name in ("metrics.json", "run.json"))
    systems = {system["name"]: system for system in metrics["systems"]}
    return {
        "finished": run["finished"],
        "questions": metrics["questions"]["test"],
        "systems": {
            name: {"label": system["label"], "checkpoint": system["checkpoint"]}
            | {score: system["scores"][score]["mean"] for score in SCORES}
            for name, system in systems.items()
        },
        "differences": [
            {"of": of, "against": against} | {score: systems[of]["against"][against][score] for score in SCORES}
            for of, against in DIFFERENCES
        ],
        "kinds": {
            kind: {"questions": found["questions"]}
            | {name: systems[name]["kinds"][kind]["right"]["mean"] for name in BY_KIND}
            for kind, found in systems["question"]["kinds"].items()
        },
    }


def tables(content: dict) -> str:
    """The tables in Markdown: every system on both documents, differences, and right answers by kind of question."""
    runs, labels = list(content.values()), {}
    for run in runs:
        labels |= {name: system["label"] for name, system in run["systems"].items()}
    names = ["right", "new words F1", "ROUGE-L", "F1"]
    rows = [[label, *(_cell(run, name, score) for score in SCORES for run in runs)] for name, label in labels.items()]
    head = ["system", *(f"{name}, {variant.split('_')[0]}" for name in names for variant in content)]
    signed = [
        [variant, labels[d["of"]], labels[d["against"]], *(with_interval(d[score], "+") for score in SCORES)]
        for variant, run in content.items() for d in run["differences"]
    ]  # fmt: skip
    kinds = [
        [variant, kind, *(_count(found[name], found["questions"]) for name in BY_KIND)]
        for variant, run in content.items() for kind, found in run["kinds"].items()
    ]  # fmt: skip
    return "\n\n".join([
        markdown(head, rows),
        markdown(["run", "of", "against", *names], signed),
        markdown(["run", "right, by kind", *(labels[name] for name in BY_KIND)], kinds),
    ])  # fmt: skip


def _cell(run: dict, name: str, score: str) -> str:
    value = run["systems"][name][score]
    return _count(value, run["questions"]) if score == "right" else f"{value:.3f}"


def _count(share: float, of: int) -> str:
    return f"{round(share * of)} of {of}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        write_json(RESULTS, {variant: measured(variant) for variant in VARIANTS})
    marked.write(PAGE, "lesson", tables(read_json(RESULTS)))
