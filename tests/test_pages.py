"""Tests of llama_qna/documents/pages.py: quoted sentences on their PDF pages."""

import csv
from difflib import SequenceMatcher
from itertools import zip_longest

import numpy as np
import pypdfium2
import pytest
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase import cidfonts, pdfmetrics
from reportlab.pdfgen.canvas import Canvas

from llama_qna import UserError
from llama_qna.documents.pages import _letters, find, picture
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_pdfs import FONT, stream, write_pdf

CORPORA = ("paper", "physics_reader")
LEFT = [
    "The ferry to the outer islands leaves",
    "at seven, and a second boat fol-",
    "lows it at noon when the wind is low.",
]
RIGHT = ["Nobody may smoke on either of them,", "since the holds are full of dry", "hay for the horses of the islands."]
FERRY = "The ferry to the outer islands leaves at seven, and a second boat follows it at noon when the wind is low."
HAY = "Nobody may smoke on either of them, since the holds are full of dry hay for the horses of the islands."


@pytest.fixture
def write(tmp_path):
    """Write a PDF whose pages are lists of (x, y, line) in the order in which the file stores them."""

    def write(*pages, size=A4, font="Helvetica"):
        canvas = Canvas(str(tmp_path / "ferry.pdf"), pagesize=size)
        for page in pages:
            canvas.setFont(font, 12)
            for x, y, line in page:
                canvas.drawString(x, y, line)
            canvas.showPage()
        canvas.save()
        return tmp_path / "ferry.pdf"

    return write


def column(lines, x=60, y=700):
    return [(x, y - 14 * n, line) for n, line in enumerate(lines)]


def marked(path, place):
    """The letters and digits inside the rectangles of a place."""
    with pypdfium2.PdfDocument(path) as pdf:
        page = pdf[place.page - 1].get_textpage()
        return "".join(_letters(page.get_text_bounded(*box)) for box in place.rectangles)


