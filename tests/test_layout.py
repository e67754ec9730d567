"""How a page is read: in which order, without what stands beside its text, and with its headings, notes and accents."""

from io import BytesIO

import pypdfium2
import pytest
import typst
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

from llama_qna import UserError
from llama_qna.documents.extract import extract
from tests.fixtures_pdfs import FONT, one_page, stream, write_pdf

FIRST = [
    "A lighthouse keeper on the northern coast",
    "noticed in the spring of that year that the",
    "lamp burned brighter on some nights than",
    "on others, although the oil was always the",
    "same. He wrote the matter down in the log",
    "and began to measure the air with a glass",
    "tube that a sailor had left behind. After",
    "some forty nights he had a list of numbers",
]
SECOND = [
    "which he could not explain to anybody but",
    "himself. The pressure of the air had no part",
    "in it, nor had the moon, the tide or a wind",
    "from the sea. What mattered was the glass",
    "of the chimney, which his daughter cleaned",
    "whenever she thought of it. Once he had seen",
    "this he gave up the list and bought a brush,",
    "and the lamp burned as brightly as it had.",
]
ABOVE = "An abstract that goes over both of the columns, from the left margin of the page to its right margin."
PLAIN = "The oil was brought by boat four times a year and carried up the stairs in cans of twelve litres each. "


@pytest.fixture
def typeset(tmp_path):
    """Typeset a source and read it: `typeset(source)`."""

    def read(source):
        (tmp_path / "set.pdf").write_bytes(typst.compile(source.encode()))
        return extract(tmp_path / "set.pdf", "pypdfium2")

    return read


@pytest.fixture
def drawn(tmp_path):
    """Draw pages, each a list of (x, y, text) or (x, y, text, font, size), in that order, and read them."""

    def read(*pages, rotate=0):
        buffer = BytesIO()
        canvas = Canvas(buffer, pagesize=(595, 842))
        for page in pages:
            canvas.setPageRotation(rotate)
            for x, y, text, *look in page:
                canvas.setFont(*(look or ("Times-Roman", 10)))
                canvas.drawString(x, y, text)
            canvas.showPage()
        canvas.save()
        (tmp_path / "drawn.pdf").write_bytes(buffer.getvalue())
        return extract(tmp_path / "drawn.pdf", "pypdfium2")

    return read


def column(lines, x, y=700):
    return [(x, y - 13 * n, line) for n, line in enumerate(lines)]


def flat(document):
    return document.text().replace("\n\n", " ")


def titles(document):
    return [title for title, _ in document.headings]


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["in order", "line by line", "backwards"])
def test_columns_are_read_one_after_the_other_however_they_are_stored(order, drawn):
    texts = column(FIRST, 60) + column(SECOND, 310)
    key = {"in order": lambda text: 0, "line by line": lambda text: -text[1], "backwards": lambda text: text[1]}[order]
    document = drawn([(60, 740, ABOVE), *sorted(texts, key=key)])
    assert flat(document) == " ".join([ABOVE, *FIRST, *SECOND])


def test_three_columns_of_which_one_begins_higher(drawn):
    texts = column(FIRST, 40, 650) + column(SECOND, 230, 702) + column(FIRST[::-1], 420, 650)
    document = drawn(sorted(texts, key=lambda text: -text[1]))
    assert flat(document) == " ".join(FIRST + SECOND + FIRST[::-1])


@pytest.mark.parametrize("size", [6, 8])
def test_numbers_at_an_axis_stand_apart_from_the_column_beside_the_figure(size, drawn):
    axis = [(306, 702 - 21 * n, str(84 - n), "Times-Roman", size) for n in range(5)]
    feet = [(322 + 45 * n, 606, str(20 + 5 * n), "Times-Roman", size) for n in range(5)]
    curve = [(360, 680, "lamp", "Times-Roman", size), (420, 645, "glass", "Times-Roman", size)]
    document = drawn([*column(FIRST, 60), *axis, *feet, *curve, *column(SECOND, 310, 580)])
    assert document.text().startswith(" ".join([*FIRST, *SECOND]))


def test_numbers_at_an_axis_above_the_text_come_after_its_paragraph(drawn):
    axis = [(60, 720 - 18 * n, f"0.{9 - n}", "Times-Roman", 7) for n in range(5)]
    before = [(60, 700 - 13 * n, line) for n, line in enumerate([*FIRST, *SECOND[:-1]])]
    document = drawn(before, [*axis, (60, 600, SECOND[-1])])
    assert document.text().startswith(" ".join([*FIRST, *SECOND]))


