"""Tests of llama_qna/documents/heldout.py and quality.py: what training text says is not held out, and what is said."""

import random
import re

import pytest

from llama_qna.documents.clean import Document, Paragraph
from llama_qna.documents.heldout import hold_out
from llama_qna.documents.quality import MOST_LINES, needs_ocr, shortfalls
from llama_qna.project.recipe import Heldout

HALF = Heldout(fraction=0.5, seed=1)
WORDS = "boat coal dust elm fern gate hill iron jar kite lamp moss nail oak pond quay reed salt tide vine well".split()


def passage(n, words=40, of=WORDS, gap=" "):
    """So many words that no other number gives in the same order."""
    draw = random.Random(n)
    return gap.join(draw.choice(of) for _ in range(words)) + "."


def document(name, sections):
    """A document with the paragraphs of each section."""
    paragraphs = [Paragraph(text, 1, title) for title, texts in sections.items() for text in texts]
    return Document(name, 1, paragraphs, [], {"file": f"{name}.pdf", "pages": 1, "characters": 900, "needs_ocr": [],
                                              "repairs": {}})  # fmt: skip


def texts(documents, chosen, held):
    return [p.text for d in documents for p in d.paragraphs if (p.section in chosen[d.name]) == held]


def held_and_training(*documents):
    kept, chosen = hold_out(list(documents), HALF)
    return texts(kept, chosen, True), texts(kept, chosen, False), kept


def changed(text, count):
    words = text.split()
    for n in range(count):
        words[10 + 13 * n] = "zeal"
    return " ".join(words)


def own(name, first):
    return document(name, {"A": [passage(first), passage(first + 1)], "B": [passage(first + 2), passage(first + 3)]})


def test_where_nothing_is_said_twice_nothing_goes():
    held, training, kept = held_and_training(own("one", 0), own("two", 10))
    assert len(held) == len(training) == 4
    assert all("heldout_dropped" not in each.report for each in kept)


@pytest.mark.parametrize(
    "change", [str, str.upper, lambda text: changed(text, 1), lambda text: f"As said: {text}", lambda text: text[:-30]]
)
def test_held_out_paragraph_that_training_text_nearly_says_goes(change):
    one, two = own("one", 0), own("two", 10)
    held, training, _ = held_and_training(one, two)
    for n, paragraph in enumerate(two.paragraphs):
        if paragraph.text in training:
            two.paragraphs[n] = Paragraph(change(held[0]), 1, paragraph.section)
            break
    now_held, now_training, kept = held_and_training(one, two)
    assert now_held == held[1:] and change(held[0]) in now_training
    assert [each.report.get("heldout_dropped") for each in kept] == [1, None]


@pytest.mark.parametrize(
    "words, gap",
    [
        ("Fähre Öl Tür Gasse Küste Mühle Brücke Segel Straße Häuser Wälder Bäche".split(), " "),
        ("паром уголь пыль вяз холм ключ лампа мох гвоздь дуб пруд ёлка".split(), " "),
        (list("潮水每天上涨两次渔民们在旧港口等候它船"), ""),
        (list("しおは一日に二度みちて漁師たちが古い港でまつ"), ""),
        (list("바다물은하루에두번들어오고어부들이옛항구서기다린"), " "),
        ("น้ำ ขึ้น วัน ละ สอง ครั้ง และ ชาว ประมง รอ ที่ ท่าเรือ เก่า".split(), ""),
        ("يرتفع المد مرتين في اليوم وينتظره الصيادون الميناء القديم".split(), " "),
    ],
)
def test_it_goes_in_any_script(words, gap):
    def made(name, first):
        return document(name, {t: [passage(first + n, 60, words, gap)] for n, t in enumerate("ABCD")})

    held, training, _ = held_and_training(made("one", 0), made("two", 10))
    assert len(held) == len(training) == 4, "what is not the same stays"
    again = made("two", 10)
    at = next(n for n, paragraph in enumerate(again.paragraphs) if paragraph.text in training)
    nearly = words[0] + gap + held[0][: int(0.85 * len(held[0]))]
    again.paragraphs[at] = Paragraph(nearly, 1, again.paragraphs[at].section)
    now_held, now_training, _ = held_and_training(made("one", 0), again)
    assert now_held == held[1:] and nearly in now_training


