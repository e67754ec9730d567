"""Sentences are found by their own words and their neighbours', and given in runs as they stand in the document."""

import numpy as np
import pandas as pd
import pytest

from llama_qna import UserError
from llama_qna.answering.sentences import LONGEST, Sentences
from llama_qna.documents.chunks import split
from llama_qna.documents.clean import Document, Paragraph
from llama_qna.project.data import CHUNK_COLUMNS
from llama_qna.project.recipe import Chunking
from llama_qna.text.search import Search
from llama_qna.text.windows import Windows

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


@pytest.fixture(scope="module")
def harbour():
    return Sentences(chunks_of([("1 Orsk", " ".join(FACTS))]))


def test_the_sentences_of_overlapping_chunks_are_those_of_the_text(harbour):
    assert [sentence.text for sentence in harbour.all] == [fact.replace(" [3]", "") for fact in FACTS]
    assert len({sentence.chunk_id for sentence in harbour.all}) > 1


def found(sentences, question, count=3):
    return [sentences.all[n].text for n in sentences.find(question, count)]


def test_the_sentence_with_the_words_is_found_first(harbour):
    assert found(harbour, "How long does the basin freeze?")[0].startswith("In winter the basin")
    assert len(found(harbour, "How long does the basin freeze?", 2)) <= 2


def test_a_neighbour_is_found_by_the_words_around_it(harbour):
    assert "He kept goats on the mole." in found(harbour, "What did the lighthouse keeper do?")


def test_a_passage_is_a_sentence_with_its_neighbours(harbour):
    n = harbour.find("How long does the basin freeze?", 1)[0]
    assert harbour.passage(n).text == " ".join(FACTS[4:7])
    assert harbour.passage(n, around=0).text == FACTS[5]
    assert harbour.passage(0).text == " ".join(fact.replace(" [3]", "") for fact in FACTS[:2])


def test_passages_do_not_cross_sections():
    sentences = Sentences(chunks_of([("1 A", "Copper melts at 1085 degrees."), ("2 B", "Copper is red.")]))
    passages = [sentences.passage(n) for n in sentences.find("What is copper like?", 5)]
    assert sorted((passage.section, passage.text) for passage in passages) == [
        ("1 A", "Copper melts at 1085 degrees."),
        ("2 B", "Copper is red."),
    ]


def test_a_question_that_shares_no_word_finds_nothing(harbour):
    assert harbour.find("Quid nunc?", 5) == []


def test_how_many_words_of_a_question_stand_around_a_sentence(harbour):
    asked = "Who was the keeper of the lighthouse?"
    near = harbour.find(asked, 1)[0]
    assert harbour.share(asked, near) == 1
    assert harbour.share("Who was the keeper of the zeppelin?", near) == 0.5
    assert harbour.share("How tall is the zeppelin?", near) == 0
    assert harbour.share("Who was it?", near) == 0


def test_the_words_are_those_of_the_language_of_the_sentence():
    german = "Der Hafen von Orsk wurde im Jahr 1841 ausgehoben. Seine Mole besteht aus rotem Granit. Er ist sehr tief."
    both = Sentences(chunks_of([("1 Orsk", " ".join(FACTS)), ("2 Hafen", german)]))
    asked = "Why was the harbour of Orsk dug?"
    assert both.share(asked, both.find(asked, 1)[0]) == 1


def test_words_four_sentences_away_are_not_around_it(harbour):
    assert harbour.share("Which ferry?", 7) == 1
    assert harbour.share("Which ferry?", 4) == 1
    assert harbour.share("Which ferry?", 3) == 0


def test_nothing_to_search_is_said():
    with pytest.raises(UserError):
        Sentences(chunks_of([("1", "It is. They are.")]))


def test_chunks_that_share_letters_but_no_words_are_not_glued_together():
    rows = chunks_of([("1 A", "The mill stands in the north.")]).iloc[[0, 0]].copy()
    rows["text"] = ["The mill of the north", "hangs on a chain."]
    assert [sentence.text for sentence in Sentences(rows).all] == ["The mill of the north hangs on a chain."]


def sentences_in(*paragraphs, size=120, overlap=40):
    """The sentences of a document of (section, text) paragraphs."""
    document = Document("d", 1, [Paragraph(text, 1, section) for section, text in paragraphs], [])
    rows = split(document, Chunking(chunk_size=size, chunk_overlap=overlap))
    return Sentences(pd.DataFrame([row | {"tokens": 1} for row in rows], columns=CHUNK_COLUMNS))


