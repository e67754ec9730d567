"""The entries of a reference list: in every style, in other languages, and what stands around them."""

import re

import pytest

from llama_qna.documents.clean import clean
from llama_qna.documents.extract import extract
from llama_qna.documents.runs import read_pdfium
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_pdfs import cleaned, typeset_fixture  # noqa: F401

PAPER = REPOSITORY / "data" / "pdfs" / "paper" / "wicketfold.pdf"
by_extractor = pytest.mark.parametrize("extractor", ["pypdfium2", "pdfminer"])


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


@pytest.mark.parametrize("form", ["[{}] ", "{}. ", "({}) "])
def test_entries_after_a_missing_number_keep_their_own(form):
    numbers = [1, 2, 5]
    lines = "\n".join(form.format(n) + broken(entry) for n, entry in zip(numbers, PLAIN, strict=True))
    assert cleaned(f"References\n{lines}").references == [
        (n, entry, 1) for n, entry in zip(numbers, PLAIN, strict=True)
    ]


@pytest.mark.parametrize("authors", ["[2] M. Quill and O. Brandt.", "[2] M. Quill and O. Brandt (2001)."])
def test_title_that_begins_with_an_article_is_no_appendix(authors):
    document = cleaned(
        f"References\n[1] {PLAIN[0]}\n{authors}\nA Bayesian approach to\nbells. Lagos, 1999.\n[3] {PLAIN[2]}"
    )
    assert [number for number, _, _ in document.references] == [1, 2, 3] and not document.paragraphs


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


LIVES = [
    ("Ada Quill", "keeps the lamp of the northern coast. She has written on fog since 1998."),
    ("Ben Marram", "was born at sea. He measures the tides at Lagos, and has a dog."),
    ("Chidi Rowe", "cleans the glass."),
]


@pytest.mark.parametrize("form", ["[{}] ", "{}. ", ""])
@pytest.mark.parametrize("look", ["*{}* {}", "#text(8pt)[*{}* {}]", "#block(above: 2em, text(8pt)[{} {}])"])
def test_notes_on_the_authors_after_the_references_are_no_part_of_the_last_one(look, form, typeset):
    entries = [form.format(n).replace(".", "\\.") + entry for n, entry in enumerate(PLAIN, start=1)]
    lives = [look.format(*life) for life in LIVES]
    text = "The keeper wrote of the fog and the tide. " * 9
    document = typeset(f"= Fog\n{text}\n= References\n" + "\n\n".join([*entries, *lives]))
    assert [entry for _, entry, _ in document.references] == PLAIN
    assert [p.text for p in document.paragraphs][1:] == list(map(" ".join, LIVES))
    assert "References" not in {p.section for p in document.paragraphs}


@pytest.mark.parametrize("form", ["[{}] ", ""])
def test_footnote_on_a_page_of_references_parts_no_entry(form, typeset):
    entries = [form.format(n) + entry for n, entry in enumerate(PLAIN, start=1)]
    note = "#footnote[The lamp is lit at dusk.]"
    document = typeset(
        "#set page(width: 240pt, height: 170pt)\n= Fog\nHe lit the lamp at night, as the keepers of all towers on that"
        f" coast did, and the fog was thick.\n= References{note}\n" + "\n\n".join(entries)
    )
    assert [entry for _, entry, _ in document.references] == PLAIN
    assert "The lamp is lit at dusk." in [p.text for p in document.paragraphs]


def test_thanks_for_money_at_the_foot_of_the_first_page_part_no_sentence(typeset):
    thanks = "This work was paid for by the parish of the lamp."
    document = typeset(
        "#set page(width: 300pt, height: 220pt)\n#set par(justify: true)\n= Fog\n"
        f"#place(bottom, float: true, text(8pt)[{thanks}])\n" + "The keeper wrote of the fog and the tide. " * 14
    )
    assert [p.text for p in document.paragraphs] == [
        ("The keeper wrote of the fog and the tide. " * 14).strip(),
        thanks,
    ]