def test_table_is_read_row_by_row_and_parts_no_sentence(typeset):
    rows = [("Bogwood", "0.4", "north"), ("Hedgerow", "1.4", "south"), ("Marram", "2.4", "west")]
    cells = ", ".join(f"[{cell}]" for row in rows for cell in row)
    document = typeset(f"{PLAIN * 2}\n\n#table(columns: 3, stroke: none, {cells})\n\n{PLAIN * 2}")
    for row in rows:
        assert " ".join(row) in [paragraph.text for paragraph in document.paragraphs]
    assert flat(document).count(PLAIN.strip()) == 4


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_turned_pages_are_read_as_they_are_seen(rotate, tmp_path):
    canvas = Canvas(str(tmp_path / "turned.pdf"), pagesize=(595, 842))
    canvas.setPageRotation(rotate)
    a, b, c, d, x, y = {
        0: (1, 0, 0, 1, 0, 0), 90: (0, 1, -1, 0, 842, 0), 180: (-1, 0, 0, -1, 595, 842), 270: (0, -1, 1, 0, 0, 595)
    }[rotate]  # fmt: skip
    canvas.transform(a, b, c, d, x, y)
    for left, up, line in sorted(column(FIRST, 60, 500) + column(SECOND, 310, 500), key=lambda text: -text[1]):
        canvas.drawString(left, up, line)
    canvas.showPage()
    canvas.save()
    assert flat(extract(tmp_path / "turned.pdf", "pypdfium2")) == " ".join(FIRST + SECOND)


def test_turned_page_among_others_does_not_part_a_sentence(typeset):
    words = " ".join(f"word{n}" for n in range(200))
    table = "#page(rotate(-90deg, reflow: true)[Catch of herring in the year of the storm])"
    document = typeset(f"#set page(width: 300pt, height: 300pt)\nAll of {words}\n{table}\nand so on.")
    texts = [paragraph.text for paragraph in document.paragraphs]
    assert texts == [f"All of {words} and so on.", "Catch of herring in the year of the storm"]


def test_columns_of_hebrew_are_read_from_the_right(typeset):
    lines = [
        "המגדלור עומד על הסלע בצפון",
        "והשומר מדליק את המנורה",
        "בכל ערב לפני השקיעה",
        "כדי שהספינות ימצאו את דרכן",
    ]
    first, second = (" ".join(lines[n:] + lines[:n]) + "." for n in (0, 2))
    setting = (
        '#set page(width: 400pt, height: 300pt, columns: 2)\n#set text(lang: "he", font: "DejaVu Sans", size: 10pt)\n'
    )
    document = typeset(f"{setting}{first * 3}\n#colbreak()\n{second * 3}")
    assert flat(document) == f"{first * 3} {second * 3}"


def test_text_beyond_a_small_page_is_read_where_all_pages_share_one_box(tmp_path):
    shared = "<< /Type /Pages /Kids [3 0 R] /Count 1 /MediaBox [0 0 1200 1000] >>"
    page = f"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << {FONT} >> >>"
    text = stream("BT /F1 12 Tf 50 950 Td (High up.) Tj 800 -400 Td (Far right.) Tj ET")
    path = write_pdf(tmp_path / "wide.pdf", "<< /Type /Catalog /Pages 2 0 R >>", shared, page, text)
    assert flat(extract(path, "pypdfium2")) == "High up. Far right."


# --- beside the text --------------------------------------------------------------------------------------------------


def test_running_head_page_number_line_numbers_and_watermark_are_dropped(drawn):
    pages = []
    for n, lines in enumerate([FIRST, SECOND, FIRST[::-1]]):
        page = [(60, 790, "The Lamp and the Glass", "Times-Italic", 8.5), (300, 30, str(n + 7))]
        page += [(45, 700 - 26 * m, str(m + 1 + 8 * n), "Times-Roman", 6) for m in range(8)]
        page += [(60, 700 - 26 * m, line) for m, line in enumerate(lines)]
        pages.append([*page, (200, 612, "Seen by the harbour office", "Helvetica", 7)])
    assert flat(drawn(*pages)) == " ".join(FIRST + SECOND + FIRST[::-1])


def test_years_at_the_left_of_a_table_are_no_line_numbers(drawn):
    rows = [(60, 700 - 20 * n, str(1990 + n)) for n in range(20)]
    rows += [(220, 700 - 20 * n, f"{300 + 7 * n % 50} tons") for n in range(20)]
    rows += [(430, 700 - 20 * n, ("north", "south")[n % 2]) for n in range(20)]
    text = flat(drawn([(60, 740, PLAIN.strip()), *rows]))
    assert all(str(1990 + n) in text for n in range(20))


