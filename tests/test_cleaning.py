"""Running heads, characters, spaced-out capitals and headings, on raw pages and on typeset PDFs."""

import pytest

from llama_qna.documents.sections import follows
from tests.fixtures_pdfs import cleaned, text_of, typeset_fixture  # noqa: F401

FURNITURE = "running headers, footers, page numbers"
by_extractor = pytest.mark.parametrize("extractor", ["pypdfium2", "pdfminer"])
BODIES = [
    "Mist lay over the harbour that morning.",
    "Nobody had seen the ferry come in.",
    "Two gulls sat on the mole and quarrelled.",
    "Later the bells were heard as far as Ness.",
    "In the end the fog lifted by itself.",
    "All the boats went out with the tide.",
]


def repairs_of(*pages):
    return cleaned(*pages).report["repairs"]


# --- running headers, footers, page numbers ---------------------------------------------------------------------------


def test_pages_that_differ_in_digits_only_keep_their_text():
    pages = [f"Sample {n} weighs {40 - 3 * n} grams." for n in range(1, 5)]
    assert text_of(*pages) == " ".join(pages)
    assert repairs_of(*pages)[FURNITURE] == 0


def test_numbered_forms_keep_their_text_but_not_their_header():
    forms = [f"Harbour office\nShip {n} of the day\nIt carries {7 * n} crates\nPage {n}" for n in range(1, 5)]
    assert text_of(*forms) == " ".join(f"Ship {n} of the day It carries {7 * n} crates" for n in range(1, 5))


def test_longer_forms_keep_most_of_their_lines():
    lines = ["Ship", "Port", "Captain", "Crew", "Crates", "Sails", "Masts", "Draught"]
    forms = ["\n".join(f"{line}: {n}" for line in lines) for n in range(1, 4)]
    assert all(f"{line}: {n}" in text_of(*forms) for line in lines[1:-1] for n in range(1, 4))


def test_alternating_headers_with_page_numbers_are_dropped():
    heads = ["{} THE OLD HARBOUR", "Fog and bells {}"]
    pages = [f"{heads[n % 2].format(40 + n)}\n{body}" for n, body in enumerate(BODIES)]
    assert text_of(*pages) == " ".join(BODIES)
    assert repairs_of(*pages)[FURNITURE] == len(BODIES)


@pytest.mark.parametrize("numbers", [["ix", "x", "xi", "xii", "xiii", "xiv"], ["I", "II", "III", "IV", "V", "VI"]])
@pytest.mark.parametrize("form", ["{}", "{} PREFACE", "Preface | {}"])
def test_roman_page_numbers_are_dropped(numbers, form):
    pages = [f"{form.format(number)}\n{body}" for number, body in zip(numbers, BODIES, strict=True)]
    assert text_of(*pages) == " ".join(BODIES)


@pytest.mark.parametrize("number", ["Page 3", "Page 3 of 9", "3/9", "[ 3 ]", "p. 3", "– iv –"])
def test_page_number_in_other_dress_is_dropped(number):
    assert text_of(f"The body stays.\n{number}") == "The body stays."


@pytest.mark.parametrize("line", ["mix", "dim", "civil", "In 1984", "Chapter the last", "100 200"])
def test_line_that_is_no_page_number_stays(line):
    assert text_of(f"The body stays.\n{line}") == f"The body stays. {line}"


@pytest.mark.parametrize("line", ["Article {}", "Frage {}.", "Câu {}"])
def test_a_division_that_begins_on_top_of_a_page_is_no_running_head(line):
    pages = [f"{line.format(n)}\n{body}" for n, body in zip((12, 15, 16), BODIES, strict=False)]
    assert text_of(*pages) == " ".join(pages).replace("\n", " ")


@pytest.mark.parametrize("numbers", [(3, 3, 3, 4, 4), (12, 13, 14, 15, 16)])
def test_a_word_and_a_number_that_repeat_or_count_the_pages_are_dropped(numbers):
    pages = [f"Fogs {number}\n{body}" for number, body in zip(numbers, BODIES, strict=False)]
    assert text_of(*pages) == " ".join(BODIES[:5])


