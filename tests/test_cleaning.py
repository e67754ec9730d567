"""Tests of the repairs of text (cleaning, words, furniture, headings, references) on raw pages and on typeset PDFs."""

import re

import pytest
import typst

from llama_qna.documents.clean import HYPHEN, clean
from llama_qna.documents.extract import extract
from llama_qna.documents.runs import read_pdfium
from llama_qna.documents.sections import follows
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_pdfs import typed

FURNITURE = "running headers, footers, page numbers"
PAPER = REPOSITORY / "data" / "pdfs" / "paper" / "wicketfold.pdf"
EXTRACTORS = ["pypdfium2", "pdfminer"]
by_extractor = pytest.mark.parametrize("extractor", EXTRACTORS)
BODIES = [
    "Mist lay over the harbour that morning.",
    "Nobody had seen the ferry come in.",
    "Two gulls sat on the mole and quarrelled.",
    "Later the bells were heard as far as Ness.",
    "In the end the fog lifted by itself.",
    "All the boats went out with the tide.",
]


def cleaned(*pages, headings=None):
    return clean("made", typed(*pages), headings or {})


def text_of(*pages):
    return cleaned(*pages).text().replace("\n\n", " ")


def repairs_of(*pages):
    return cleaned(*pages).report["repairs"]


@pytest.fixture
def typeset(tmp_path):
    """Typeset a document and read it back: `typeset(source, extractor)`."""

    def read(source, extractor="pypdfium2"):
        path = tmp_path / "typeset.pdf"
        path.write_bytes(typst.compile(source.encode()))
        return extract(path, extractor)

    return read


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


def test_captions_and_sentences_with_other_numbers_are_no_furniture():
    pages = [
        f"Harbour Times {n}\nTable {t}: Catch of the year\n{body}\nThe total was {c} crates.\n{n}"
        for n, body, t, c in zip(range(1, 5), BODIES, (3, 8, 4, 9), (310, 295, 412, 377), strict=False)
    ]
    document = cleaned(*pages)
    assert document.text().count("Catch of the year") == document.text().count("The total was") == 4
    assert "Harbour Times" not in document.text()
    assert document.report["repairs"][FURNITURE] == 8


def test_line_that_repeats_in_the_middle_of_pages_stays():
    filler = "\n".join(BODIES)
    pages = [f"Head {n}\n{filler} {n}\nAnswer:\nForty {n} it is\n{filler} {n}\n{n}" for n in range(1, 6)]
    assert text_of(*pages).count("Answer:") == 5


def test_first_heading_that_later_pages_repeat_is_kept_without_an_outline():
    pages = ["1 The Harbour\nIt opens here.", "1 The Harbour\nIt goes on.", "1 The Harbour\nIt ends here."]
    document = cleaned(*pages)
    assert {p.section for p in document.paragraphs} == {"1 The Harbour"}
    assert document.text().split() == "It opens here. It goes on. It ends here.".split()


def test_table_of_contents_is_dropped_with_its_title():
    assert text_of("Contents\n1 Fog . . . . . . . 3\n2 Bells ........ xi\nReal text.") == "Real text."
    assert text_of("The chest was opened.\nContents\nOne coin.") == "The chest was opened. Contents One coin."


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


# --- hyphens at line ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken, mended",
    [
        ("architec-ture", "architecture"),
        ("stop-ped", "stopped"),
        ("hyperparame-ters", "hyperparameters"),
        ("microcon-troller", "microcontroller"),
        ("overfit-ting", "overfitting"),
        ("col-oured", "coloured"),
        ("polar-isation", "polarisation"),
        ("INTRO-DUCTION", "INTRODUCTION"),
        ("multiply-accumu-late", "multiply-accumulate"),
        ("brine-soaked", "brine-soaked"),
        ("well-known", "well-known"),
        ("early-exit", "early-exit"),
        ("man-made", "man-made"),
        ("state-of-the-art", "state-of-the-art"),
        ("thirty-three-year", "thirty-three-year"),
        ("wob-glet", "wob-glet"),
        ("LarchNet-5", "LarchNet-5"),
        ("740-755", "740-755"),
        ("Hardware-Aware", "Hardware-Aware"),
    ],
)
def test_word_broken_at_a_line_end(broken, mended):
    head, _, tail = broken.rpartition("-")
    kind = "joined" if mended.count("-") < broken.count("-") else "kept"
    for mark in (HYPHEN, f"{HYPHEN}\n", "-\n", "\u00ad\n"):  # of PDFium, of pdfminer, as it is, soft
        document = cleaned(f"They saw the {head}{mark}{tail} of it.")
        assert document.text() == f"They saw the {mended} of it."
        assert document.report["repairs"] == document.report["repairs"] | {f"line-end hyphens {kind}": 1}


