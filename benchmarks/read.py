"""What judges made of the test answers of the reader, of the sentences that it shows, and of the best sentence.

Two language models that had written none of the answers read them, mixed and without the systems' names, beside
reference and evidence: `data/<corpus>/answers_audit.csv`. Each verdict is tied to question and answer by their hash;
a table of docs/results.md comes of it.

    python -m benchmarks.read
"""

from __future__ import annotations

import hashlib
from statistics import fmean

import pandas as pd

from llama_qna.evaluation.intervals import difference
from llama_qna.project import marked
from llama_qna.project.files import read_lines
from llama_qna.project.systems import LABELS
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.right import is_right
from llama_qna.text.tables import markdown

PAGE = REPOSITORY / "docs" / "results.md"
CORPORA = {"paper": "paper", "physics_reader": "physics books"}
SHOWN = "shown"  # what the reader shows beside its answer
SYSTEMS = {"best_sentence": LABELS["best_sentence"], "reader": "reader, its answer"}
SYSTEMS |= {SHOWN: "reader, the sentence that it shows"}
JUDGES = ["judge_1", "judge_2"]
VERDICTS = ("right", "partly", "wrong")


def answer_hash(question: str, answer: str) -> str:
    """What ties a verdict to what was judged: 16 hexadecimal digits."""
    return hashlib.sha256(f"{question}\n{answer}".encode()).hexdigest()[:16]


def judged(corpus: str) -> pd.DataFrame:
    """The test answers about a corpus, each with its verdicts and with what the rule says (`right`).

    A refusal shows no sentence, and counts as wrong.

    Raises:
        KeyError: an answer was not judged.
    """
    verdicts = pd.read_csv(REPOSITORY / "data" / corpus / "answers_audit.csv", index_col="sha256")
    known = read_lines(REPOSITORY / "reader_135m" / "predictions.jsonl")
    rows = [row for row in known if (row["corpus"], row["protocol"]) == (corpus, "test")]
    answers = [row for row in rows if row["system"] in SYSTEMS]
    answers += [row | {"system": SHOWN, "answer": row["evidence"] or row["answer"]} for row in rows if _reads(row)]
    found = pd.DataFrame(answers)[["system", "question", "answer", "variants", "reference", "section"]]
    found["right"] = [is_right(row.answer, [row.reference, *row.variants], row.question) for row in found.itertuples()]
    keys = [answer_hash(row.question, row.answer) for row in found.itertuples()]
    return found.join(verdicts.loc[keys, JUDGES].reset_index(drop=True))


def _reads(row: dict) -> bool:
    return row["system"] == "reader"


def table() -> str:
    """By corpus and system: the mean of both judges' counts, how often they agree, and what the rule counts."""
    rows = []
    for corpus, name in CORPORA.items():
        answers = judged(corpus)
        for system, label in SYSTEMS.items():
            found = answers[answers.system == system]
            counts = [f"{(found[JUDGES] == verdict).sum().mean():g}" for verdict in VERDICTS]
            same = f"{(found.judge_1 == found.judge_2).mean():.0%}"
            rows.append([name, label, str(len(found)), *counts, same, f"{found.right.sum():g}"])
        by_question = answers[answers.system != "best_sentence"].groupby("question")
        either = fmean(by_question[judge].agg(lambda said: "right" in set(said)).sum() for judge in JUDGES)
        rows.append([name, "reader, either of the two", str(len(by_question)), f"{either:g}", "-", "-", "-", "-"])
    return markdown(["corpus", "system", "answers", *VERDICTS, "judges agree", "right by the rule"], rows)


def paired() -> str:
    """How many more of the sentences shown than of the best sentences hold the answer, by both judges."""
    answers = pd.concat(judged(corpus) for corpus in CORPORA)
    shown, best = (answers[answers.system == system].sort_values("question") for system in (SHOWN, "best_sentence"))
    counts = [(found[JUDGES] == "right").mean(axis=1).tolist() for found in (shown, best)]
    found = difference(*counts, shown.section.tolist())
    rights = " and ".join(f"{sum(values):g}" for values in counts)
    return (
        f"Right in all: the sentence that the reader shows and the best sentence {rights} of {len(shown)}; paired "
        f"difference {found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]."
    )


if __name__ == "__main__":
    marked.write(PAGE, read=f"{table()}\n\n{paired()}")
