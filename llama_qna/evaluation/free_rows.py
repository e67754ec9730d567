"""Answers that cost nothing: what a score is worth is seen from what these get for it.

No model is asked. They are scored exactly as a model's answers are (`scoring.scored`).
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from llama_qna.evaluation.scoring import Said, scored
from llama_qna.models.prompts import NOT_SAID
from llama_qna.text.search import Search
from llama_qna.text.words import sentences_of

CONTEXT = "no model"


@dataclass(frozen=True)
class Sentence:
    """A sentence of the documents, and where it stands."""

    text: str
    document: str
    page: int  # on which its chunk begins, from 1


def document_sentences(chunks: pd.DataFrame) -> list[Sentence]:
    """The sentences of all body chunks, each once.

    Args:
        chunks: the table of `project.data.read_chunks`.
    """
    found = {}
    for row in chunks[chunks.kind == "body"].itertuples():
        for text in sentences_of(row.text):
            found.setdefault(text, Sentence(text, row.document, int(row.page)))
    return list(found.values())


def free_predictions(rows: dict[str, list[dict]], sentences: list[Sentence]) -> tuple[list[dict], float]:
    """The scored rows of every system of `systems.FREE`, and the threshold of `best_or_not`, chosen on the fold dev.

    Args:
        rows: what is asked by `dev`, `test`, `dev unanswerable` and `test unanswerable`, as `scoring.scored` takes it.
    """
    free, texts, predictions = FreeRows(sentences), [sentence.text for sentence in sentences], []
    asked = {protocol: [row["question"] for row in found] for protocol, found in rows.items()}
    free.choose_threshold(asked.get("dev", []), asked.get("dev unanswerable", []))
    for protocol, found in rows.items():
        for system, answers in free.answers(found).items():
            about = {"protocol": protocol, "system": system, "checkpoint": "none", "context": CONTEXT}
            shows = any(said.evidence for said in answers)
            both = zip(found, answers, strict=True)
            predictions += [scored(about | row, said, texts, shows, ended=True) for row, said in both]
    return predictions, free.threshold


class FreeRows:
    """Answers every question in each of the ways of `project.systems.FREE`.

    Args:
        sentences: of the documents; see `document_sentences`.

    Raises:
        UserError: no sentence has a word to search for.
    """

    def __init__(self, sentences: list[Sentence]):
        self.sentences = {str(number): sentence for number, sentence in enumerate(sentences)}
        self._search = Search(list(self.sentences), [sentence.text for sentence in sentences])
        self.threshold = 0.0

    def choose_threshold(self, answerable: list[str], unanswerable: list[str]) -> None:
        """The BM25 score below which `best_or_not` says that the documents do not say: the best on these questions.

        It has the highest mean of two shares: of unanswerable questions below, and of answerable ones not below. Of
        equals it is the lowest; without questions of one kind it is 0.
        """
        scores, others = ([score for _, score in self.best(asked)] for asked in (answerable, unanswerable))
        if not scores or not others:
            return

        def balance(threshold: float) -> float:
            below, above = (score < threshold for score in others), (score >= threshold for score in scores)
            return sum(below) / len(others) + sum(above) / len(scores)

        self.threshold = max(sorted({0.0, *scores, *others}), key=balance)

    def best(self, questions: list[str]) -> list[tuple[Said, float]]:
        """The sentence that shares the most with each question, and its BM25 score; nothing and 0 where none does."""
        answers = []
        for found in self._search.search(questions, 1):
            if found:
                sentence = self.sentences[found[0][0]]
                answers.append((_shown(sentence.text, sentence.document, sentence.page), found[0][1]))
            else:
                answers.append((Said(""), 0.0))
        return answers

    def answers(self, rows: list[dict]) -> dict[str, list[Said]]:
        """The answers to the questions of some rows, by system; unanswerable questions have no gold evidence.

        Args:
            rows: what is asked, as `scoring.scored` takes it.
        """
        best, nothing = self.best([row["question"] for row in rows]), Said(NOT_SAID, said_not=True)
        answers = {
            "question": [Said(row["question"]) for row in rows],
            "always_not": [nothing for _ in rows],
            "best_sentence": [said for said, _ in best],
            "best_or_not": [said if score >= self.threshold else nothing for said, score in best],
        }
        if all("reference" in row for row in rows):
            evidence = [(row["gold_evidence"], row["document"], row["gold_pages"][0]) for row in rows]
            answers["gold_evidence"] = [_shown(*where) for where in evidence]
        return answers


def _shown(text: str, document: str, page: int) -> Said:
    """A sentence that is the answer and its own evidence."""
    return Said(text, text, document, page)