def test_sections_of_the_same_title_are_read_each_for_itself():
    chapters = [("1", "The ferry."), ("Notes", "Smith 2003"), ("2", "The mill."), ("Notes", "Hall 2008")]
    found = sentences_in(*chapters, ("3", "[3]"), ("Notes", "Kim 2010"), ("4", "The end."), ("Notes", "[4]"))
    texts = [sentence.text for sentence in found.all]
    assert texts == ["The ferry.", "Smith 2003", "The mill.", "Hall 2008", "Kim 2010", "The end."]
    assert found.passage(4).text == "Kim 2010"


def test_nothing_but_citation_marks_is_nothing_to_search():
    with pytest.raises(UserError):
        sentences_in(("1", "[3]"), ("2", "[4, 5]"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("It hangs on a chain [1,", "2] of steel. The wind turns it."),
        ("It hangs on a chain [1,", "a chain [1, 2] of steel. The wind turns it."),
        ("It hangs on a chain [1, 2]", "[1, 2] of steel. The wind turns it."),
    ],
)
def test_a_citation_may_be_cut_by_the_border_of_a_chunk(first, second):
    rows = chunks_of([("1 A", "The mill stands in the north.")]).iloc[[0, 0]].copy()
    rows["text"], rows["chunk_id"] = [first, second], ["d0-0000", "d0-0001"]
    found = Sentences(rows).all
    assert [source.text for source in found] == ["It hangs on a chain of steel.", "The wind turns it."]
    assert [source.chunk_id for source in found] == ["d0-0000", "d0-0001"]


@pytest.mark.parametrize("line", ["item {n}: bolt M{n}, shelf {m}", "螺栓{n}号，在{m}号架上", "- valve {n} [3]"])
@pytest.mark.parametrize("size", [120, 1024])
def test_a_text_without_full_stops_is_cut_at_its_lines(line, size):
    lines = [line.format(n=n, m=n % 97) for n in range(400)]
    found = [sentence.text for sentence in sentences_in(("1 Stock", "\n".join(lines)), size=size).all]
    assert found == [line.replace(" [3]", "") for line in lines]


@pytest.mark.parametrize("word", ["word{n} ", "字{n}"])
def test_a_line_without_end_is_cut_between_words(word):
    text = "".join(word.format(n=n) for n in range(3000)).strip()
    found = [sentence.text for sentence in sentences_in(("1", text), size=1024).all]
    assert max(map(len, found)) <= LONGEST and all(part in text for part in found)
    if " " in word:
        assert " ".join(found) == text


@pytest.mark.parametrize("overlap", [0, 100, 390, 500, 900])
def test_the_overlap_of_chunks_may_be_long(overlap):
    valves = [f"Sentence {n} tells that valve {n} opens at {n * 3} bar in the hall." for n in range(60)]
    found = sentences_in(("1", " ".join(valves)), size=1024, overlap=overlap).all
    assert [sentence.text for sentence in found] == valves


def test_the_overlap_of_chunks_without_spaces_is_found():
    valves = [f"第{n}号阀门在北厅打开。" for n in range(60)]
    assert [sentence.text for sentence in sentences_in(("1", "".join(valves))).all] == valves


@pytest.mark.parametrize("around", [0, 1, 3])
def test_a_window_has_the_score_of_the_text_that_it_is(around):
    """The index never writes windows down; BM25 over the written ones is what it has to say."""
    sections = [FACTS[:5], FACTS[5:6], FACTS[6:] + FACTS[:2], ["It is.", "Goats eat ice, and ice again."]]
    texts = [text for section in sections for text in section]
    numbers = [n for n, section in enumerate(sections) for _ in section]
    written = [
        " ".join(section[max(0, n - around) : n + around + 1]) for section in sections for n in range(len(section))
    ]
    expected, index = Search(texts, written), Windows(texts, numbers, ["en"] * len(texts), [around])
    for question in ("How long does the basin freeze?", "Which goats kept the goats off the mole?", "Quid nunc?", ""):
        assert np.allclose(index.scores(question), expected.scores(question), atol=1e-5)
    assert np.allclose(
        Windows(texts, numbers, ["en"] * len(texts), [0, around]).scores("goats"),
        Search(texts, texts).scores("goats") + expected.scores("goats"),
        atol=1e-5,
    )
