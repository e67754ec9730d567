"""Tests of the committed pairs of the two shipped corpora: coverage, provenance, and what people judged of a sample."""

import pandas as pd
import pytest

from llama_qna.pairs.filters import REASONS, Duplicates
from llama_qna.project.variant import REPOSITORY

CORPORA = ["paper", "physics_reader"]
by_corpus = pytest.mark.parametrize("corpus", CORPORA)


def table(corpus, name):
    return pd.read_csv(REPOSITORY / "data" / corpus / name, keep_default_na=False)


# The reader of 135M parameters writes few pairs that pass.
COVERED = {"paper": 0.6, "physics_reader": 0.6}


@by_corpus
def test_many_chunks_of_the_training_sections_have_a_pair(corpus):
    chunks, pairs = table(corpus, "chunks.csv"), table(corpus, "qna.csv")
    training = chunks[(chunks.kind == "body") & (chunks.split == "train")]
    assert training.chunk_id.isin(pairs.chunk_id).mean() >= COVERED[corpus]


@by_corpus
def test_every_pair_comes_from_its_chunk(corpus):
    pairs = table(corpus, "qna.csv")
    columns = ["chunk_id", "document", "page", "split", "text"]
    joined = pairs.merge(table(corpus, "chunks.csv")[columns], on="chunk_id", how="left", suffixes=("", "_of_chunk"))
    assert len(joined) == len(pairs)
    for column in ("document", "page", "split"):
        assert (joined[column] == joined[f"{column}_of_chunk"]).all()
    made = joined[joined.recipe == "reader"]
    plain = made.text.str.replace(r" ?\[\d[\d, –-]*\]", "", regex=True).str.split().str.join(" ")
    assert all(sentence in text for sentence, text in zip(made.get("evidence", made.Answer), plain, strict=True))


@by_corpus
def test_no_question_stands_twice_nor_in_both_splits(corpus):
    pairs = table(corpus, "qna.csv")
    pairs = pairs[pairs.recipe != "reference"]
    assert {"train", "heldout"} == set(pairs.split)
    seen = Duplicates()
    assert [question for question in pairs.Question if seen.add(question)] == []


@by_corpus
def test_every_rejection_has_a_known_reason(corpus):
    rejected = table(corpus, "qna_rejected.csv")
    assert len(rejected) > 0
    assert set(rejected.reason.str.split(": ").str[0]) <= set(REASONS)


@by_corpus
@pytest.mark.parametrize("name", ["audit.csv", "audit_2.csv"])
def test_sixty_pairs_were_judged_or_all_that_a_model_wrote(corpus, name):
    audit, pairs = table(corpus, name), table(corpus, "qna.csv")
    keys = ["Question", "Answer", "chunk_id"]
    written = (pairs.recipe != "reference").sum()
    assert len(audit) == min(60, written) and not audit.duplicated(keys).any()
    assert len(audit.merge(pairs[keys], on=keys)) == len(audit)
    assert audit[["clear", "right", "complete"]].isin([0, 1]).all(axis=None)
    assert (audit[(audit[["clear", "right", "complete"]] == 0).any(axis=1)].note != "").all()
