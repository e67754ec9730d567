"""What a reader answers, as a table: beside it what costs nothing, and the ceiling."""

from __future__ import annotations

from llama_qna.reporting.results import SAYS_SO, systems_rows, with_interval

COLUMNS = {
    "right": "right",
    "new_words_f1": "new words F1",
    "evidence_shown": "evidence was read",
    "evidence_right": "evidence shown is the gold one",
    "answer_or_evidence": "answer or evidence right",
    "page_right": "page right",
    "copied": "copies a sentence",
}
NAMES = {"all": "Both corpora", "paper": "The paper", "physics_reader": "The physics books"}
NAMES["new"] = "Both, questions written last"


def reader_block(metrics: dict) -> str:
    """Markdown tables of the test questions, of both corpora together and of each.

    Args:
        metrics: what `evaluation.reading.measure` returns.
    """
    tables = [_table(name, metrics[name]) for name in NAMES if name in metrics]
    general = metrics["general_text"]
    change = general["reader"] / general["base"] - 1
    others = metrics["other_subjects"]
    off = "Asked about what documents do not speak of (the questions of one corpus, asked of the other), it says so "
    off += f"{others['says_so']:.0%} of {others['questions']} times."
    said = f"Perplexity of general text: {general['base']:.1f} of the base, {general['reader']:.1f} of the reader"
    return "\n\n".join([*tables, off, f"{said} ({change:+.1%})."])


def _table(name: str, metrics: dict) -> str:
    questions, unanswerable = metrics["questions"]["test"], metrics["unanswerable"]
    title = f"**{NAMES[name]}**: {questions} questions"
    title += f", and {unanswerable} that the documents do not answer." if unanswerable else "."
    reader = next(system for system in metrics["systems"] if system["name"] == "reader")
    against = reader["against"]["best_sentence"]
    less = ", ".join(f"{COLUMNS[key]} {with_interval(against[key], '+')}" for key in ("right", "new_words_f1"))
    table = systems_rows(metrics["systems"], COLUMNS, SAYS_SO)
    return f"{title}\n\n{table}\n\nThe reader less the best sentence, paired: {less}."