def test_dash_at_a_line_end_gets_no_space():
    assert text_of("The Kullback–\nLeibler distance, pages 740–\n755 —\nall.") == (
        "The Kullback–Leibler distance, pages 740–755 — all."
    )


def test_word_of_the_document_is_joined_and_its_spelling_outvotes_english():
    assert "a wobglet of" in text_of(f"The wobglet came. It was a wob{HYPHEN}glet of theirs.")
    assert "by e-mail now" in text_of(f"An e-mail. They write by e{HYPHEN}mail now.")
    assert "by email now" in text_of(f"An email, emails, one e-mail, email. They write by e{HYPHEN}mail now.")


def test_word_broken_twice():
    assert text_of("A thirty-\nthree-\nyear-\nold archi-\ntect.") == "A thirty-three-year-old architect."


def test_pieces_of_other_broken_words_are_no_words():
    text = text_of(f"One wob{HYPHEN}glet and\none wob{HYPHEN}glet, both broken.")
    assert text == "One wob-glet and one wob-glet, both broken."


def test_word_broken_over_the_end_of_a_page():
    pages = [f"Head of it\nIt is an archi{HYPHEN}\n1", "Head of it\ntecture of stone.\n2"]
    assert text_of(*pages) == "It is an architecture of stone."


@by_extractor
def test_hyphenation_of_a_typeset_page(typeset, extractor):
    """Narrow columns break many words; a compound breaks at its own hyphen."""
    words = "Approximately seventeen brine-soaked mathematicians independently established extraordinary relationships"
    document = typeset(f"#set page(width: 110pt, height: 500pt, margin: 10pt)\n#set text(hyphenate: true)\n{words}")
    assert document.text() == words
    assert document.report["repairs"]["line-end hyphens joined"] >= 3


# What each language writes around its broken words, so that it is known for that language.
SETTINGS = {
    "de": "Der Turm steht am Ufer, und viele Menschen kommen jeden Tag, weil sie das Meer sehen wollen.",
    "fr": "Le phare se dresse sur la rive, et beaucoup de gens viennent chaque jour pour voir la mer.",
    "es": "El faro se levanta en la orilla y mucha gente viene cada día porque quiere ver el mar.",
    "it": "Il faro si erge sulla riva e molte persone vengono ogni giorno perché vogliono vedere il mare.",
    "pt": "O farol ergue-se na margem e muita gente vem todos os dias porque quer ver o mar.",
    "nl": "De vuurtoren staat aan de oever en veel mensen komen elke dag omdat ze de zee willen zien.",
    "ru": "Маяк стоит на берегу, и каждый день много людей приходит, чтобы посмотреть на море.",
    "pl": "Latarnia morska stoi na brzegu i codziennie przychodzi wielu ludzi, którzy chcą zobaczyć morze.",
}


@pytest.mark.parametrize(
    ("language", "broken", "mended"),
    [
        ("de", "Brandungs-wellenmesser", "Brandungswellenmesser"),
        ("de", "ver-messen", "vermessen"),
        ("de", "LEUCHT-TURM", "LEUCHTTURM"),
        ("de", "Ost-West", "Ost-West"),
        ("de", "EU-weit", "EU-weit"),
        ("de", "x-fach", "x-fach"),
        ("de", "Ein-und Ausfahrt", "Ein- und Ausfahrt"),
        ("fr", "lumi-neuse", "lumineuse"),
        ("fr", "peut-être", "peut-être"),
        ("fr", "disait-il", "disait-il"),
        ("fr", "cons-truisaient", "construisaient"),
        ("es", "ilumi-nación", "iluminación"),
        ("es", "teórico-práctico", "teórico-práctico"),
        ("it", "costru-zione", "costruzione"),
        ("pt", "ilumi-nação", "iluminação"),
        ("pt", "disse-me", "disse-me"),
        ("nl", "water-standen", "waterstanden"),
        ("ru", "изме-рения", "измерения"),
        ("ru", "из-за", "из-за"),
        ("pl", "pomia-rów", "pomiarów"),
    ],
)
def test_word_broken_at_a_line_end_in_other_languages(language, broken, mended):
    head, _, tail = broken.partition("-")
    around = SETTINGS[language]
    for mark in (HYPHEN, "-\n", "\u2010\n", "\u00ad\n"):
        assert text_of(f"{around} {head}{mark}{tail} {around}").split(around)[1].strip() == mended


