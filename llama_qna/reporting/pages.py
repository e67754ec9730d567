"""What the README and docs/results.md show of the published runs beside the long tables of `reporting.results`.

No number and no answer on those pages is typed by hand: each stands in a marked block (`project.marked`).
"""

from __future__ import annotations

from llama_qna.project.systems import NO_MODEL
from llama_qna.reporting.results import Run, cells, verdict, with_interval
from llama_qna.text.tables import markdown

FRONT = {
    "question": "the question itself, printed as the answer",
    "best_sentence": "the best sentence that a search (BM25) finds",
    "base": "base model, closed book",
    "finetuned": "fine-tuned on the documents, closed book",
    "reader": "reader, with passages",
    "gold_evidence": "ceiling: the sentence that proves the answer",
}
# in the order of the way of the model; a system that a run has not is left out
WORTH = ("question", "best_sentence", "base", "pretrained", "finetuned_only", "finetuned", "base+passages")
WORTH += ("pretrained+passages", "finetuned_only+passages", "finetuned+passages", "reader", "gold_evidence")
SAMPLED = {
    "base": "base, closed book",
    "finetuned": "fine-tuned, closed book",
    "finetuned+passages": "fine-tuned, with passages",
    "reader": "reader, with passages",
}
CORPORA = {"paper": "paper", "physics_reader": "physics books"}  # "reader" is the adapter


# --- the README ------------------------------------------------------------------------------------------------------


def front(runs: dict[str, Run], reader: dict) -> str:
    """The README's table, few rows and few digits, and two sentences on it.

    Args:
        reader: content of the reader's `metrics.json`.
    """
    chosen, systems, questions = _chosen(runs, reader)
    if not chosen:
        return "No run about the shipped documents is published."
    unanswerable = {corpus: run.metrics["unanswerable"] for corpus, run in chosen.items()}
    head = ["answered by", *(f"right, {CORPORA[corpus]} (of {asked})" for corpus, asked in questions.items())]
    head += [f"new words F1, {CORPORA[corpus]}" for corpus in chosen]
    head += [f"says so (of {sum(unanswerable.values())})"]
    rows = []
    for key, label in FRONT.items():
        of = {corpus: named[key] for corpus, named in systems.items() if key in named}
        if len(of) < len(chosen):
            continue  # a run has it not
        right = [str(_count(of[corpus], questions[corpus])) for corpus in chosen]
        new_words = [f"{of[corpus]['scores']['new_words_f1']['mean']:.2f}" for corpus in chosen]
        rows.append([label, *right, *new_words, _said(of, unanswerable)])
    return f"{markdown(head, rows)}\n\n{found(runs, reader)}"


def _chosen(runs: dict[str, Run], reader: dict) -> tuple[dict[str, Run], dict[str, dict], dict[str, int]]:
    """By corpus: the first run that was asked gold questions about it, its systems and the reader's, how many."""
    asked = [run for run in reversed(runs.values()) if run.metrics.get("systems")]
    first = {run.corpus: run for run in asked}
    chosen = {corpus: first[corpus] for corpus in CORPORA if corpus in first}
    systems = {corpus: _systems(run, reader[corpus]) for corpus, run in chosen.items()}
    return chosen, systems, {corpus: run.metrics["questions"]["test"] for corpus, run in chosen.items()}


def _systems(run: Run, reader: dict) -> dict[str, dict]:
    """Name -> system, of the reader's metrics and of a run's; what both have is the run's."""
    return {system["name"]: system for system in [*reader["systems"], *run.metrics["systems"]]}


def _count(system: dict, questions: int) -> int:
    return round(system["scores"]["right"]["mean"] * questions)


def _said(of: dict[str, dict], unanswerable: dict[str, int]) -> str:
    """How many unanswerable questions of all corpora a system refused; a dash where it was not asked them."""
    if not all(system["says_so"] for system in of.values()):
        return "-"
    return str(sum(round(system["says_so"]["right"]["mean"] * unanswerable[corpus]) for corpus, system in of.items()))


def found(runs: dict[str, Run], reader: dict) -> str:
    """Up to three sentences: the reader beside a plain search, the reader asked off the subject, and training."""
    _, systems, questions = _chosen(runs, reader)
    names = set.intersection(*(set(of) for of in systems.values())) if systems else set()
    right = {key: sum(_count(of[key], questions[corpus]) for corpus, of in systems.items()) for key in names}
    lines = []
    if {"reader", "best_sentence"} <= names:
        lines.append(
            f"The reader, trained on none of these documents, is right on {right['reader']} of "
            f"{sum(questions.values())} questions; the best sentence, printed as it is, on {right['best_sentence']}."
        )
    if other := reader.get("other_subjects"):
        said = round(other["says_so"] * other["questions"])
        lines.append(f"Asked about another subject, it says so {said} of {other['questions']} times.")
    if {"base", "finetuned"} <= names:
        lines.append(_closed_book(right, systems))
    return " ".join(lines)


def _closed_book(right: dict[str, int], systems: dict[str, dict]) -> str:
    """What training does to the model without passages; where it is never right, no difference is worth a word."""
    if right["base"] == right["finetuned"] == 0:
        return "Trained or not, the closed-book model has no right answer."
    differs: dict[str, list[str]] = {}  # verdict -> the corpora of which it is true
    for corpus, of in systems.items():
        differs.setdefault(verdict(of["finetuned"]["against"]["base"]["right"]), []).append(f"on the {CORPORA[corpus]}")
    said = ", ".join(f"{word} {' and '.join(where)}" for word, where in differs.items())
    before, after = right["base"], right["finetuned"]
    return f"Training on the documents takes the closed-book model from {before} right answers to {after}: {said}."


