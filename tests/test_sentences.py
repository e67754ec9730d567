"""Sentences are found by their own words and their neighbours', and given in runs as they stand in the document."""

import pandas as pd
import pytest

from llama_qna import UserError
from llama_qna.answering.sentences import Sentences
from llama_qna.documents.chunks import split
from llama_qna.documents.clean import Document, Paragraph
from llama_qna.project.data import CHUNK_COLUMNS
from llama_qna.project.recipe import Chunking

FACTS = [
    "The harbour of Orsk was dug in 1841.",
    "Its mole is built of red granite [3].",
    "Ships of nine metres draught can enter.",
    "The lighthouse keeper was called Brandt.",
    "He kept goats on the mole.",
    "In winter the basin freezes for six weeks.",
    "Ice breakers come from the capital.",
    "A ferry sails twice a week.",
]


def chunks_of(texts, size=120, overlap=40):
    rows = []
    for number, (section, text) in enumerate(texts):
        document = Document(f"d{number}", 1, [Paragraph(text, 1, section)], [])
        rows += split(document, Chunking(chunk_size=size, chunk_overlap=overlap))
    return pd.DataFrame([row | {"tokens": 1} for row in rows], columns=CHUNK_COLUMNS)


def words(text):
    return len(text.split())


@pytest.fixture(scope="module")
def harbour():
    return Sentences(chunks_of([("1 Orsk", " ".join(FACTS))]))


def test_the_sentences_of_overlapping_chunks_are_those_of_the_text(harbour):
    assert [sentence.text for sentence in harbour.all] == [fact.replace(" [3]", "") for fact in FACTS]
    assert len({sentence.chunk_id for sentence in harbour.all}) > 1


def test_what_is_found_holds_the_sentence_with_the_words_and_keeps_to_the_limit(harbour):
    runs = harbour.find("How long does the basin freeze?", 20, words)
    assert "The basin freezes" in runs[0].text.replace("In winter the", "The")
    assert sum(words(run.text) for run in runs) <= 20
    for run in runs:
        assert run.text in " ".join(fact.replace(" [3]", "") for fact in FACTS)


def test_a_neighbour_is_found_by_the_words_around_it(harbour):
    text = " ".join(run.text for run in harbour.find("What did the lighthouse keeper do?", 16, words))
    assert "He kept goats" in text


def test_runs_do_not_cross_sections():
    found = Sentences(chunks_of([("1 A", "Copper melts at 1085 degrees."), ("2 B", "Copper is red.")]))
    runs = found.find("What is copper like?", 50, words)
    assert sorted(run.section for run in runs) == ["1 A", "2 B"]


def test_a_sentence_longer_than_the_limit_is_given_all_the_same(harbour):
    assert len(harbour.find("Who was the lighthouse keeper?", 1, words)) == 1


def test_a_question_that_shares_no_word_finds_nothing(harbour):
    assert harbour.find("Quid nunc?", 50, words) == []


def test_nothing_to_search_is_said():
    with pytest.raises(UserError):
        Sentences(chunks_of([("1", "It is. They are.")]))