def test_a_word_of_the_document_decides_in_any_language():
    around = SETTINGS["de"]
    assert "der Wob-glet. Der" in text_of(f"Ein Wob-glet. {around} Sieh der Wob{HYPHEN}glet. {around}")
    assert "le contrevent du" in text_of(f"Un contrevent. {SETTINGS['fr']} Voici le contre{HYPHEN}vent du mur.")


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["灯塔建于一九六二年，", "高三十二米。灯光", "照到海上。"], "灯塔建于一九六二年，高三十二米。灯光照到海上。"),
        (["灯塔由 Ole Hansen", "设计，使用 LED", "灯。"], "灯塔由 Ole Hansen 设计，使用 LED 灯。"),
        (["灯台は岬に", "あり、船を", "導く。"], "灯台は岬にあり、船を導く。"),
        (["등대는 곶에", "서 있다."], "등대는 곶에 서 있다."),
    ],
)
def test_lines_are_joined_as_their_script_is_written(lines, text):
    assert text_of("\n".join(lines)) == text
    assert text_of(*lines).replace(" ", "") == text.replace(" ", "")


def test_soft_hyphen_at_a_line_end_of_a_text_file(tmp_path):
    path = tmp_path / "soft.txt"
    path.write_text("The archi\u00ad\ntecture and the sur\u2010\nface of the pier.", encoding="utf-8")
    assert extract(path, "pypdfium2").text() == "The architecture and the surface of the pier."


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


# --- references -------------------------------------------------------------------------------------------------------

PLAIN = [
    "Aldous, M. and Brand, T. The fog of the northern coast. Journal of Mist, 12(3):45–67, 1998.",
    "de Vries, A. B. Bells that carry far. Harbour Press, Leiden, 2003.",
    "Okonkwo, Chidi. Tides. In Proceedings of the Third Meeting on Water, pages 1–9. Lagos, 2011.",
]


def broken(entry):
    """The entry as a page has it, over two lines."""
    words = entry.split()
    return " ".join(words[:6]) + "\n" + " ".join(words[6:])


@pytest.mark.parametrize("form", ["[{}] ", "{}. ", "({}) ", "{}) ", ""])
def test_references_are_parsed_in_every_style(form):
    lines = [form.format(n) + broken(entry) for n, entry in enumerate(PLAIN, start=1)]
    document = cleaned("1 Fog\nThe text ends here.\nReferences\n" + "\n".join(lines))
    assert document.references == [(n, entry, 1) for n, entry in enumerate(PLAIN, start=1)]
    assert [paragraph.text for paragraph in document.paragraphs] == ["The text ends here."]


def test_unnumbered_references_with_initials_first():
    entries = [
        "M. Aldous and T. Brand. The fog of the northern coast. Journal of Mist, 1998.",
        "A. B. de Vries. Bells that carry far. Harbour Press, Leiden, 2003.",
        "Ł. Kaiser and J. R. Smith. Tides and the moon. Lagos, 2011.",
    ]
    document = cleaned("Bibliography\n" + "\n".join(map(broken, entries)))
    assert [entry for _, entry, _ in document.references] == entries


def test_name_parted_from_its_initials_begins_no_entry():
    entry = (
        "Han, S., Pool, J., Tran, J., and Dally, W.\nJ. Learning, M. and others. In Proc.\nOf Things, A. Lagos, 2015."
    )
    document = cleaned(f"References\n{entry}\n{PLAIN[0]}")
    assert [text for _, text, _ in document.references] == [entry.replace("\n", " "), PLAIN[0]]


@pytest.mark.parametrize("form", ["", "{}. ", "({}) "])
def test_references_of_the_paper_in_other_styles(form):
    pages, outline = read_pdfium(PAPER)
    for run in (run for page in pages for run in page.runs):
        run.text = re.sub(r"^\[(\d+)\]\s*", lambda mark: form.format(mark[1]), run.text)
    entries = clean("paper", pages, outline).references
    assert entries == extract(PAPER, "pypdfium2").references
    assert len(entries) == 35


def test_references_go_on_over_a_page():
    document = cleaned(f"References\n[1] {PLAIN[0]}\n[2] de Vries, A. B. Bells", f"that carry far.\n[3] {PLAIN[2]}")
    assert [(number, page) for number, _, page in document.references] == [(1, 1), (2, 1), (3, 2)]
    assert document.references[1][1] == "de Vries, A. B. Bells that carry far."


