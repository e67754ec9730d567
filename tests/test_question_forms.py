"""Tests of llama_qna/pairs/grammar.py on sentences of the shipped documents.

What counts is which questions the model can be led to, so most tests say a question: `can_ask` is true if one of the
sentence's forms is that question, or begins it and has the words for the rest.
"""

import pytest

from llama_qna.pairs.filters import QUESTION_WORD
from llama_qna.pairs.grammar import FUNCTION_WORDS, base_forms, forms, inversions, is_verb, lower_first, stands_alone


def can_ask(sentence, question):
    return any(_leads_to(form, question) for form in forms(sentence))


def _leads_to(form, question):
    if not form.words:
        return form.beginning == question
    if not question.startswith(f"{form.beginning} "):
        return False
    rest = question.removeprefix(form.beginning).removesuffix("?").split()
    return set(rest) <= {*form.words, *FUNCTION_WORDS} and (not form.verb or bool(set(rest) & set(form.verb)))


def beginnings(sentence):
    return [form.beginning for form in forms(sentence)]


LOVELACE = "Claud Lovelace found in 1971 that the original string makes sense only in 26 dimensions of spacetime."
BUDGET = (
    "The budget is stated for the full path, in which an input passes all five stages, because the full path fixes the "
    "longest latency."
)
BACKBONE = "For an input of 96×96 pixels the dense backbone has 1.40 million parameters and needs 56.0 million MACs."
SAVING = (
    "Relative to the dense network, Wicketfold saves 57.9% of the MACs on Hedgerow-31 and loses 0.5 points of accuracy."
)
SEARCH = (
    "The threshold search takes four minutes on the processor, because the outputs of all wickets are stored "
    "beforehand."
)
CAVENDISH = (
    "Henry Cavendish measured the gravity of lead balls in 1798 with a torsion balance, a rod hung from a fine wire."
)
FIZEAU = (
    "Hippolyte Fizeau had measured the speed of light in 1849, with a toothed wheel and a mirror more than 8 "
    "kilometers away, and his figure was about 315,000 kilometers per second."
)
PLASMA = "Plasma at 15,000 kelvin is fifty times hotter than a room at 300 kelvin."
LASER = "With 80 million pulses of 100 femtoseconds, the laser shines for 8 microseconds in each second."
ENERGY = "Energy was measured with an Amberline P3 power meter that samples the supply current 10,000 times per second."
CHANNELS = "The channels with the lowest rank are removed."
DIRAC = (
    "In 1928 Paul Dirac found an equation for the electron that obeyed both quantum mechanics and special relativity."
)
TRAFFIC = "The traffic of a stage depends on the data."