def gold():
    for corpus in CORPORA:
        with open(REPOSITORY / "data" / corpus / "gold.csv", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield REPOSITORY / "data" / "pdfs" / corpus / f"{row['document']}.pdf", row["evidence"]


def test_the_evidence_of_every_gold_question_is_found_where_it_stands():
    for path, evidence in gold():
        places = find(path, evidence)
        there = "".join(marked(path, place) for place in places)
        # a slanted letter beside a rectangle can lean into it
        ratio = SequenceMatcher(None, there, _letters(evidence), autojunk=False).ratio()
        assert ratio > 0.96, (path.name, evidence, there)
        assert [place.page for place in places] == list(range(places[0].page, places[0].page + len(places)))


def test_a_sentence_is_found_over_line_ends_and_a_hyphen_whatever_its_gaps_and_case(write):
    path = write(column(["Another line stands above."] + LEFT + ["and another one below."]))
    for quote in (FERRY, FERRY.upper(), FERRY.replace(" ", "\n  "), FERRY.rstrip("."), FERRY.replace("fol", "fol-")):
        (place,) = find(path, quote)
        assert place.page == 1 and len(place.rectangles) == 3
        assert marked(path, place) == _letters(FERRY)


def test_ligatures_accents_and_exponents_are_the_same_written_together_or_apart():
    assert _letters("eﬃcient") == _letters("efficient")
    assert _letters("Bru¨cke") == _letters("Brücke") == _letters("Bru\u0308cke")
    assert _letters("10⁹ 𝑥") == _letters("109 x")


def test_a_sentence_is_found_in_columns_in_whatever_order_the_file_stores_them(write):
    left, right = column(LEFT), column(RIGHT, x=320)
    rows = [line for pair in zip_longest(left, right) for line in pair]
    for order in (left + right, right + left, rows, rows[::-1], [*left[::-1], *right[::-1]]):
        for quote in (FERRY, HAY):
            (place,) = find(write(order), quote)
            assert len(place.rectangles) == 3
            assert all((box[0] > 300) == (quote == HAY) for box in place.rectangles)


@pytest.mark.parametrize("cut", [1, 2])  # after it a word is broken, or a sentence goes on
def test_a_sentence_that_goes_on_in_the_next_column_is_marked_in_both(cut, write):
    above = ["Timetables hang in the hall.", "They are of no use at all."]
    left, right = column(above + LEFT[:cut]), column(LEFT[cut:] + RIGHT, x=320)
    rows = [line for pair in zip_longest(left, right) for line in pair if line]
    for order in (left + right, right + left, rows, rows[::-1]):
        path = write(order)
        (place,) = find(path, FERRY)
        assert sorted(box[0] > 300 for box in place.rectangles) == [False] * cut + [True] * (3 - cut)
        assert sorted(marked(path, place)) == sorted(_letters(FERRY))


def test_a_sentence_that_goes_on_overleaf_has_a_place_on_each_page(write):
    head, foot = (60, 800, "Timetables of the coast"), (290, 30, "7")
    note = (60, 60, "1 As in the winter of the great storm, which nobody has forgotten.")
    pages = ([head, *column(LEFT[:2]), note, foot], [head, *column(LEFT[2:] + RIGHT), foot])
    places = find(write(*pages), FERRY)
    assert [place.page for place in places] == [1, 2]
    assert [len(place.rectangles) for place in places] == [2, 1]


def test_a_few_letters_may_differ(write):
    path = write(column(LEFT), column(RIGHT))
    for quote in (FERRY.replace("noon", "n00n"), FERRY.replace("second", "2nd"), "So: " + FERRY):
        (place,) = find(path, quote)
        assert place.page == 1


def test_what_does_not_stand_there_is_not_found(write):
    path = write(column(LEFT), column(RIGHT))
    for quote in (
        "The horses of the coast eat oats and carrots in the winter, and never any hay.",
        "The second ferry smokes full of hay, since the wind leaves the holds of the horses at seven.",
        "of them it is low",
        "",
        "…",
    ):
        assert find(path, quote) == []


def test_a_short_quote_is_a_word_and_not_the_inside_of_one(write):
    path = write(column(["The blacksmiths of 1905 had 19 anvils."]))
    assert find(path, "smith") == find(path, "90") == []
    assert len(find(path, "19")[0].rectangles) == 1


def test_a_short_quote_in_chinese_is_found_inside_its_line(write):
    pdfmetrics.registerFont(cidfonts.UnicodeCIDFont("STSong-Light"))
    path = write(column(["海风吹过小岛。渡船七点离开", "港口，中午还有一班。"]), font="STSong-Light")
    for quote in ("渡船七点离开港口", "中午还有一班。"):
        assert [place.page for place in find(path, quote)] == [1]


def test_every_occurrence_is_a_place_and_a_page_says_where_to_look_first(write):
    path = write(column(LEFT), column(RIGHT), [], column(LEFT))
    assert [place.page for place in find(path, FERRY)] == [1, 4]
    assert [place.page for place in find(path, FERRY, page=4)] == [4]
    assert [place.page for place in find(path, FERRY, page=3)] == [4]
    assert [place.page for place in find(path, FERRY, page=99)] == [1, 4]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_the_picture_is_marked_where_the_text_is_however_the_page_is_turned_and_cropped(tmp_path, turn):
    page = f"<< /Type /Page /Parent 2 0 R /MediaBox [-20 0 595 842] /CropBox [30 100 500 800] /Rotate {turn} "
    page += f"/Contents 4 0 R /Resources << {FONT} >> >>"
    text = stream("BT /F1 12 Tf 60 700 Td (Another line) Tj 0 -20 Td (Mark this line and no other one.) Tj ET")
    pages = "<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    path = write_pdf(tmp_path / "turned.pdf", "<< /Type /Catalog /Pages 2 0 R >>", pages, page, text)
    (place,) = find(path, "Mark this line and no other one.")
    plain, image = (picture(path, 1, boxes, scale=1.5) for boxes in ([], place.rectangles))
    before, after = np.asarray(plain).astype(int), np.asarray(image).astype(int)
    changed, ink = (before != after).any(axis=2), before.sum(axis=2) < 100
    assert 0.5 < (changed & ink).sum() / ink.sum() < 0.9, "one line of two is marked"
    assert (after[changed][:, 2] < 200).all(), "in yellow"
    assert image.size == ((705, 1050) if turn in (0, 180) else (1050, 705))


def test_a_page_of_a_monstrous_size_makes_no_monstrous_picture(write):
    image = picture(write(column(LEFT), size=(14_000, 14_000)), 1, [], scale=4)
    assert max(image.size) <= 4000


def test_what_is_no_pdf_has_no_places_and_a_damaged_one_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text(FERRY)
    assert find(tmp_path / "notes.txt", FERRY) == []
    for name, content in (("damaged.pdf", b"%PDF-1.4 nothing more"), ("empty.pdf", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            find(tmp_path / name, FERRY)
    with pytest.raises(UserError, match="absent.pdf"):
        find(tmp_path / "absent.pdf", FERRY)


def test_a_page_that_is_not_there_is_refused(write):
    with pytest.raises(UserError, match="no page 2"):
        picture(write(column(LEFT)), 2, [])
