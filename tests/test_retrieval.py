"""Tests of llama_qna/text/search.py on the chunks of the two published corpora."""

import math
import os
import subprocess
import sys
import unicodedata

import pandas as pd
import pytest

from llama_qna import UserError
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.language import languages_of
from llama_qna.text.search import Search, recall_at_k
from llama_qna.text.windows import K1, B, stems

# a question in a reader's words, and the section that answers it
PAPER = [
    ("Which component lowers the exit thresholds when the battery is nearly empty?", "3.6 The Toll controller"),
    ("How much flash memory does the Brisling-7 board have?", "5.2 Devices and measurement"),
    ("What are the three phases of training called, and how many epochs does each take?", "4 Training Procedure"),
    ("How many camera boxes stood at the Oltmeer wetland?", "8.3 Field test"),
    ("From which classifier do the wickets learn in backlight distillation?", "3.5 Backlight distillation"),
    ("Who paid for the work on quiet machines?", "Acknowledgements"),
    ("By how much does accuracy fall when backlight distillation is taken away?", "7 Ablation"),
]
PHYSICS = [
    ("Which mountains did Gauss survey for his big triangle?", "2.1 Gauss measures a triangle"),
    ("Who sent Einstein a letter about a fifth dimension in 1919?", "4.1 A letter from Königsberg"),
    ("What did Clarke propose about relay stations in orbit?", "1.2 Three kinds of no"),
    ("Who measured tiny blips at the junction of nerve and muscle in frogs?", "3.2 The quanta of Bernard Katz"),
    ("How many watts of sunlight fall on a square meter above the atmosphere?", "3.1 Sunlight and its ceiling"),
    ("Which formula did Carl Sagan give for Kardashev's types of civilizations?", "7.2 Kardashev’s ladder"),
    ("Who tried an electrode on the auditory nerve in Paris?", "5.1 Twenty-two notes for a symphony"),
]


def body_of(corpus):
    table = pd.read_csv(REPOSITORY / "data" / corpus / "chunks.csv", keep_default_na=False)
    return table[table.kind == "body"]


@pytest.fixture(scope="module")
def paper():
    return body_of("paper")


@pytest.fixture(scope="module")
def retriever(paper):
    return Search(list(paper.chunk_id), list(paper.text))


def ids(found):
    return [[name for name, _ in chunks] for chunks in found]


@pytest.mark.parametrize("corpus, questions", [("paper", PAPER), ("physics_reader", PHYSICS)])
def test_finds_the_section_that_answers(corpus, questions):
    body = body_of(corpus)
    found = ids(Search(list(body.chunk_id), list(body.text)).search([question for question, _ in questions], k=3))
    section = dict(zip(body.chunk_id, body.section, strict=True))
    missed = [
        question for (question, wanted), names in zip(questions, found, strict=True)
        if wanted not in [section[name] for name in names]
    ]  # fmt: skip
    assert missed == []


def test_score_is_bm25():
    """Written out for one word: its idf, times its frequency damped by k1 and by the length of the chunk."""
    texts = ["gauge gauge boson", "gauge theory", "nerve fiber myelin squid"]
    ((first, second),) = Search(["a", "b", "c"], texts).search(["Gauge?"], k=3)
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    for (name, score), frequency, length in ((first, 2, 3), (second, 1, 2)):
        assert name == ("a" if frequency == 2 else "b")
        assert score == pytest.approx(idf * frequency / (frequency + K1 * (1 - B + B * length / 3)))


@pytest.mark.parametrize("corpus, questions", [("paper", PAPER), ("physics_reader", PHYSICS)])
def test_the_order_is_that_of_a_library(corpus, questions):
    from bm25s import BM25

    body = body_of(corpus)
    names, texts, languages = list(body.chunk_id), list(body.text), languages_of(body.text)
    index, search = BM25(k1=K1, b=B, method="lucene"), Search(names, texts)
    index.index([list(stems(text, (language,))) for text, language in zip(texts, languages, strict=True)])
    for question, _ in questions:
        scores = index.get_scores_from_ids(index.get_tokens_ids(list(stems(question, tuple(set(languages))))))
        best = sorted(zip(names, scores, strict=True), key=lambda pair: -pair[1])[:20]
        assert ids(search.search([question], k=20)) == [[name for name, score in best if score > 0]]