ANSWERED = [
    # a number
    (BACKBONE, "How many parameters does the dense backbone have?"),
    ("The cell contains some 350 billion potassium ions.", "How many potassium ions does the cell contain?"),
    # a share
    (SAVING, "What percentage of the MACs on Hedgerow-31 does Wicketfold save?"),
    ("The Earth reflects about 30 percent of the sunlight.", "What percentage of the sunlight does the Earth reflect?"),
    # a year
    (
        LOVELACE,
        "In what year did Claud Lovelace find that the original string makes sense only in 26 dimensions of spacetime?",
    ),
    (CAVENDISH, "In what year did Henry Cavendish measure the gravity of lead balls with a torsion balance?"),
    (
        "Apostolos Georgopoulos showed in the 1980s that each cell in a monkey’s motor cortex fires most for one "
        "direction of reach.",
        "When did Apostolos Georgopoulos show that each cell in a monkey’s motor cortex fires most for one direction "
        "of reach?",
    ),
    # a person
    (CAVENDISH, "Who measured the gravity of lead balls in 1798 with a torsion balance?"),
    (FIZEAU, "Who had measured the speed of light in 1849?"),
    (DIRAC, "Who found an equation for the electron that obeyed both quantum mechanics and special relativity?"),
    # a cause or a means
    (BUDGET, "Why is the budget stated for the full path?"),
    (
        "Thinking hard costs almost nothing extra, because the brain at rest is not idle.",
        "Why does thinking hard cost almost nothing extra?",
    ),
    (
        "In 1973 Paul Lauterbur made an image by giving the field a gradient, so that place becomes pitch.",
        "How did Paul Lauterbur make an image in 1973?",
    ),
    (
        "In quantum field theory two electrons repel each other by exchanging photons.",
        "How do two electrons repel each other in quantum field theory?",
    ),
    # a span of time, a temperature, a speed
    (SEARCH, "How long does the threshold search take on the processor?"),
    (LASER, "How long does the laser shine in each second?"),
    (PLASMA, "At what temperature is plasma fifty times hotter than a room at 300 kelvin?"),
    ("The signal travelled at about 27 metres per second.", "At what speed did the signal travel?"),
    # a condition
    (
        "A Toll controller lowers the exit thresholds when the battery is weak.",
        "When does a Toll controller lower the exit thresholds?",
    ),
    # what something is, or how it is done
    (
        "The dimension of a space is the smallest count of independent numbers that fixes a point in it.",
        "What is the dimension of a space?",
    ),
    (
        "The Corvane A2 is a processor board with two cores at 1.2 GHz and 512 MB of memory.",
        "What is the Corvane A2?",
    ),
    (ENERGY, "How was energy measured?"),
    # the object of a verb
    (TRAFFIC, "What does the traffic of a stage depend on?"),
    (DIRAC, "What did Paul Dirac find in 1928?"),
    (
        "A new device with a different budget requires the Press and Settle phases to be run again.",
        "What does a new device with a different budget require?",
    ),
    # what is done to something
    (CHANNELS, "What happens to the channels with the lowest rank?"),
    (
        "The clips are divided into 48,960 for training, 6,120 for validation and 6,120 for testing.",
        "What happens to the clips?",
    ),
]


@pytest.mark.parametrize("sentence, question", ANSWERED)
def test_sentence_answers_the_question(sentence, question):
    assert stands_alone(sentence)
    assert can_ask(sentence, question), forms(sentence)


@pytest.mark.parametrize(
    "sentence, question",
    [
        # the number of another verb, or of the other half of the sentence
        (SAVING, "What percentage of accuracy does Wicketfold lose?"),
        # words that the sentence does not have
        (BACKBONE, "How many parameters does the human brain have?"),
        (CAVENDISH, "Who measured the charge of the electron in 1798?"),
        # the year of what stands in a later clause
        (
            "Immanuel Kant linked the inverse-square law to the three dimensions of space in his first book, which he "
            "finished in 1747.",
            "In what year did Immanuel Kant link the inverse-square law to the three dimensions of space?",
        ),
        # what is no person
        ("The Large Hadron Collider near Geneva reaches 13.6 TeV in a collision.", "Who reaches 13.6 TeV?"),
        ("Optimal Brain Damage estimated the effect of removing a weight.", "Who estimated the effect?"),
        # a participle of the subject
        ("Noise recorded in three flour mills was mixed in.", "What did noise record?"),
        # an exit that has no object
        (TRAFFIC, "What does the traffic of a stage depend?"),
    ],
)
def test_sentence_does_not_answer_the_question(sentence, question):
    assert not can_ask(sentence, question), forms(sentence)


def test_the_most_definite_question_comes_first():
    assert beginnings(CAVENDISH)[0].startswith("Who measured")
    assert beginnings(SEARCH)[0].startswith("How long")


@pytest.mark.parametrize("sentence", sorted({sentence for sentence, _ in ANSWERED}))
def test_every_form_is_a_whole_question_or_has_words_to_become_one(sentence):
    for form in forms(sentence):
        assert form.words or form.beginning.endswith("?")
        assert not (form.words and form.beginning.endswith("?"))
        assert form.beginning[0].isupper() and QUESTION_WORD.search(form.beginning)
        assert not {"its", "their", "it"} & set(form.words), "the question would lean on its sentence"