def test_a_word_at_the_same_place_on_two_of_three_pages_stays(drawn):
    pages = []
    for n, word in enumerate(["Herring", "Herring", "Mussels"]):
        lines = [line.split() for line in (FIRST, SECOND, FIRST[::-1])[n]]
        lines[4][1] = word
        at = [105 if m == 4 else 90 + 10 * n for m in range(8)]  # one word alone stands below another
        words = [(60 if not m else at[k] + 45 * (m - 1), 700 - 13 * k, w) for k, line in enumerate(lines)
                 for m, w in enumerate(line)]  # fmt: skip
        pages.append(words)
    text = flat(drawn(*pages))
    assert text.count("Herring") == 2 and text.count("Mussels") == 1


def test_stamp_along_the_edge_is_dropped_and_the_label_of_an_axis_is_kept_apart(typeset):
    stamp = "#place(left + top, dx: -60pt, dy: 100pt, rotate(-90deg, reflow: true, text(8pt)[held by the parish]))"
    axis = "#place(left + bottom, dx: 20pt, rotate(-90deg, reflow: true, text(8pt)[Height in metres]))"
    document = typeset(f"#set page(margin: 80pt)\n{stamp}{axis}{PLAIN * 6}")
    texts = [paragraph.text for paragraph in document.paragraphs]
    assert "held by the parish" not in flat(document) and "Height in metres" in texts


def test_title_of_a_slide_stays_on_every_slide(drawn):
    def slide(title, *lines):
        items = [(70, 300 - 30 * n, f"• {line}", "Helvetica", 16) for n, line in enumerate(lines)]
        return [(50, 360, title, "Helvetica-Bold", 26), *items, (500, 20, "Harbour course", "Helvetica", 9)]

    document = drawn(slide("Knots", "a bowline holds"), slide("Knots", "a hitch slips"), slide("Sails", "reef early"))
    assert titles(document) == ["Knots", "Knots", "Sails"]
    assert [p.text for p in document.paragraphs] == ["• a bowline holds", "• a hitch slips", "• reef early"]


# --- headings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    ["size: 14pt", 'weight: "bold"', 'style: "italic", size: 12pt', "size: 12.5pt"],
)
def test_headings_are_told_by_their_look(rule, typeset):
    names = ["Von der Lampe", "Wer das Öl brachte", "Что осталось"]
    source = "#set text(size: 11pt)\n#set par(spacing: 1.2em)\n" + "\n\n".join(
        f"#block(above: 2em, text({rule})[{name}])\n\n{PLAIN * 3}" for name in names
    )
    document = typeset(source)
    assert titles(document) == names
    assert {paragraph.section for paragraph in document.paragraphs} == set(names)


@pytest.mark.parametrize(
    "numbers", [["I.", "II.", "A."], ["1", "1.1", "2"], ["§ 1", "a)", "§ 2"], ["Chapter One", "1.1", "Chapter Two"]]
)
def test_numbers_of_any_sort_belong_to_their_headings(numbers, typeset):
    heads = [f"{number} {name}" for number, name in zip(numbers, ["The lamp", "The oil", "The glass"], strict=True)]
    source = "\n\n".join(f'#block(above: 2em, text(13pt, weight: "bold")[#"{head}"])\n\n{PLAIN * 3}' for head in heads)
    assert titles(typeset(source)) == heads


def test_title_and_authors_are_no_headings_and_a_section_without_text_is_one(typeset):
    front = "#align(center)[#text(20pt)[The Lamp]\n\n#text(11.5pt)[Ada Quill]\n\n#text(8pt)[Harbour School]]"
    head = '#block(above: 2em, text(14pt, weight: "bold")[{}])\n\n'
    body = head.format("Oil") + head.format("Its price") + PLAIN * 3 + "\n\n" + head.format("Glass") + PLAIN * 3
    document = typeset(f"{front}\n\n{body}")
    assert titles(document) == ["Oil", "Its price", "Glass"]
    assert {p.section for p in document.paragraphs} == {"", "Its price", "Glass"}


def test_underlined_and_run_in_headings(typeset):
    head = "#block(above: 2em, underline[{}])\n\n" + PLAIN * 3 + "\n\n"
    assert titles(typeset(head.format("The lamp") + head.format("The glass"))) == ["The lamp", "The glass"]
    run_in = f"#strong[1.1 The oil.] {PLAIN * 3}\n\n#strong[1.2 The glass.] {PLAIN * 3}"
    document = typeset(f"= 1 Light\n{run_in}")
    assert titles(document) == ["1 Light", "1.1 The oil.", "1.2 The glass."]
    assert all(p.text.startswith("The oil was brought") for p in document.paragraphs)


# --- notes and letters ------------------------------------------------------------------------------------------------