@pytest.mark.parametrize("form", ["[{}] ", "{}. ", ""])
@pytest.mark.parametrize(
    "heading",
    ["Appendix", "Appendix A", "Appendix A: Tide tables", "A Tide tables", "5 Supplementary Material", "Index"],
)
def test_what_follows_the_references_is_not_swallowed(heading, form):
    lines = "\n".join(form.format(n) + entry for n, entry in enumerate(PLAIN, start=1))
    document = cleaned(f"References\n{lines}\n{heading}\nHigh water was at nine.")
    assert [entry for _, entry, _ in document.references] == PLAIN
    assert [(p.section, p.text) for p in document.paragraphs] == [(heading, "High water was at nine.")]


@pytest.mark.parametrize(
    ("heading", "entries", "after"),
    [
        (
            "Literaturverzeichnis",
            ["Grün, Ä. und Möll, T. (1995). Pegel im Watt. Kiel: Ufer.", "Öhm, F. Nebel. Bremen, 2004."],
            "Anhang A",
        ),
        (
            "7. Bibliographie",
            ["Éloi, M. et Brun, P. Les marées. Brest, 1998.", "Noël, A. Brumes. Caen, 2003."],
            "Remerciements",
        ),
        (
            "Referencias bibliográficas",
            ["Ibáñez, L. y Ríos, C. Mareas. Cádiz, 1998.", "Núñez, O. Nieblas. Vigo, 2001."],
            "Anexo",
        ),
        (
            "Список литературы",
            ["Белов, И. К. Приливы. Мурманск, 1998.", "Чернов, О. Л. Туманы. Одесса, 2001."],
            "Приложение",
        ),
        ("参考文献", ["[1] 林守一. 潮汐观测. 港口出版社, 1998.", "[2] 陈海. 雾与灯. 海图出版社, 2003."], "附录"),
        (
            "VIII. Literatur:",
            ["[1] Grün, Ä. Pegel im Watt. Kiel, 1995.", "[2] Öhm, F. Nebel. Bremen, 2004."],
            "Danksagung",
        ),
    ],
)
def test_references_open_by_their_name_in_other_languages(heading, entries, after):
    lines = ["1 Text", "Here it ends.", heading, *entries, after, "High water was at nine."]
    document = cleaned("\n".join(lines))
    assert [entry for _, entry, _ in document.references] == [re.sub(r"^\[\d\] ", "", entry) for entry in entries]
    assert [p.text for p in document.paragraphs][-1] == "High water was at nine."


def test_text_before_the_first_entry_is_kept():
    document = cleaned(f"References\nOnly what is in print is listed here.\n[1] {PLAIN[0]}")
    assert [(p.section, p.text) for p in document.paragraphs] == [
        ("References", "Only what is in print is listed here.")
    ]
    assert len(document.references) == 1


def test_references_that_the_outline_does_not_name_are_found():
    document = cleaned(f"Fog\nText of it.\nReferences\n[1] {PLAIN[0]}", headings={"Fog": 0})
    assert document.references == [(1, PLAIN[0], 1)]


@by_extractor
def test_reference_list_of_a_typeset_paper(typeset, extractor):
    entries = "\n\n".join(f"#par(hanging-indent: 2em)[{entry}]" for entry in PLAIN)
    document = typeset(
        "#set page(width: 260pt, height: 400pt)\n#set heading(numbering: none)\n= Fog\nThe text of it.\n= References\n"
        f"{entries}\n= Appendix\nHigh water was at nine.",
        extractor,
    )
    assert [entry for _, entry, _ in document.references] == PLAIN
    assert document.report["reference_entries"] == len(PLAIN)
    assert document.paragraphs[-1].section == "Appendix"


# --- pages of a paragraph ---------------------------------------------------------------------------------------------


def test_paragraph_knows_the_page_of_every_offset():
    document = cleaned("It begins on the first and goes", "over the sec\ufffe", "ond to the third page.")
    (paragraph,) = document.paragraphs
    assert paragraph.text == "It begins on the first and goes over the second to the third page."
    assert (paragraph.page, [page for _, page in paragraph.pages]) == (1, [1, 2, 3])
    for word, page in {"begins": 1, "goes": 1, "over": 2, "second": 2, "to the": 3, "page.": 3}.items():
        assert max(place for place in paragraph.pages if place[0] <= paragraph.text.index(word))[1] == page