def examples(answers: list[dict]) -> str:
    """Three questions with the reader's own answers: one right, one wrong, one that the documents do not answer.

    Chosen by rule, of the test questions the shortest in question, answer and evidence together: that is right beside
    its gold sentence; whose answer has no right word, from another page; that is refused.

    Args:
        answers: lines of the reader's `predictions.jsonl`.
    """
    asked = [row for row in answers if row["system"] == "reader"]
    test = [row for row in asked if row["protocol"] == "test" and not row["says_so"]]
    refused = [row for row in asked if row["protocol"] == "test unanswerable" and row["says_so"]]
    right = [row for row in test if row["right"] and row["evidence_right"] and not row["copied"]]
    wrong = [row for row in test if not (row["right"] or row["page_right"] or row["new_words_f1"])]
    kinds = {"Right": right, "Wrong": wrong, "Not in the documents": refused}
    return "\n\n".join(_example(kind, min(rows, key=_length)) for kind, rows in kinds.items() if rows)


def _length(row: dict) -> int:
    return len(row["question"]) + len(row["answer"]) + len(row["evidence"] or "")


def _example(kind: str, row: dict) -> str:
    lines = [f"> *{kind}, {CORPORA[row['corpus']]}.* **{_plain(row['question'])}**", f"> {_plain(row['answer'])}"]
    if row["evidence"]:
        lines.append(f"> “{_plain(row['evidence'])}” ({row['document']}, page {row['evidence_page']})")
    if kind == "Wrong":
        lines.append(f"> (It should say: {_plain(row['reference'])})")
    return "  \n".join(lines)


def minutes(runs: dict[str, Run], seconds: dict[str, dict[str, float]]) -> str:
    """How long `make run` took, a line a variant.

    Args:
        seconds: variant -> notebook -> seconds of its published run.
    """
    return "\n".join(
        f"- `make run VARIANT={name}`: {sum(seconds[name].values()) / 60:.0f} minutes ({run.about})"
        for name, run in runs.items()
        if name in seconds
    )


def notebook_minutes(seconds: dict[str, dict[str, float]]) -> str:
    """A row a notebook, a column a variant: the minutes of its published run.

    Args:
        seconds: variant -> notebook -> seconds.
    """
    names = sorted({name for found in seconds.values() for name in found})
    rows = [[f"[{name}]({name}.ipynb)", *(_minutes(found.get(name)) for found in seconds.values())] for name in names]
    return markdown(["notebook", *seconds], rows)


def _minutes(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / 60:.1f}"


# --- docs/results.md -------------------------------------------------------------------------------------------------


def worth(runs: dict[str, Run], reader: dict) -> str:
    """For each corpus, the systems in the order in which training makes them, with what each is worth over its base.

    Args:
        reader: content of the reader's `metrics.json`.
    """
    head = ["run", "system", "right", "new words F1", "says so, unanswerable", "says so, answerable"]
    head += ["right, less its base", "right, less the best sentence"]
    parts = []
    for corpus in CORPORA:
        about = {name: run.metrics for name, run in runs.items() if run.corpus == corpus and run.metrics.get("systems")}
        about |= {"reader_135m": reader[corpus]} if corpus in reader else {}
        if rows := [_worth(name, system) for name, system in _in_order(about)]:
            parts.append(f"**On the {CORPORA[corpus]}**\n\n{markdown(head, rows)}")
    return "\n\n".join(parts)


def _in_order(metrics: dict[str, dict]) -> list[tuple[str, dict]]:
    """(run, system) in the order of `WORTH`; what no model stands behind, and the reader, once."""
    found: dict[tuple[int, str], tuple[str, dict]] = {}
    for run, content in metrics.items():
        for system in content["systems"]:
            if system["name"] in WORTH:
                once = system["context"] == NO_MODEL or system["name"] == "reader"
                place = (WORTH.index(system["name"]), "" if once else run)
                found.setdefault(place, ("" if once else run, system))
    return [found[place] for place in sorted(found)]


def _worth(run: str, system: dict) -> list[str]:
    against = {name: scores["right"] for name, scores in system["against"].items()}
    if system["context"] == NO_MODEL or system["name"] == "reader":  # the reader was trained on other texts
        against.pop("base", None)
    less = [with_interval(against[name], "+") if name in against else "-" for name in ("base", "best_sentence")]
    scores = cells(system["scores"], ("right", "new_words_f1")) + cells(system["says_so"], ("right", "wrong"))
    return [run or "-", system["label"], *scores, *less]


def samples(runs: dict[str, Run], reader: list[dict]) -> str:
    """For each run the first test question of every kind, with the reference and the systems' answers.

    Args:
        reader: lines of the reader's `predictions.jsonl`.
    """
    parts = []
    for name, run in runs.items():
        answers = [*run.answers, *(row for row in reader if row["corpus"] == run.corpus and row["protocol"] == "test")]
        given = {(row["system"], row["question_id"]): row["answer"] for row in reversed(answers)}
        kinds = {row.get("kind", ""): row for row in reversed(run.answers) if row["system"] == "base"}
        shown = [system for system in SAMPLED if any(system == of for of, _ in given)]
        rows = [
            [_plain(row["question"]), _plain(row["reference"])]
            + [_plain(given.get((system, row["question_id"]), "-")) for system in shown]
            for _, row in sorted(kinds.items())
        ]
        if rows:
            head = ["question", "reference", *(SAMPLED[system] for system in shown)]
            parts.append(f"**{name}** ({run.about})\n\n{markdown(head, rows)}")
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """An answer as a cell of a table: on one line, cut after 300 characters, nothing of it taken for markup."""
    text = " ".join(text.split())
    text = text if len(text) <= 300 else f"{text[:300].rsplit(' ', 1)[0]} …"
    for mark in "\\|<*_`[":
        text = text.replace(mark, f"\\{mark}")
    return text