def test_sentence_goes_on_overleaf_and_its_note_stands_apart_without_its_mark(typeset):
    document = typeset(
        "#set page(width: 300pt, height: 220pt)\n#set par(justify: true)\n"
        + PLAIN * 2
        + "He kept a diary#footnote[The diary lies in the town hall.] of 10#super[9] words, "
        + "and it went on and on until the whole of the tower was full of paper. " * 3
    )
    texts = [paragraph.text for paragraph in document.paragraphs]
    assert "The diary lies in the town hall." in texts
    assert any("He kept a diary of 10⁹ words, and it went on and on until the whole" in text for text in texts)


@pytest.mark.parametrize("power", ["0.5 m", "3 cm", "10", "2", "x", "E = mc", "kg m", "(r", "12 km"])
def test_a_raised_number_stays_beside_a_note_of_the_same_number(typeset, power):
    """Where a word or a full stop stands before it, it is the note's mark; after a quantity it is a power."""
    note = "The first note.] and saw another#footnote[The second note.], and then the floor of"
    document = typeset(f"{PLAIN}He saw a note#footnote[{note} {power}#super[2] in the tower.")
    (text,) = [paragraph.text for paragraph in document.paragraphs if "tower" in paragraph.text]
    assert text.endswith(f"He saw a note and saw another, and then the floor of {power}² in the tower.")


def test_accents_drawn_over_letters_and_initials_are_joined(drawn):
    page = [(60, 700, "Br"), (69.5, 700, "¨"), (69.4, 700, "u"), (74.4, 700, "cke")]
    page += [(60, 600, "T", "Times-Roman", 36), (84, 615, "IDAL basins keep all of the ships afloat at low water.")]
    page += [(84, 602, "Every opening of the sluice loses a part of its fresh water.")]
    page += column(FIRST, 60, 580)
    text = flat(drawn(page))
    assert "Brücke" in text and "TIDAL basins keep" in text


def test_lines_of_chinese_are_joined_without_spaces(tmp_path):
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    canvas = Canvas(str(tmp_path / "zh.pdf"), pagesize=(300, 400))
    for y, size, text in [
        (350, 16, "第一章 灯塔"), (320, 11, "北方海岸上的灯塔看守人在那年春天发现，灯在有些"),
        (300, 11, "夜里比别的夜里更亮，虽然油总是同样的油。"),
    ]:  # fmt: skip
        canvas.setFont("STSong-Light", size)
        canvas.drawString(20, y, text)
    canvas.save()
    document = extract(tmp_path / "zh.pdf", "pypdfium2")
    assert titles(document) == ["第一章 灯塔"]
    assert [p.text for p in document.paragraphs] == [
        "北方海岸上的灯塔看守人在那年春天发现，灯在有些夜里比别的夜里更亮，虽然油总是同样的油。"
    ]


RIGHT_TO_LEFT = {
    "he": ["המגדלור עומד על הסלע בצפון", "בשנת 1994 עמד המגדלור על הסלע", "ספינה בשם Northern עברה בים"],
    "ar": ["المنارة تقف على الصخرة في الشمال", "وقفت المنارة على الصخرة عام 1994 في الشمال"],
}


@pytest.mark.parametrize(("language", "text"), [(name, text) for name in RIGHT_TO_LEFT for text in RIGHT_TO_LEFT[name]])
def test_text_from_the_right_is_read_in_the_order_of_its_letters(typeset, language, text):
    """With the year and the Latin words in it."""
    document = typeset(f'#set text(lang: "{language}", font: "DejaVu Sans")\n{text}')
    assert flat(document) == text


ODD_FONT = (
    "/Font << /F1 << /Type /Font /Subtype /Type0 /BaseFont /Odd /Encoding /Identity-H /DescendantFonts [<< /Type /Font "
    "/Subtype /CIDFontType2 /BaseFont /Odd /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> "
    "/FontDescriptor << /Type /FontDescriptor /FontName /Odd /Flags 4 /FontBBox [0 0 1000 1000] /ItalicAngle 0 "
    "/Ascent 800 /Descent -200 /CapHeight 700 /StemV 80 >> >>] >> >>"
)


def test_page_whose_letters_have_no_unicode_needs_ocr(tmp_path):
    odd = stream("BT /F1 12 Tf 50 700 Td <00240025002600270024002500260027> Tj ET")
    with pytest.raises(UserError, match="OCR"):
        extract(one_page(tmp_path / "odd.pdf", odd, resources=ODD_FONT), "pypdfium2")
    both = pypdfium2.PdfDocument(typst.compile(PLAIN.encode()))
    both.import_pages(pypdfium2.PdfDocument(tmp_path / "odd.pdf"))
    both.save(tmp_path / "both.pdf")
    document = extract(tmp_path / "both.pdf", "pypdfium2")
    assert document.report["needs_ocr"] == [2] and flat(document) == PLAIN.strip()
