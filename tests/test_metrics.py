"""Tests of llama_qna/metrics.py, against ROUGE worked out by hand."""

import pytest

from llama_qna.metrics import mean_rouge, rouge, strip_label


@pytest.mark.parametrize(
    "answer, reference, rouge1, rouge2, rougeL",
    [
        ("the cat sat", "the cat sat", 1, 1, 1),
        ("a dog ran", "the cat sat", 0, 0, 0),
        # 3 of 4 words and 3 words: P 3/4, R 3/3; bigrams: 2 of 3 and 2; longest common subsequence: 3
        ("the cat sat down", "the cat sat", 6 / 7, 4 / 5, 6 / 7),
        # all words, no bigram but one, and a subsequence of two
        ("sat the cat", "the cat sat", 1, 1 / 2, 2 / 3),
        # a word repeated counts as often as the reference has it: 1 of 3, 1 of 2
        ("the the the", "the cat", 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2), 0, 2 / 5),
        # case and punctuation carry nothing; no stemming, so a plural is another word
        ("The CAT, sat.", "the cat sat", 1, 1, 1),
        ("cats", "cat", 0, 0, 0),
        ("", "the cat sat", 0, 0, 0),
    ],
)
def test_rouge_is_what_a_hand_computes(answer, reference, rouge1, rouge2, rougeL):
    assert rouge(answer, reference) == pytest.approx({"rouge1": rouge1, "rouge2": rouge2, "rougeL": rougeL})


@pytest.mark.parametrize(
    "answer, reference",
    [
        ("Answer: a dog ran", "Answer: the cat sat"),
        ("a dog ran", "Answer: the cat sat"),
        ("**Answer:** a dog ran", "the cat sat"),
    ],
)
def test_label_earns_nothing_and_costs_nothing(answer, reference):
    assert set(rouge(answer, reference).values()) == {0}


def test_label_on_either_side_does_not_change_the_score():
    expected = rouge("the cat sat down", "the cat sat")
    assert rouge("Answer: the cat sat down", "the cat sat") == expected
    assert rouge("the cat sat down", "Answer: the cat sat") == expected
    assert rouge("answer : the cat sat down", "ANSWER: the cat sat") == expected


@pytest.mark.parametrize("text", ["The answer: forty-two.", "Answering takes time.", "Answers: 3"])
def test_only_the_label_is_stripped(text):
    assert strip_label(text) == text


def test_mean_is_over_the_questions():
    scores = [
        rouge("the cat sat", "the cat sat"),
        rouge("a dog ran", "the cat sat"),
        rouge("sat the cat", "the cat sat"),
    ]
    assert mean_rouge(scores) == pytest.approx({"rouge1": 2 / 3, "rouge2": 1.5 / 3, "rougeL": (1 + 2 / 3) / 3})
