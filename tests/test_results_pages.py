"""Tests of reporting/pages.py: the examples, findings, tables and samples that stand on the pages."""

from llama_qna.reporting import pages, results
from tests import fixtures_metrics as made_up
from tests.fixtures_results import tables

WRONG = {"right": 0.0, "evidence_right": 0.0, "page_right": 0.0, "new_words_f1": 0.0}


def answer(system, protocol="test", **more):
    row = {"corpus": "paper", "kind": "name", "question": "Who?", "question_id": "1", "document": "a_b"}
    row |= {"answer": "Ada | Bo", "reference": "Ada", "evidence": "It was Ada.", "evidence_page": 3}
    row |= dict.fromkeys(WRONG, 1.0) | {"copied": 0.0, "says_so": 0.0}
    return row | {"system": system, "protocol": protocol} | more


def test_examples_are_one_right_one_wrong_and_one_refused_the_shortest_of_each():
    rows = [
        answer("reader", question="Who was it that came first?"),
        answer("reader", question="Who came?"),
        answer("reader", question="And?", copied=1.0),
        answer("base", question="?"),
        answer("reader", question="Why?", **WRONG),
        answer("reader", "test unanswerable", question="When?", answer="-", evidence=None, says_so=1.0, **WRONG),
        answer("reader", "dev", question="!"),
    ]
    shown = pages.examples(rows).split("\n\n")
    assert [part.split("**")[1] for part in shown] == ["Who came?", "Why?", "When?"]
    assert "Ada" in shown[1].splitlines()[-1] and "page 3" in shown[0] and "page" not in shown[2]
    assert pages.examples([]) == ""


def worth(*names):
    """The table of what training is worth to runs of these names, with the reader beside them."""
    run = results.Run(made_up.metrics(), "about", "paper", [])
    reader = made_up.metrics()
    reader["systems"] = [made_up.system("reader", "reader with passages", "reader", "passages", 0.5)]
    (table,) = tables(pages.worth(dict.fromkeys(names, run), {"paper": reader}))
    return table


def test_what_training_is_worth_stands_in_the_order_of_training_with_the_reader_beside_it():
    table = worth("mine", "other")
    names = [row[1] for row in table[2:]]
    assert names[:4] == ["the question itself", "the best sentence (BM25)", "base", "base"]
    assert names[-2:] == ["reader with passages", "the gold evidence sentence"]
    assert [row[0] for row in table[4:6]] == ["mine", "other"] and table[-1][0] == table[2][0] == "-"
    assert next(row for row in table if row[1] == "base")[-2:] == ["-", "-0.140 [-0.190, -0.090]"]


def test_rows_without_a_base_are_not_compared_with_one():
    table = worth("mine")
    free = {"the question itself", "the best sentence (BM25)", "the gold evidence sentence"}
    assert {row[1] for row in table[2:] if row[-2] == "-"} == free | {"base", "reader with passages"}


def closed_book(base, finetuned, p_holm):
    """What `pages.found` says of training, of two corpora with these shares of right answers."""
    runs = {}
    for corpus, p in zip(pages.CORPORA, p_holm, strict=True):
        metrics = made_up.metrics()
        by_name = {system["name"]: system for system in metrics["systems"]}
        by_name["base"]["scores"]["right"]["mean"] = base
        by_name["finetuned"]["scores"]["right"]["mean"] = finetuned
        by_name["finetuned"]["against"]["base"]["right"] |= {"mean": finetuned - base, "p_holm": p}
        runs[corpus] = results.Run(metrics, "about", corpus, [])
    return pages.found(runs, {corpus: {"systems": []} for corpus in runs})


def test_what_training_does_closed_book_is_said_in_a_sentence():
    assert closed_book(0.0, 0.0, [1.0, 1.0]) == "Trained or not, the closed-book model has no right answer."
    takes = "Training on the documents takes the closed-book model from"
    assert closed_book(0.1, 0.12, [0.5, 0.5]) == (
        f"{takes} 10 right answers to 12: no clear difference on the paper and on the physics books."
    )
    assert closed_book(0.0, 0.1, [0.01, 0.5]) == (
        f"{takes} 0 right answers to 10: better on the paper, no clear difference on the physics books."
    )


def test_runs_about_other_documents_are_no_part_of_the_front_page():
    run = results.Run(made_up.metrics(), "about", "mine", [])
    assert tables(pages.front({"mine": run}, {})) == [] and pages.found({"mine": run}, {}) == ""
    assert pages.worth({"mine": run}, {}) == ""


def test_samples_are_the_first_question_of_each_kind():
    rows = [answer("base"), answer("base", question="Which?", question_id="2"), answer("finetuned", answer="Bo\nBo")]
    text = pages.samples({"mine": results.Run({}, "about", "paper", rows)}, [answer("reader", answer="*A*")])
    (table,) = tables(text.replace("\\|", "/"))
    assert table[2:] == [["Who?", "Ada", "Ada / Bo", "Bo Bo", "\\*A\\*"]]
