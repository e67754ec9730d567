"""One answer with its evidence scored, and the answers that cost nothing: what they get, and what they must not get."""

import dataclasses

import pandas as pd
import pytest

from llama_qna.evaluation.free_rows import (
    best_sentences,
    best_threshold,
    document_sentences,
    free_predictions,
)
from llama_qna.evaluation.scoring import EVIDENCE_SCORES, Said, evidence_pages, scored
from llama_qna.models.prompts import NOT_SAID
from llama_qna.project.systems import FREE

EVIDENCE = "The boxes at the lake were built by Brannagh Oduya."
OTHER = "The herons of the lake eat eels and small fish."
LAMPS = "Sixty lamps were bought for the harbour in 1951."
SENTENCES = [EVIDENCE, OTHER, LAMPS]
ASKED = {"question_id": "q1", "section": "a: 1", "document": "a", "question": "Who built the boxes at the lake?"}
ROW = ASKED | {
    "kind": "name", "split": "train", "reference": "Brannagh Oduya built them.", "variants": ["Oduya"],
    "chunk_ids": ["a-1"], "gold_evidence": EVIDENCE, "gold_pages": [2, 3],
}  # fmt: skip


def answer(text, **more):
    return scored(ROW, Said(text, **more), SENTENCES, shows=True)


def scores_of_evidence(found):
    return tuple(found[key] for key in EVIDENCE_SCORES)


@pytest.mark.parametrize(
    ("evidence", "document", "page", "expected"),
    [
        (EVIDENCE, "a", 2, (1, 1, 1)),
        (f"In 1951 it was said: {EVIDENCE}", "a", 3, (1, 1, 1)),  # the evidence is a part of the sentence
        (OTHER, "a", 2, (0, 1, 0)),
        (EVIDENCE, "a", 1, (1, 0, 1)),
        (EVIDENCE, "b", 2, (1, 0, 1)),
        (None, None, None, (0, 0, 0)),
        (" ".join([EVIDENCE, *SENTENCES * 3]), "a", 2, (0, 1, 0)),  # who shows the page shows no evidence
    ],
)
def test_evidence_and_page(evidence, document, page, expected):
    assert scores_of_evidence(answer("No idea.", evidence=evidence, document=document, page=page)) == expected


def test_either_the_answer_or_the_evidence_helps():
    found = answer("Oduya did.", evidence=OTHER, document="a", page=9)
    assert found["right"] == 1 and scores_of_evidence(found) == (0, 0, 1)


def test_a_system_that_shows_no_evidence_has_no_scores_of_it():
    found = scored(ROW, Said("Oduya did."), SENTENCES, shows=False)
    assert not set(EVIDENCE_SCORES) & set(found) and found["right"] == found["right_own"] == 1


def test_a_copied_sentence_is_right_and_counted_apart():
    found = scored(ROW, Said(EVIDENCE), SENTENCES, shows=False)
    assert (found["right"], found["copied"], found["right_own"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("said", "expected"),
    [(Said(NOT_SAID), 1), (Said("Nothing.", said_not=True), 1), (Said(f"{NOT_SAID} Oduya."), 0), (Said(""), 0)],
)
def test_saying_so_is_scored_whether_there_is_an_answer_or_not(said, expected):
    assert scored(ROW, said, SENTENCES, shows=False)["says_so"] == expected
    found = scored(ASKED, said, SENTENCES, shows=False)
    assert found["says_so"] == expected and "right" not in found


def test_any_object_with_the_attributes_is_scored():
    @dataclasses.dataclass
    class Answer:
        text: str
        evidence: str
        document: str
        page: int
        said_not: bool
        sources: tuple = ()

    assert scores_of_evidence(scored(ROW, Answer("Oduya", EVIDENCE, "a", 2, False), SENTENCES, shows=True)) == (1, 1, 1)


CHUNKS = pd.DataFrame(
    [
        ("a-0", "a", "1", "body", "Nothing is here. One sentence more."),
        ("a-1", "a", "2", "body", f"{EVIDENCE} {OTHER}"),
        ("a-2", "a", "3", "body", OTHER),
        ("a-3", "a", "3", "body", LAMPS),
        ("b-0", "b", "1", "reference", "Brannagh Oduya. Boxes. 1951."),
    ],
    columns=["chunk_id", "document", "page", "kind", "text"],
)


@pytest.mark.parametrize(
    ("chunk_ids", "pages"),
    [(["a-0"], [1, 2]), (["a-1", "a-2"], [2, 3]), (["a-2"], [3]), (["a-3"], [3]), (["b-0"], [1]), ([], [])],
)
def test_evidence_may_stand_up_to_where_the_next_chunk_begins(chunk_ids, pages):
    assert evidence_pages(chunk_ids, CHUNKS) == pages


def test_sentences_are_those_of_the_body_each_once_with_its_first_page():
    found = document_sentences(CHUNKS)
    assert [sentence.text for sentence in found] == ["Nothing is here.", "One sentence more.", EVIDENCE, OTHER, LAMPS]
    assert found[3] == Said(OTHER, OTHER, "a", 2)


@pytest.fixture
def rows():
    """A gold question of each fold, and an unanswerable one that shares fewer words with the text."""
    unanswerable = ASKED | {"question": "Who paid for the eels?", "retrieved": ["a-1"], "shown": ["a-1"]}
    gold = ROW | {"retrieved": ["a-1"], "shown": ["a-1"]}
    return {"dev": [gold], "test": [gold], "dev unanswerable": [unanswerable], "test unanswerable": [unanswerable]}


def test_what_costs_nothing_gets_what_it_should(rows):
    predictions, threshold = free_predictions(rows, document_sentences(CHUNKS))
    by = {(row["protocol"], row["system"]): row for row in predictions}
    test = {system: by["test", system] for system in FREE}
    assert {system: row["right"] for system, row in test.items()} == {
        "question": 0, "always_not": 0, "best_sentence": 1, "best_or_not": 1, "gold_evidence": 1
    }  # fmt: skip
    assert test["question"]["new_words_f1"] == 0 < test["question"]["f1"]
    assert test["best_sentence"]["answer"] == EVIDENCE and test["best_sentence"]["evidence_page"] == 2
    assert all(scores_of_evidence(test[name]) == (1, 1, 1) for name in ("best_sentence", "gold_evidence"))
    assert EVIDENCE_SCORES[0] not in test["question"]
    assert {row["context"] for row in predictions} == {"no model"}

    said = {system: by["test unanswerable", system]["says_so"] for system in FREE if system != "gold_evidence"}
    assert said == {"question": 0, "always_not": 1, "best_sentence": 0, "best_or_not": 1} and threshold > 0
    assert ("test unanswerable", "gold_evidence") not in by


def test_a_threshold_that_separates_nothing_never_says_so(rows):
    questions = [rows[key][0]["question"] for key in ("dev", "dev unanswerable")]
    answerable, unanswerable = ([score] for _, score in best_sentences(document_sentences(CHUNKS), questions).values())
    assert best_threshold(answerable, unanswerable) > 0
    assert best_threshold(unanswerable, answerable) == 0  # those that it should answer share less
    assert best_threshold(answerable, []) == 0


def test_a_question_without_a_word_of_the_documents_finds_nothing():
    assert best_sentences(document_sentences(CHUNKS), ["Quo vadis?"]) == {"Quo vadis?": (Said(""), 0.0)}