def test_a_passage_inside_a_longer_training_paragraph_is_found_too():
    one, two = own("one", 0), own("two", 10)
    held, training, _ = held_and_training(one, two)
    section = next(p.section for p in two.paragraphs if p.text in training)
    two.paragraphs.append(Paragraph(f"{passage(77, 400)} {held[0]} {passage(78, 400)}", 1, section))
    assert held[0] not in held_and_training(one, two)[0]


def test_what_differs_in_most_words_or_is_short_stays():
    one, two = own("one", 0), own("two", 10)
    one.paragraphs += [Paragraph("This is shown below.", 1, title) for title in "AB"]
    two.paragraphs += [Paragraph("This is shown below.", 1, title) for title in "AB"]
    held, training, _ = held_and_training(one, two)
    assert held.count("This is shown below.") == training.count("This is shown below.") == 2


def test_two_editions_of_which_nothing_is_left_to_hold_out_say_so():
    said = []
    for seed in range(5):
        first = document("one", {"A": [passage(1)], "B": [passage(2)]})
        second = document("two", {"A": [passage(2)], "B": [passage(1)]})
        kept, chosen = hold_out([first, second], Heldout(fraction=0.5, seed=seed))
        lines = shortfalls({"documents": {each.name: each.report for each in kept}, "left_out": {}})
        assert ("nothing is held out of" in " ".join(lines)) == (not all(chosen.values()))
        said += lines
    assert any("training text says the same" in line for line in said)


def test_where_nothing_can_be_held_out_one_line_says_why():
    single = [document(f"d{n}", {"": [passage(n)]}) for n in range(5)]
    kept, chosen = hold_out(single, HALF)
    assert set(map(tuple, chosen.values())) == {()}
    (line,) = shortfalls({"documents": {each.name: each.report for each in kept}, "left_out": {}})
    assert all(f"d{n}.pdf" in line for n in range(5)) and "second section" in line
    kept, _ = hold_out(single, Heldout())
    assert shortfalls({"documents": {each.name: each.report for each in kept}, "left_out": {}}) == []


@pytest.mark.parametrize(
    "report, said",
    [
        ({"needs_ocr": [3]}, "page 3 needs OCR"),
        ({"needs_ocr": [3, 4]}, "pages 3, 4 need OCR"),
        ({"characters": 14}, "nearly empty: 14 characters on 1 page"),
        ({"characters": 900, "pages": 40}, "nearly empty: 900 characters on 40 pages"),
        (
            {"repairs": {"control and private-use characters dropped": 90, "dropped: private-use glyphs": 90}},
            "10.0% of the characters were dropped (private-use glyphs)",
        ),
        ({"heldout_dropped": 2}, "2 held-out paragraphs"),
    ],
)
def test_a_document_read_in_part_has_a_line(report, said):
    whole = document("a", {}).report
    (line,) = shortfalls({"documents": {"a": whole | report}, "left_out": {}})
    assert line.startswith("a.pdf: ") and said in line
    assert shortfalls({"documents": {"a": whole}, "left_out": {}}) == []


def test_a_thousand_files_left_out_are_all_named_and_do_not_bury_the_rest():
    pictures = {f"{n}.png": "a picture" for n in range(1000)}
    reports = {"documents": {}, "left_out": pictures | {f"{n}.pdf": "damaged" for n in range(MOST_LINES)}}
    first, *others = shortfalls(reports)
    assert all(name in re.split("[ ,]+", first) for name in pictures)
    assert others == [f"left out: {n}.pdf: damaged" for n in range(MOST_LINES)]


@pytest.mark.parametrize(
    "page, needs",
    [
        ("", True),
        (" \r\n ", True),
        ("The ferry leaves at seven.", False),
        ("\x01\x04\x05\x06\ufffe\x07 a", True),
        ("\ue001\ue002\ue003 \ue004 12", True),
        ("(cid:1)(cid:22)(cid:3)", True),
        ("A page with one \ue001 glyph and \ufffd another.", False),
        ("·  —  ·", False),
    ],
)
def test_letters_whose_font_does_not_say_what_they_are_need_ocr(page, needs):
    assert needs_ocr(page) == needs
