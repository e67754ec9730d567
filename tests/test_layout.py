"""Tests of llama_qna/documents/columns.py: columns stored line by line, and pages that must stay as they are."""

import pypdfium2
import pytest
import typst

from llama_qna.documents.clean import HYPHEN, clean
from llama_qna.documents.columns import page_text
from llama_qna.project.variant import REPOSITORY

PDFS = sorted((REPOSITORY / "data" / "pdfs").glob("*/*.pdf"))
FIRST = [
    "A lighthouse keeper on the northern coast",
    "noticed in the spring of that year that the",
    "lamp burned brighter on some nights than",
    "on others, although the oil was always the",
    "same. He wrote the matter down in the log",
    "and began to measure the air with a baro-",
    "meter that a sailor had left behind. After",
    "some forty nights he had a table of numbers",
    "which he could not explain to anybody but",
]
SECOND = [
    "himself. The pressure of the air had no part",
    "in it, nor had the moon, the tide or the wind",
    "from the sea. What mattered was the glass",
    "of the chimney, which his daughter cleaned",
    "whenever she thought of it. Once he had seen",
    "this he gave up the table and bought a brush,",
    "and the lamp burned as brightly as it had",
    "ever done. The log for that year ends with",
    "a drawing of the brush and its price.",
]
ABOVE = "An abstract that goes over both of the columns, from the left margin of the page to its right margin."
BELOW = "Figure 1: The lamp, the chimney and the brush, drawn over both of the columns at the foot of the text."


def pdf_of(body, header=""):
    """A page of 420 by 560 points."""
    source = '#set page(width: 420pt, height: 560pt, margin: 40pt)\n#set text(size: 8pt, font: "Libertinus Serif")\n'
    return pypdfium2.PdfDocument(typst.compile((source + header + body).encode()))


def rows(first, second):
    """Two columns as a file stores them that was written line by line."""
    cells = ", ".join(f"[{one}], [{other}]" for one, other in zip(first, second, strict=True))
    return f"#grid(columns: (1fr, 1fr), column-gutter: 16pt, row-gutter: 4pt, {cells})\n"


def lines_of(pdf):
    return [line.strip() for line in page_text(pdf[0]).splitlines()]


def raw(pdf, page=0):
    return pdf[page].get_textpage().get_text_bounded()


def test_interleaved_columns_are_read_one_after_the_other():
    pdf = pdf_of(rows(FIRST, SECOND))
    assert f"{FIRST[0]} {SECOND[0]}" in raw(pdf), "the page is stored line by line"
    assert lines_of(pdf) == [line.replace("baro-", "baro\x02") for line in FIRST] + SECOND


def test_lines_over_both_columns_keep_their_place():
    pdf = pdf_of(f"{ABOVE}\n\n{rows(FIRST[:7], SECOND[:7])}\n{BELOW}\n\n{rows(FIRST[7:], SECOND[7:])}")
    first, second = [line.replace("baro-", "baro\x02") for line in FIRST], SECOND
    assert lines_of(pdf) == [ABOVE, *first[:7], *second[:7], BELOW, *first[7:], *second[7:]]


def test_header_and_page_number_stay_at_the_edges():
    header = "#set page(header: [The Lamp #h(1fr) Chapter Two], footer: [#align(left)[31]])\n"
    lines = lines_of(pdf_of(rows(FIRST, SECOND), header))
    assert lines[:3] == ["The Lamp", "Chapter Two", FIRST[0]]
    assert lines[-2:] == [SECOND[-1], "31"]


def test_words_broken_at_the_end_of_a_line_of_the_first_column_are_joined():
    text = page_text(pdf_of(rows(FIRST, SECOND))[0]).replace("\x02", HYPHEN)
    assert "the air with a barometer that a sailor" in clean("lamp", [text], {}).text()


def test_hyphen_that_pdfium_marked_in_the_second_column_is_kept():
    second = [*SECOND[:2], "from the sea. What mattered was the chim-", "ney and its glass, which his daughter clean-"]
    pdf = pdf_of(rows(FIRST[:8], [*second, *SECOND[4:8]]))
    assert "\x02" in raw(pdf)
    assert "from the sea. What mattered was the chim\x02" in lines_of(pdf)


def test_symbols_beyond_the_basic_plane_survive():
    first = [FIRST[0].replace("coast", "$k$ coast"), *FIRST[1:]]
    assert "𝑘 coast" in page_text(pdf_of(rows(first, SECOND))[0])


TABLE = ["Bogwood", "Hedgerow", "Marram", "Saltmarsh", "Fell", "Carr", "Machair", "Dune slack", "Reed bed"]
CODES = [f"{n}.4 percent of the area" for n in range(9)]


@pytest.mark.parametrize(
    "body",
    [
        rows(TABLE, CODES),
        rows([f"Number {n} of the long list of habitats" for n in range(9)], CODES),
        rows(FIRST[:4], SECOND[:4]),
        "#columns(2)[" + " ".join(FIRST + SECOND) * 3 + "]",
        " ".join(FIRST + SECOND) * 3,
        "#columns(2)[" + " ".join(FIRST) + rows(TABLE, ["x"] * 9) + " ".join(SECOND) * 3 + "]",
        "",
    ],
    ids=["table", "wide table", "too few lines", "columns in order", "one column", "table in a column", "empty page"],
)
def test_page_in_order_stays_as_it_is(body):
    pdf = pdf_of(body)
    assert page_text(pdf[0]) == raw(pdf)


@pytest.mark.parametrize("path", PDFS, ids=lambda path: path.stem)
def test_shipped_pages_stay_as_they_are(path):
    with pypdfium2.PdfDocument(path) as pdf:
        for number in range(len(pdf)):
            assert page_text(pdf[number]) == raw(pdf, number)
