"""Tests of llama_qna/documents/read.py on the shipped PDFs and on made pages."""

import re
from collections import Counter
from functools import cache

import pypdfium2
import pytest

from llama_qna.documents.read import read_document
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_pdfs import cleaned, text_of

DATA = REPOSITORY / "data"
PDFS = sorted(DATA.glob("pdfs/*/*.pdf"))
PAPER = DATA / "pdfs" / "paper" / "wicketfold.pdf"
EXTRACTORS = ["pypdfium2", "pdfminer"]
by_extractor = pytest.mark.parametrize("extractor", EXTRACTORS)
by_pdf = pytest.mark.parametrize("pdf", PDFS, ids=lambda path: path.stem)
SLOWLY = PDFS[:2]  # the paper and a book: pdfminer takes seconds for each
by_reading = pytest.mark.parametrize(
    "pdf, extractor",
    [(pdf, "pypdfium2") for pdf in PDFS] + [(pdf, "pdfminer") for pdf in SLOWLY],
    ids=lambda value: getattr(value, "stem", value),
)


@cache
def read(pdf, extractor):
    return read_document(pdf, extractor)


def source_sentences(pdf):
    """The sentences of a PDF's Typst source that are plain text, as the PDF prints them."""
    source = DATA / "sources" / pdf.parent.name / f"{pdf.stem}.typ"
    paragraphs = [line for line in source.read_text(encoding="utf-8").splitlines() if re.match(r"[A-Z]", line)]
    sentences = [sentence for text in paragraphs for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)]
    plain = [sentence for sentence in sentences if not re.search(r"[$#*_\\@`<~/\[\]]|--|\.\.\.", sentence)]
    return [re.sub(r'"([^"]*)"', r"“\1”", sentence.replace("'", "’")) for sentence in plain]


# --- the shipped PDFs ------------------------------------------------------------------------------------------------


def test_there_are_five_shipped_pdfs():
    assert [pdf.stem for pdf in PDFS] == [
        "wicketfold", "higher_dimensions", "impossible_and_hard", "mind_and_brain", "next_hundred_years"
    ]  # fmt: skip


@by_reading
def test_sentences_of_the_source_stand_unbroken(pdf, extractor):
    """What is missing are sentences that a figure or a footnote parts at a page's end."""
    text = read(pdf, extractor).text()
    sentences = source_sentences(pdf)
    found = [sentence for sentence in sentences if sentence in text]
    assert len(sentences) > 120
    assert len(found) >= 0.97 * len(sentences)


@by_extractor
@pytest.mark.parametrize(
    "sentence",
    [
        # words broken at a line's end, joined again
        "the device stops at the first classifier that is sure enough of its answer [6, 7].",
        "folded codebooks store most weights as 4-bit indices into three shared tables that fit into the registers of "
        "a microcontroller.",
        "SqueezeNet [5] reduced parameters with narrow layers of 1×1 filters.",
        "There is no wicket after S1, for reasons given in Section 7. Figure 1 shows the arrangement.",
        # compounds broken at their own hyphen, kept
        "On Hedgerow-31 the mean number of multiply-accumulate operations (MACs) falls from 56.0 million to 23.6 "
        "million per image",
        # over the end of a page: hyphen, page number and running header lie in between
        "Shallow-Deep Networks [9] showed that a deep network often reaches the right answer at an intermediate layer",
    ],
)
def test_sentence_with_a_word_broken_at_a_line_end(sentence, extractor):
    assert sentence in read(PAPER, extractor).text()


@by_extractor
def test_running_header_and_page_numbers_of_the_paper_are_gone(extractor):
    document = read(PAPER, extractor)
    assert "Wicketfold: Early-Exit Networks on Small Devices" not in document.text()
    assert "Original document of the Llama-2 QnA repository" not in document.text()
    # what stands on both sides of a page's end
    assert "Attention Is All You Need." in document.text()
    assert not [p.text[-60:] for p in document.paragraphs if re.search(r"[a-z.)] \d$", p.text)]
    assert document.report["repairs"]["running headers, footers, page numbers"] >= 8 + 8


@by_reading
def test_running_header_of_every_page_is_gone(pdf, extractor):
    """Headers are what the raw pages have as their first line more than once; a title page may say it once more."""
    with pypdfium2.PdfDocument(pdf) as raw:
        first = Counter(page.get_textpage().get_text_bounded().splitlines()[0].strip() for page in raw)
    headers = [line for line, count in first.items() if count > 1]
    assert headers
    for header in headers:
        assert read(pdf, extractor).text().count(header) <= 1


@by_pdf
def test_pages_are_counted(pdf):
    with pypdfium2.PdfDocument(pdf) as raw:
        count = len(raw)
    for extractor in EXTRACTORS if pdf in SLOWLY else EXTRACTORS[:1]:
        document = read(pdf, extractor)
        pages = [paragraph.page for paragraph in document.paragraphs]
        assert document.pages == count
        pages += [page for _, _, page in document.references]
        assert pages == sorted(pages)
        assert pages[0] == 1 and pages[-1] in (count - 1, count), "the last page may hold only the end of a paragraph"


@by_extractor
def test_references_are_complete_and_in_order(extractor):
    references = read(PAPER, extractor).references
    assert [number for number, _, _ in references] == list(range(1, 36))
    assert references[0][1] == (
        "Y. LeCun, J. S. Denker, and S. A. Solla. Optimal Brain Damage. In Advances in Neural Information Processing "
        "Systems, 1989."
    )
    assert references[-1][1] == (
        "T.-Y. Lin, M. Maire, S. Belongie, J. Hays, P. Perona, D. Ramanan, P. Dollár, and C. L. Zitnick. Microsoft "
        "COCO: Common Objects in Context. In European Conference on Computer Vision, pages 740–755, 2014."
    )
    assert [references[n][2] for n in (0, 10, 34)] == [7, 7, 8]