@pytest.mark.parametrize(
    "sentence",
    [
        "It reads the battery once every 64 inferences.",  # nobody knows what it is
        "His friend Marcel Grossmann had led him to Riemann’s geometry in 1912.",
        "The wickets use a 2×2 grid here, which costs little.",
        "The final head needs no temperature, because its answer is always accepted.",
        "Both are the subjects of our next work, and of the next paper.",
        "Each turn is a right angle, and the triangle holds 270 degrees.",
        "None of them broke Abbe’s law in the years after the war.",
        "Yet in 1962 she reported that he had learned to trace a star seen in a mirror.",
        "The force is established.1 In Casimir’s idealized calculation the energy density is lower.",  # a footnote
        "The largest fraction of heat is 1The manual used by patent examiners in the United States.",
        "The six dimensions can be folded in very",  # no end
        "as much as the burning of 3,000 tonnes of good coal was worth in those days.",  # no beginning
        "That remains a conjecture.",  # too short
        "Table 3 lists the shares of test inputs that stop at each output of the network.",
        "Dropout (with a rate of 0.1 is applied before the classifier of the final head.",  # half a bracket
    ],
)
def test_sentence_that_leans_on_others_is_not_asked_about(sentence):
    assert not stands_alone(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "The gray lines of the tesseract are the paths of the corners of a cube.",
        "The codebook entries are signed 8-bit integers.",
        "The fitted temperatures on Hedgerow-31 are 1.62 for W1, 1.38 for W2 and 1.21 for W3.",
        "Electrons in a warm crystal move in all directions.",
    ],
)
def test_plural_nouns_are_not_taken_for_verbs(sentence):
    """A question with "does" would have one of them as its verb; "What is" and "What happens" ask for the true verb."""
    assert not [question for question in beginnings(sentence) if question.split()[1] in ("does", "did")]


def test_a_sentence_without_a_fact_gives_no_question():
    assert forms("No matter how long anybody waits.") == []
    assert forms("Nothing.") == []


# --- verbs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form, base",
    [
        ("takes", "take"),
        ("stopped", "stop"),
        ("studied", "study"),
        ("carries", "carry"),
        ("reaches", "reach"),
        ("measured", "measure"),
        ("found", "find"),
        ("wrote", "write"),
        ("had", "have"),
        ("travelled", "travel"),
    ],
)
def test_base_form(form, base):
    assert is_verb(form)
    assert base in base_forms(form)


@pytest.mark.parametrize("word", ["mass", "across", "the", "Faraday", "of", "quickly", "blorped", "energy"])
def test_words_that_are_no_finite_verbs(word):
    assert not is_verb(word)


@pytest.mark.parametrize(
    "words, lowered",
    [
        ("The channels", "the channels"),
        ("Energy", "energy"),
        ("A system", "a system"),
        ("Einstein", "Einstein"),
        ("Paul Dirac", "Paul Dirac"),
        ("MACs", "MACs"),
        ("Wicketfold", "Wicketfold"),
        ("W1", "W1"),
    ],
)
def test_capital_stays_on_names_alone(words, lowered):
    assert lower_first(words.split()) == lowered


@pytest.mark.parametrize(
    "statement, turned",
    [
        ("Riemann gave no limit on the number of dimensions", "did Riemann give no limit on the number of dimensions"),
        ("A stage can stop the inputs", "can a stage stop the inputs"),
        ("The board draws 60 mW with the dense network", "does the board draw 60 mW with the dense network"),
        ("Kardashev, an astronomer, classified all civilizations", "did Kardashev classify all civilizations"),
        ("The network typically keeps more channels", "does the network keep more channels"),
        ("The work was supported by a fund", "was the work supported by a fund"),
    ],
)
def test_statement_is_turned_round(statement, turned):
    first = next(inversions(statement))
    assert " ".join(f"{first.auxiliary} {first.subject} {first.verb} {first.rest}".split()) == turned


@pytest.mark.parametrize("statement", ["", "Nobody", "Nothing takes four minutes"])
def test_statement_without_a_subject_of_its_own_is_not_turned_round(statement):
    assert list(inversions(statement)) == []