@pytest.mark.parametrize("line", ["1995.", "1995", "2014).", "(1873)"])
def test_a_year_alone_on_the_last_line_is_no_page_number(line):
    assert text_of(f"The lamp was lit until\n{line}") == f"The lamp was lit until {line}"


def test_page_numbers_of_a_thick_volume_are_dropped():
    assert text_of(*(f"{body}\n{1995 + n}" for n, body in enumerate(BODIES))) == " ".join(BODIES)


@pytest.mark.parametrize(
    "caption, total",
    [
        ("Table {}: Catch of the year", "The total was {} crates."),
        ("TABLE {} Catch of the year", "The total was {} crates."),
        ("Tabelle {}: Fang des Jahres", "Es waren im ganzen {} Kisten."),
        ("Abb. {}. Fang des Jahres", "Waren es wirklich {} Kisten?"),
        ("Tableau {} Prises de l’année", "En tout, {} caisses."),
        ("Рис. {}. Улов за год", "Всего вышло {} ящиков."),
        ("表{}：全年的渔获", "一年一共装满了{}箱鲱鱼。"),
        ("図 {} 一年の漁獲", "全部で{}箱になったという。"),
    ],
)
def test_captions_and_sentences_with_other_numbers_are_no_furniture(caption, total):
    pages = [
        f"Harbour Times {n}\n{caption.format(t)}\n{body}\n{total.format(c)}\n{n}"
        for n, body, t, c in zip(range(1, 5), BODIES, (3, 8, 4, 9), (310, 295, 412, 377), strict=False)
    ]
    document = cleaned(*pages)
    words, said = caption.split("{}")[1], total.split("{}")[0]
    assert document.text().count(words) == document.text().count(said) == 4
    assert "Harbour Times" not in document.text()
    assert document.report["repairs"][FURNITURE] == 8


@pytest.mark.parametrize(
    "head", ["Kapitel {}. Der Nebel {n}", "Week {} {n}", "Lektion {} Der Nebel – {n}", "Rule {}: {n}"]
)
def test_running_head_with_a_number_and_that_of_the_page_is_dropped(head):
    pages = [f"{head.format(2, n=n + 40)}\n{body}" for n, body in enumerate(BODIES)]
    assert text_of(*pages) == " ".join(BODIES)


def test_line_that_repeats_in_the_middle_of_pages_stays():
    filler = "\n".join(BODIES)
    pages = [f"Head {n}\n{filler} {n}\nAnswer:\nForty {n} it is\n{filler} {n}\n{n}" for n in range(1, 6)]
    assert text_of(*pages).count("Answer:") == 5


def test_first_heading_that_later_pages_repeat_is_kept_without_an_outline():
    pages = ["1 The Harbour\nIt opens here.", "1 The Harbour\nIt goes on.", "1 The Harbour\nIt ends here."]
    document = cleaned(*pages)
    assert {p.section for p in document.paragraphs} == {"1 The Harbour"}
    assert document.text().split() == "It opens here. It goes on. It ends here.".split()


@pytest.mark.parametrize(
    "title", ["Contents", "Inhaltsverzeichnis", "Table des matières", "Índice", "Содержание", "目录"]
)
def test_table_of_contents_is_dropped_with_its_title(title):
    assert text_of(f"{title}\n1 Fog . . . . . . . 3\n2 Bells ........ xi\nReal text.") == "Real text."
    assert text_of("The chest was opened.\nContents\nOne coin.") == "The chest was opened. Contents One coin."
    chapters = [f"{n} Fog of {n} ......... {3 * n}" for n in range(1, 6)]
    assert text_of("\n".join(chapters), "6 Bells ......... 19\nReal text.") == "Real text."