@by_extractor
def test_every_reference_is_as_in_the_source(extractor):
    source = (DATA / "sources" / "paper" / "wicketfold.typ").read_text(encoding="utf-8")
    entries = [entry.replace("\\", "") for entry in re.findall(r"^\[\d+\] (.*)$", source, re.M)]
    assert [entry for _, entry, _ in read(PAPER, extractor).references] == entries


@by_extractor
def test_sections_of_the_paper_with_their_pages(extractor):
    first = {}
    for paragraph in read(PAPER, extractor).paragraphs:
        first.setdefault(paragraph.section, paragraph.page)
    expected = {"Abstract": 1, "1 Introduction": 1, "2 Related Work": 1, "3.1 Backbone and wickets": 2}
    expected |= {"3.2 The hinge score": 3, "5.3 Baselines": 5, "8.3 Field test": 6, "10 Conclusion": 7}
    assert {section: first.get(section) for section in expected} == expected


def test_sections_of_the_paper_are_those_of_its_source():
    source = (DATA / "sources" / "paper" / "wicketfold.typ").read_text(encoding="utf-8")
    titles = re.findall(r"^={1,2} (.*)$", source, re.M)
    found = [section for section in dict.fromkeys(p.section for p in read(PAPER, "pypdfium2").paragraphs) if section]
    bare = [re.sub(r"^[\d.]+ ", "", section) for section in found]
    # a chapter that opens with a section of its own has no text
    without_text = ["Method", "Experimental Setup", "Results", "Energy and Deployment"]
    assert bare == ["Abstract", *(title for title in titles if title not in without_text), "Acknowledgements"]


@pytest.mark.parametrize("pdf", PDFS[1:], ids=lambda path: path.stem)
def test_sections_of_a_book_are_those_of_its_source(pdf):
    source = (DATA / "sources" / pdf.parent.name / f"{pdf.stem}.typ").read_text(encoding="utf-8")
    titles = [title.replace("'", "’") for title in re.findall(r"^== (.*)$", source, re.M)]
    sections = dict.fromkeys(p.section.replace("'", "’") for p in read(pdf, "pypdfium2").paragraphs if p.section)
    assert [re.sub(r"^[\d.]+ ", "", section) for section in sections] == titles


@pytest.mark.parametrize("pdf", SLOWLY, ids=lambda path: path.stem)
def test_both_extractors_give_the_same_words(pdf):
    """About 99% of the words; the rest are exponents (10 12 or 1012) and the letters of formulas."""
    one, other = (Counter(re.findall(r"\w+", read(pdf, extractor).text())) for extractor in EXTRACTORS)
    assert (one & other).total() > 0.985 * max(one.total(), other.total())


@by_extractor
def test_letters_of_formulas_are_plain(extractor):
    text = read(PAPER, extractor).text()
    assert not re.findall("[\U0001d400-\U0001d7ff]", text)
    assert "Let pk be the calibrated class probabilities of wicket k" in text
    assert "The input stops at wicket k if hk is at least the threshold θk" in text, "ℎ is U+210E, not of the block"


@by_reading
def test_no_ligature_no_control_character_is_left(pdf, extractor):
    text = read(pdf, extractor).text()
    assert not re.findall("[ﬀ-ﬆ\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\ue000-\uf8ff\ufffe]", text)


# --- made pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["7", "- 7 -", "– 12 –", "ix", "1024"])
def test_bare_page_number_at_an_edge_is_dropped(number):
    assert text_of(f"The body stays.\n{number}") == "The body stays."
    assert text_of(f"{number}\nThe body stays.") == "The body stays."


def test_number_inside_a_page_stays():
    assert "42" in text_of("The number is\n42\nas everybody knows.")


def test_line_that_stands_on_one_page_only_stays():
    assert text_of("A Title\nThe body stays.", "Another page.") == "A Title The body stays. Another page."


def test_headings_by_their_look_and_references():
    page = "1 Introduction\nSome text.\n2.1 The Method\nMore.\nReferences\n[1] A. One. First.\n[2] B. Two. A\nlong one"
    document = cleaned(page)
    assert [(p.section, p.text) for p in document.paragraphs] == [
        ("1 Introduction", "Some text."),
        ("2.1 The Method", "More."),
    ]
    assert document.references == [(1, "A. One. First.", 1), (2, "B. Two. A long one", 1)]


def test_outline_decides_what_a_heading_is():
    document = cleaned("Beginning\nText one.\n1 Looks Like It\nText two.", headings={"Beginning": 0})
    assert {paragraph.section for paragraph in document.paragraphs} == {"Beginning"}
    assert document.text().split() == "Text one. 1 Looks Like It Text two.".split()


def test_heading_of_the_outline_that_is_also_the_running_header_is_found_where_it_stands():
    pages = ["Beginnings\nText one.", "Beginnings\nText two.", "Beginnings\nText three."]
    document = cleaned(*pages, headings={"Beginnings": 0})
    assert [(p.section, p.text) for p in document.paragraphs] == [
        ("Beginnings", "Text one."), ("Beginnings", "Text two."), ("Beginnings", "Text three.")
    ]  # fmt: skip


def test_words_of_the_page_come_through(make_pdf, tmp_path):
    path = make_pdf(
        tmp_path / "small.pdf", ["A head", "Hello there.", "1"], ["A head", "Good bye.", "2"], ["A head", "3"]
    )
    for extractor in EXTRACTORS:
        assert read_document(path, extractor).text().split() == "Hello there. Good bye.".split()
