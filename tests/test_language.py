"""Words, sentences, scores and search in any script and language."""

import pytest

from llama_qna.text.language import language_of, languages_of

QUESTIONS = {
    "en": "Who painted the ferry's hull green?",
    "de": "Wer hat den Rumpf der Fähre grün gestrichen?",
    "fr": "Qui a peint en vert la coque du bac ?",
    "es": "¿Quién pintó de verde el casco del transbordador?",
    "it": "Chi ha dipinto di verde lo scafo del traghetto?",
    "pt": "Quem pintou de verde o casco da balsa?",
    "nl": "Wie heeft de romp van het veer groen geverfd?",
    "ru": "Кто покрасил корпус парома в зелёный цвет?",
    "el": "Ποιος έβαψε πράσινο το σκαρί του πλοίου;",
    "zh": "是谁把渡船的船身漆成绿色的？",
    "ja": "渡し船の船体を緑色に塗ったのは誰ですか。",
    "ko": "누가 나룻배의 선체를 초록색으로 칠했습니까?",
    "ar": "من الذي طلى هيكل العبّارة باللون الأخضر؟",
    "pl": "Kto pomalował kadłub promu na zielono?",
    "uk": "Якого кольору пором, що ходить через річку щодня?",
}


@pytest.mark.parametrize("language", QUESTIONS)
def test_the_language_of_a_question(language):
    assert language_of(QUESTIONS[language]) == language


@pytest.mark.parametrize("text", ["", " \n", "1871 – 64.5 %", "?!", "x"])
def test_no_language_where_nothing_tells(text):
    assert language_of(text) == ""


def test_a_name_from_elsewhere_does_not_change_the_language_of_a_text():
    assert language_of("The painter 渡辺 Kenji signed the hull with 緑, which is the word for green.") == "en"
    assert language_of("渡船的船身由 Ole Brandt Hansen 在一九六二年漆成绿色，此后再没有改过颜色。") == "zh"


def test_texts_of_one_document_have_its_language_and_those_of_two_have_their_own():
    english = [f"The ferry number {n} was painted green by its crew." for n in range(30)]
    german = [f"Die Fähre Nummer {n} wurde von der Mannschaft grün gestrichen." for n in range(10)]
    assert languages_of([*english, "12.5", german[0]]) == ["en"] * 32
    assert languages_of(english + german) == ["en"] * 30 + ["de"] * 10
    assert languages_of(["12", "34"]) == ["en"] * 2
