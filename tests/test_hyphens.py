"""Words that a line's end or a page's end breaks, and how lines are joined, in English and other languages."""

import pytest

from llama_qna.documents.clean import HYPHEN
from llama_qna.documents.extract import extract
from tests.fixtures_pdfs import cleaned, text_of, typeset_fixture  # noqa: F401

by_extractor = pytest.mark.parametrize("extractor", ["pypdfium2", "pdfminer"])


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
        (["他说", "“灯亮了”，", "然后——", "“走了”", "……再见。"], "他说“灯亮了”，然后——“走了”……再见。"),
        (["The lamp", "“burns” —", "and burns."], "The lamp “burns” — and burns."),
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
