"""Tests of llama_qna/pairs/filters.py: each reason to reject a pair, near duplicates, what counts as supported."""

import pytest

from llama_qna.pairs.filters import REASONS, Duplicates, Filters
from llama_qna.pairs.writers import Candidate
from llama_qna.text import words
from llama_qna.text.words import content_words, similarity

TEXT = (
    "The Brisling-7 is a microcontroller board with a single core at 200 MHz. Both run our runtime Latchkey, which "
    "takes 64 KB of flash. Traffic is the fraction of inputs that reach a stage. Energy is measured with a meter. The "
    "method was invented in 1984 by Ilse Brandt."
)
OTHERS = ["A stage is a part of a network. Its inputs are images."] * 60  # in such a corpus "stage" is a common word
TRAFFIC = "Traffic is the fraction of inputs that reach a stage."
FLASH = "The runtime Latchkey takes 64 KB of flash."
HOW_MUCH = "How much flash does the runtime Latchkey take?"
WHAT = "What is the traffic of a stage?"


@pytest.fixture(scope="module")
def filters():
    return Filters([TEXT, *OTHERS], min_score=-1.0)


def reason(filters, question, answer, **details):
    return filters.reason(Candidate(question, answer, **({"check": answer} | details)), TEXT)


@pytest.mark.parametrize(
    "question, answer",
    [
        (WHAT, TRAFFIC),
        (HOW_MUCH, FLASH),
        ("What is the Brisling-7?", "The Brisling-7 is a microcontroller board with a single core at 200 MHz."),
        ("In what year was the method of Ilse Brandt invented?", "The method was invented in 1984 by Ilse Brandt."),
        ("Who invented the method in 1984?", "The method was invented in 1984 by Ilse Brandt."),
    ],
)
def test_good_pair_is_kept(filters, question, answer):
    assert reason(filters, question, answer, score=-0.3) == ""


BAD = [
    (WHAT, "Traffic is the fraction of inputs that", "cut off"),
    ("What is the traffic of a", TRAFFIC, "cut off"),
    ("Traffic is the fraction of inputs?", TRAFFIC, "not a question"),
    ("What is?", TRAFFIC, "not a question"),
    ("What " + "is the traffic of a stage " * 8 + "?", TRAFFIC, "not a question"),
    ("What does the text say about traffic?", TRAFFIC, "refers to the text"),
    (WHAT, "As stated above, it is the fraction of inputs.", "refers to the text"),
    ("What does the author call the fraction of inputs?", TRAFFIC, "refers to the text"),
    (WHAT, "The traffic is a jam of lorries on a bridge.", "not supported by the chunk"),
    (HOW_MUCH, "The runtime Latchkey takes 65 KB of flash.", "not supported by the chunk"),
    ("How much flash does the runtime take on Corvane?", FLASH, "not supported by the chunk"),
    ("Why do elephants measure the inputs of rivers?", TRAFFIC, "not supported by the chunk"),
    (WHAT, "It is the traffic of a stage.", "answer repeats the question"),
    ("What is the traffic of a stage of a stage?", TRAFFIC, "question repeats itself"),
    (WHAT, FLASH, "answer not about the question"),
    ("What does it take of the flash?", FLASH, "vague question"),
    ("What is the stage?", TRAFFIC, "vague question"),
    (WHAT, "", "the reader finds no answer"),
]


@pytest.mark.parametrize("question, answer, wanted", BAD)
def test_bad_pair_is_rejected_with_its_reason(filters, question, answer, wanted):
    assert reason(filters, question, answer, score=-0.3) == wanted


def test_what_could_not_be_parsed_is_no_pair(filters):
    assert reason(filters, "Sure! Here they are", "", problem="no labels") == "no pair in the response"


def test_unlikely_question(filters):
    assert reason(filters, HOW_MUCH, FLASH, score=-0.9) == ""
    assert reason(filters, HOW_MUCH, FLASH, score=-1.1) == "unlikely question"
    assert reason(filters, HOW_MUCH, FLASH) == "", "a server gives no likelihood"