@pytest.mark.parametrize(
    "title, dots",
    [
        ("Inhaltsverzeichnis", " . . . . . . "),
        ("Table des matières", "........"),
        ("Índice general", " ........ "),
        ("СОДЕРЖАНИЕ", "……………"),
        ("Spis treści", " .............. "),
        ("目 录", "……………"),
        ("目次", "・・・・・・・・"),
    ],
)
def test_table_of_contents_is_dropped_in_other_languages(title, dots):
    assert text_of(f"{title}\n1 A{dots}3\n2 B{dots}14\nReal text.") == "Real text."


def test_dotted_lines_of_a_form_stay():
    form = "Date of birth: ........\nWeight ........ 120\nThe office signs here."
    assert text_of(form) == form.replace("\n", " ")


@by_extractor
def test_alternating_headers_and_roman_numbers_of_a_typeset_book(typeset, extractor):
    header = (
        "context { let n = counter(page).get().first()\n"
        "if calc.odd(n) [Fog and Bells #h(1fr) #counter(page).display()]"
        " else [#counter(page).display() #h(1fr) The Old Harbour] }"
    )
    body = "\n#pagebreak()\n".join(f"{body} {lorem}" for body, lorem in zip(BODIES, map(lorem_of, BODIES), strict=True))
    document = typeset(f'#set page(width: 300pt, height: 300pt, numbering: "i", header: {header})\n{body}', extractor)
    for word in ("Fog and Bells", "The Old Harbour", "iii", "iv"):
        assert word not in document.text()
    assert all(body in document.text() for body in BODIES)


def lorem_of(body):
    """More text that is different on every page."""
    return " ".join(reversed(body.rstrip(".").split())) + "."


# --- characters -------------------------------------------------------------------------------------------------------


def test_superscripts_fractions_and_signs_stay():
    kept = "E = mc² and ½ of x₂ at 10⁻³ m, 5 µm, Ω ≠ Å, №3 ™ …"
    assert text_of(kept) == kept


def test_ligatures_and_formula_letters_are_counted():
    document = cleaned("The ﬁrst oﬃce, ﬆill. Let 𝛽 be 𝑘.")
    assert document.text() == "The first office, still. Let β be k."
    assert document.report["repairs"]["ligatures"] == 3
    assert document.report["repairs"]["formula letters"] == 2


@pytest.mark.parametrize(
    "characters, kind",
    [
        ("\x01\x1f\x7f", "control characters"),
        ("\uf0b7\ue000\U000f1234", "private-use glyphs"),
        ("\ufe0f\ufe00\U000e0100", "variation selectors"),
        ("\u200b\u2060\ufeff", "zero-width spaces"),
        ("\u00ad\u00ad\u00ad", "soft hyphens"),
        ("\ufffd\ufffd\ud835", "unreadable characters"),
    ],
)
def test_characters_are_dropped_and_counted_by_kind(characters, kind):
    document = cleaned(f"One {characters[0]}two{characters[1:]} three.")
    assert document.text() == "One two three."
    dropped = {key: count for key, count in document.report["repairs"].items() if key.startswith("dropped: ")}
    assert dropped == {f"dropped: {kind}": 3}


def test_soft_hyphen_inside_a_line_is_dropped_and_at_its_end_a_hyphen():
    document = cleaned("An ar\u00adchi\u00adtec\u00ad\nture of stone.")
    assert document.text() == "An architecture of stone."
    assert document.report["repairs"] == document.report["repairs"] | {
        "dropped: soft hyphens": 2, "line-end hyphens joined": 1
    }  # fmt: skip


def test_no_break_spaces_become_plain():
    document = cleaned("Table\u00a03 weighs 5\u202fkg.")
    assert document.text() == "Table 3 weighs 5 kg."
    assert document.report["repairs"]["no-break spaces"] == 2


