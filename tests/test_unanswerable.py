"""Tests of data/<corpus>/unanswerable.csv: the documents really do not say, and the questions are about them."""

from statistics import median

import pandas as pd
import pytest

from llama_qna.project.gold import SEPARATOR, near
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.search import Search

COUNTS = {"paper": 40, "physics_reader": 60}


def table(corpus, name):
    return pd.read_csv(REPOSITORY / "data" / corpus / f"{name}.csv", keep_default_na=False)


@pytest.fixture(scope="module", params=COUNTS)
def corpus(request):
    chunks = table(request.param, "chunks")
    return request.param, chunks[chunks.kind == "body"], table(request.param, "gold")


@pytest.fixture(scope="module")
def questions(corpus):
    return table(corpus[0], "unanswerable")


def test_every_column_is_filled_and_no_question_comes_twice(corpus, questions):
    assert len(questions) == COUNTS[corpus[0]] == questions.question_id.nunique() == questions.Question.nunique()
    assert (questions != "").all().all()


def test_the_document_does_not_hold_what_an_answer_would(corpus, questions):
    texts = corpus[1].groupby("document").text.agg(" ".join).str.lower()
    for row in questions.itertuples():
        for form in row.would_be_forms.split(SEPARATOR):
            assert form.strip().lower() not in texts[row.document], row.question_id


def test_the_nearest_passage_stands_in_its_section(corpus, questions):
    for row in questions.itertuples():
        section = corpus[1][(corpus[1].document == row.document) & (corpus[1].section == row.section)]
        assert section.text.str.contains(row.nearest_passage, regex=False).any(), row.question_id


def test_the_fold_is_that_of_the_gold_questions_of_the_section(corpus, questions):
    gold = corpus[2].drop_duplicates(["document", "section"]).set_index(["document", "section"]).fold
    assert [gold[row.document, row.section] for row in questions.itertuples()] == list(questions.fold)


def test_search_finds_as_much_for_them_as_for_gold_questions(corpus, questions):
    search = Search(list(corpus[1].chunk_id), list(corpus[1].text))

    def best(asked):
        return median(found[0][1] for found in search.search(list(asked), 1))

    assert best(questions.Question) >= best(corpus[2].Question)


def test_none_is_a_gold_question(corpus, questions):
    assert not [question for question in questions.Question if near(question, list(corpus[2].Question))]