def test_short_answer_is_about_its_evidence(filters):
    """It need not repeat what was asked; the quote must be of the sentence that the question was written about."""
    assert reason(filters, HOW_MUCH, "64 KB.") == "answer not about the question"
    assert reason(filters, HOW_MUCH, "64 KB.", evidence=FLASH, check="takes 64 KB of flash") == ""
    assert reason(filters, HOW_MUCH, "64 KB.", evidence=FLASH, check=TRAFFIC) == "the model answers otherwise"
    assert reason(filters, HOW_MUCH, "64 KB.", evidence=FLASH, check=FLASH, doubt=-0.1) == "the reader finds no answer"
    assert reason(filters, "Why is traffic a fraction of inputs?", TRAFFIC) == ""
    why = reason(filters, "Why is traffic a fraction of inputs?", TRAFFIC, evidence=TRAFFIC)
    assert why == "asks why of what has no reason"


@pytest.mark.parametrize(
    "check, wanted",
    [
        (FLASH, ""),
        ("It takes 64 KB of flash.", ""),
        ("The board has a single core at 200 MHz.", "the model answers otherwise"),
        ("", "the model answers otherwise"),
    ],
)
def test_model_must_give_a_similar_answer_once_more(filters, check, wanted):
    assert reason(filters, HOW_MUCH, FLASH, check=check) == wanted


def test_every_reason_is_in_the_list_and_the_first_one_counts(filters):
    assert {wanted for _, _, wanted in BAD} | {
        "no pair in the response",
        "asks why of what has no reason",
        "unlikely question",
        "the model answers otherwise",
    } == set(REASONS) - {"duplicate", "more pairs than wanted"}, "these two are of test_qna.py"
    assert reason(filters, "What does the text say", "Lorries", score=-9.0) == "cut off"
    assert reason(filters, "What does the text say of lorries?", "A jam.", score=-9.0) == "refers to the text"


def test_name_and_number_at_the_start_of_a_sentence_or_with_a_comma(filters):
    """A capital at the start of a sentence makes no name; a number is its digits, however its sentence goes on."""
    assert words.claims("Then the board of Ilse Brandt drew 1,984.5 watts, 64.", "en") == content_words(
        "Ilse Brandt 1,984.5 64", "en"
    )
    assert reason(filters, HOW_MUCH, "Exactly 64, as the runtime Latchkey takes 64 KB of flash.") == ""


# --- duplicates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first, second",
    [
        (HOW_MUCH, HOW_MUCH),
        (HOW_MUCH, "how much flash does the runtime Latchkey take"),
        ("What is the traffic of a stage?", "What, then, is the traffic of a stage?"),
        ("In what year did Paul Lauterbur publish the image?", "In what year did Paul Lauterbur publish the images?"),
        (
            "In what year did Henry Cavendish measure the gravity of lead balls?",
            "In what year did Henry Cavendish measure the gravity of the lead balls?",
        ),
    ],
)
def test_near_duplicates_are_found(first, second):
    questions = Duplicates()
    assert questions.add(first) is False
    assert second in questions
    assert questions.add(second) is True


@pytest.mark.parametrize(
    "first, second",
    [
        (WHAT, HOW_MUCH),
        ("What is the traffic of a stage?", "What is the accuracy of a wicket?"),
        ("In what year did Paul Lauterbur publish the image?", "In what year did Hawking give a party in Cambridge?"),
        ("How many parameters does the backbone have?", "How many bytes does a codebook occupy?"),
    ],
)
def test_different_questions_are_none(first, second):
    questions = Duplicates()
    questions.add(first)
    assert second not in questions
    assert questions.add(second) is False


def test_a_duplicate_is_found_among_many_and_is_not_taken_in_again():
    questions = Duplicates()
    questions.add(HOW_MUCH)
    for noun in "abcdefghij":
        for owner in "klmnopqrst":
            questions.add(f"How many {noun} does the {owner} have?")
    kept = len(questions.texts)
    assert questions.add(HOW_MUCH) is True
    assert len(questions.texts) == kept


def test_nothing_is_in_an_empty_set():
    assert "" not in Duplicates()
    assert HOW_MUCH not in Duplicates()


# --- words -----------------------------------------------------------------------------------------------------------


def test_content_words_are_stems_without_the_words_that_carry_no_meaning():
    assert content_words("The stages of Wicketfold's networks", "en") == content_words(
        "stage, Wicketfold, network", "en"
    )
    assert content_words("What is it of which they have the most?", "en") == frozenset()
    assert "1,984.5" in content_words("It was 1,984.5 watts.", "en")


def test_similarity_of_answers():
    assert similarity(FLASH, FLASH, "en") == 1
    assert similarity(FLASH, TRAFFIC, "en") == 0
    assert 0 < similarity(FLASH, "Latchkey takes 12 KB of memory.", "en") < 1
    assert similarity("", "", "en") == 0