def test_best_first_and_at_most_k(retriever):
    (found,) = retriever.search([PAPER[0][0]], k=5)
    assert len(found) == len(set(found)) == 5
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True) and all(type(score) is float for score in scores)
    assert retriever.search([PAPER[0][0]], k=2) == [found[:2]]


def test_questions_do_not_disturb_one_another(retriever):
    questions = [question for question, _ in PAPER]
    assert retriever.search(questions, k=4) == [retriever.search([question], k=4)[0] for question in questions]
    assert retriever.search([], k=4) == []


def test_equal_scores_come_in_the_order_of_the_chunks():
    texts = ["The toll of the bridge."] * 40
    assert ids(Search([f"c{n}" for n in range(40)], texts).search(["toll"], k=40)) == [[f"c{n}" for n in range(40)]]


def test_more_wanted_than_there_are():
    retriever = Search(["a", "b", "c"], ["red kite", "red fox", "green fern"])
    assert sorted(ids(retriever.search(["red or green?"], k=50))[0]) == ["a", "b", "c"]
    assert ids(retriever.search(["red"], k=50)) == [["a", "b"]], "what shares no word with the question is not found"


@pytest.mark.parametrize("question", ["", " \n", "?!", "What is it that they have?", "zyxwv", "的 🙂", "\ufffe\x00"])
def test_question_without_a_known_word_finds_nothing(question, retriever):
    assert retriever.search([question, "wetland"], k=3)[0] == []
    assert retriever.search([question, "wetland"], k=3)[1] != []


def test_form_and_case_of_a_word_do_not_matter():
    retriever = Search(["a", "b"], ["Pruning removes channels.", "Königsberg’s letter, sent early"])
    for question in ("PRUNED", "a channel", "Who prunes?"):
        assert ids(retriever.search([question], k=2)) == [["a"]]
    for question in ("königsberg", "Königsberg's", unicodedata.normalize("NFD", "Königsberg"), "early-letter"):
        assert ids(retriever.search([question], k=2)) == [["b"]]


def test_numbers_are_words(retriever, paper):
    ((name,),) = ids(retriever.search(["287,412"], k=1))
    assert "287,412" in paper.text[paper.chunk_id == name].item()


@pytest.mark.parametrize("texts", [[], [""], ["It is.", "?"]])
def test_nothing_to_search_is_named(texts):
    with pytest.raises(UserError, match="nothing to search"):
        Search([str(n) for n in range(len(texts))], texts)


def test_chunk_without_words_is_never_found():
    assert ids(Search(["a", "b"], ["", "red kite"]).search(["kite", ""], k=2)) == [["b"], []]


def test_every_chunk_has_a_name():
    with pytest.raises(ValueError, match="1 chunk ids for 2 texts"):
        Search(["a"], ["one fox", "two foxes"])


def test_says_nothing_writes_nothing_and_is_the_same_in_every_run(tmp_path):
    """The order of sets differs between runs."""
    code = (
        "from llama_qna.text.search import Search\n"
        "texts = [f'stage {n % 7} early-exit traffic of {n % 5} low-power camera-traps' for n in range(60)]\n"
        "retriever = Search([str(n) for n in range(60)], texts)\n"
        "print(retriever.search(['Early-exit camera-traps at stage 3 of low-power traffic 4?', ''], k=60))\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        for seed in ("1", "2")
    ]
    assert [run.stderr for run in runs] == ["", ""]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_recall_is_the_share_of_questions_with_a_wanted_chunk():
    found, wanted = [["a", "b"], ["c", "d"], ["e"], []], [{"b", "x"}, {"a"}, {"e"}, {"e"}]
    assert recall_at_k(found, wanted) == 0.5
    assert recall_at_k([names[:1] for names in found], wanted) == 0.25
    assert recall_at_k([["a"]], [set()]) == 0.0


@pytest.mark.parametrize("found, wanted", [([], []), ([["a"]], [{"a"}, {"b"}]), ([["a"], ["b"]], [{"a"}])])
def test_recall_of_nothing_is_an_error(found, wanted):
    with pytest.raises(ValueError):
        recall_at_k(found, wanted)