# --- spaced-out capitals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spaced, closed",
    [
        ("C H A P T E R  O N E", "CHAPTER ONE"),
        ("C  H  A  P  T  E  R    O  N  E", "CHAPTER ONE"),
        ("C H A P T E R O N E", "CHAPTER ONE"),
        ("C H A P T E R 1", "CHAPTER 1"),
        ("I N T R O D U C T I O N", "INTRODUCTION"),
        ("1 T H E O L D M I L L", "1 THE OLD MILL"),
        ("T H E  W O B G L E T", "THE WOBGLET"),
        ("W O B G L E T", "WOBGLET"),
    ],
)
def test_spaced_out_capitals_become_words(spaced, closed):
    document = cleaned(f"A wobglet is no word of English.\nSee {spaced} and so on")
    assert document.text().split() == f"A wobglet is no word of English. See {closed} and so on".split()
    assert document.report["repairs"]["spaced-out capitals"] == 1


@pytest.mark.parametrize(
    "line",
    [
        "J. R. Smith",
        "A B",
        "I A M",
        "A B C D",
        "A B C D E F",
        "N S E W",
        "C A T T A G",
        "X Y Z Q R T",
        "plan A B C D E",
    ],
)
def test_single_letters_stay(line):
    assert text_of(f"Look: {line} it is") == f"Look: {line} it is"
    assert not repairs_of(line).get("spaced-out capitals")


@by_extractor
def test_letter_spaced_title_of_a_typeset_page(typeset, extractor):
    source = "#set page(width: 300pt, height: 200pt)\n#text(tracking: 0.4em)[THE OLD HARBOUR]\n\nIt opens here."
    assert "THE OLD HARBOUR" in typeset(source, extractor).text()


# --- sections ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number, last",
    [((1,), ()), ((1, 1), ()), ((3, 1), ()), ((2,), (1, 4)), ((3, 2), (3, 1)), ((3, 1), (3,)), ((4, 1), (3, 2)),
     ((3, 2), (3, 1, 5)), ((3, 1, 1), (3, 1)), ((5,), (3,))],
)  # fmt: skip
def test_number_that_follows(number, last):
    assert follows(number, last)


@pytest.mark.parametrize(
    "number, last",
    [
        ((11,), (1, 1)),
        ((44,), (3, 3)),
        ((1,), (3, 6)),
        ((12,), ()),
        ((3, 2), (3, 2)),
        ((2, 3), (3, 1)),
        ((3, 7), (3, 1)),
    ],
)
def test_number_that_does_not_follow(number, last):
    assert not follows(number, last)


def sections(*pages):
    return list(dict.fromkeys(paragraph.section for paragraph in cleaned(*pages).paragraphs))


def test_line_with_a_date_or_a_value_is_no_heading():
    page = (
        "1 Fog\nThe meeting was on\n11 September 1933 Ernest Rutherford told a meeting in Leicester that anyone\n"
        "who looked was wrong.\n44 Heat of burning in air\n2 Bells\nThey rang.\n2.1 How loud were they?\nVery loud."
    )
    assert sections(page) == ["1 Fog", "2 Bells", "2.1 How loud were they?"]


def test_next_number_whose_sentence_goes_on_is_no_heading():
    page = "1 Fog\nBetween them lie 0 and\n2 Bells that the parish bought in better\ntimes. All is well.\n2 Masts\nYes."
    assert sections(page) == ["1 Fog", "2 Masts"]


def test_long_line_is_no_heading():
    assert sections("1 One of the many boats that lie in the harbour has a red sail today\nYes.") == [""]


# --- pages of a paragraph ---------------------------------------------------------------------------------------------


def test_paragraph_knows_the_page_of_every_offset():
    document = cleaned("It begins on the first and goes", "over the sec\ufffe", "ond to the third page.")
    (paragraph,) = document.paragraphs
    assert paragraph.text == "It begins on the first and goes over the second to the third page."
    assert (paragraph.page, [page for _, page in paragraph.pages]) == (1, [1, 2, 3])
    for word, page in {"begins": 1, "goes": 1, "over": 2, "second": 2, "to the": 3, "page.": 3}.items():
        assert max(place for place in paragraph.pages if place[0] <= paragraph.text.index(word))[1] == page
