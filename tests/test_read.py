"""Tests of the answers that were read and judged: every one of both systems, by both judges."""

from benchmarks import read
from llama_qna.project import marked


def test_every_answer_was_judged_and_the_page_says_what_of_it():
    for corpus in read.CORPORA:
        found = read.judged(corpus)
        assert set(found.system) == set(read.SYSTEMS)
        assert found[read.JUDGES].isin(read.VERDICTS).all(axis=None)
    assert marked.read(read.PAGE, "read").strip() == f"{read.table()}\n\n{read.paired()}"
