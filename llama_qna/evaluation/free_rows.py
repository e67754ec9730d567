"""Answers that cost nothing: what a score is worth is seen from what these get for it.

No model is asked. They are scored exactly as a model's answers are (`scoring.scored`).
"""

from __future__ import annotations

import pandas as pd

from llama_qna.evaluation.scoring import Said, scored
from llama_qna.models.prompts import NOT_SAID
from llama_qna.project.systems import NO_MODEL
from llama_qna.text.search import Search
from llama_qna.text.words import sentences_of


def document_sentences(chunks: pd.DataFrame) -> list[Said]:
    """The sentences of all body chunks, each once, as an answer that is its own evidence, on its chunk's first page.

    Args:
        chunks: the table of `project.data.read_chunks`.
    """
    found = {}
    for row in chunks[chunks.kind == "body"].itertuples():
        for text in sentences_of(row.text):
            found.setdefault(text, Said(text, text, row.document, int(row.page)))
    return list(found.values())


def free_predictions(rows: dict[str, list[dict]], sentences: list[Said]) -> tuple[list[dict], float]:
    """The scored rows of every system of `systems.FREE`, and the threshold of `best_or_not`, chosen on the fold dev.

    Args:
        rows: what is asked by `dev`, `test`, `dev unanswerable` and `test unanswerable`, as `scoring.scored` takes it.

    Raises:
        UserError: no sentence has a word to search for.
    """
    asked = {protocol: [row["question"] for row in found] for protocol, found in rows.items()}
    best = best_sentences(sentences, [question for questions in asked.values() for question in questions])
    dev, others = ([best[q][1] for q in asked.get(fold, [])] for fold in ("dev", "dev unanswerable"))
    threshold, texts, predictions = best_threshold(dev, others), [sentence.text for sentence in sentences], []
    for protocol, found in rows.items():
        for system, answers in _answers(found, best, threshold).items():
            about = {"protocol": protocol, "system": system, "checkpoint": "none", "context": NO_MODEL}
            shows = any(said.evidence for said in answers)
            both = zip(found, answers, strict=True)
            predictions += [scored(about | row, said, texts, shows, ended=True) for row, said in both]
    return predictions, threshold


def best_sentences(sentences: list[Said], questions: list[str]) -> dict[str, tuple[Said, float]]:
    """By question the sentence that shares the most with it, and its BM25 score; nothing and 0 where none does."""
    search = Search(list(range(len(sentences))), [sentence.text for sentence in sentences])
    best = dict.fromkeys(questions, (Said(""), 0.0))
    for question in best:
        for number, score in search.search([question], 1)[0]:
            best[question] = (sentences[number], score)
    return best


def best_threshold(answerable: list[float], unanswerable: list[float]) -> float:
    """The BM25 score below which `best_or_not` says that the documents do not say: the best on these questions' scores.

    It has the highest mean of two shares: of unanswerable questions below, and of answerable ones not below. Of equals
    it is the lowest; without questions of one kind it is 0.
    """
    if not answerable or not unanswerable:
        return 0.0

    def balance(threshold: float) -> float:
        below, above = (score < threshold for score in unanswerable), (score >= threshold for score in answerable)
        return sum(below) / len(unanswerable) + sum(above) / len(answerable)

    return max(sorted({0.0, *answerable, *unanswerable}), key=balance)


def _answers(rows: list[dict], best: dict[str, tuple[Said, float]], threshold: float) -> dict[str, list[Said]]:
    """The answers to the questions of some rows, by system; unanswerable questions have no gold evidence."""
    nothing, found = Said(NOT_SAID, said_not=True), [best[row["question"]] for row in rows]
    answers = {
        "question": [Said(row["question"]) for row in rows],
        "always_not": [nothing for _ in rows],
        "best_sentence": [said for said, _ in found],
        "best_or_not": [said if score >= threshold else nothing for said, score in found],
    }
    if all("reference" in row for row in rows):
        evidence = [(row["gold_evidence"], row["document"], row["gold_pages"][0]) for row in rows]
        answers["gold_evidence"] = [Said(text, text, document, page) for text, document, page in evidence]
    return answers
