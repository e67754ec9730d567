"""Words, sentences, scores, search and filters in any script and language; English stays what it was."""

import unicodedata

import pytest

from llama_qna.models.base import EMBEDDED, knows_not
from llama_qna.pairs.filters import Filters
from llama_qna.pairs.writers import Candidate
from llama_qna.text.language import language_of, languages_of
from llama_qna.text.scores import exact_match, is_run_on, rouge, score, token_f1
from llama_qna.text.search import Search
from llama_qna.text.words import claims, content_words, sentences_of

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
    "hi": "नौका का पतवार हरे रंग में किसने रंगा?",
    "th": "ใครทาสีเขียวที่ตัวเรือข้ามฟาก",
    "pl": "Kto pomalował kadłub promu na zielono?",
}
ANSWERS = {
    "en": "The ship's carpenter painted the hull of the ferry green in 1962.",
    "de": "Der Schiffszimmermann hat den Rumpf der Fähre 1962 grün gestrichen.",
    "fr": "Le charpentier a peint la coque du bac en vert en 1962.",
    "es": "El carpintero pintó de verde el casco del transbordador en 1962.",
    "it": "Il carpentiere ha dipinto di verde lo scafo del traghetto nel 1962.",
    "pt": "O carpinteiro pintou de verde o casco da balsa em 1962.",
    "nl": "De timmerman heeft de romp van het veer in 1962 groen geverfd.",
    "ru": "Корпус парома в зелёный цвет покрасил плотник в 1962 году.",
    "el": "Ο ξυλουργός έβαψε πράσινο το σκαρί του πλοίου το 1962.",
    "zh": "木匠在1962年把渡船的船身漆成了绿色。",
    "ja": "船大工が1962年に渡し船の船体を緑色に塗った。",
    "ko": "목수가 1962년에 나룻배의 선체를 초록색으로 칠했습니다.",
    "ar": "طلى النجار هيكل العبّارة باللون الأخضر عام 1962.",
    "hi": "बढ़ई ने 1962 में नौका का पतवार हरे रंग में रंगा।",
    "th": "ช่างไม้ทาสีเขียวที่ตัวเรือข้ามฟากในปี 1962",
    "pl": "Cieśla pomalował kadłub promu na zielono w 1962 roku.",
}
OTHERS = {  # about something else
    "en": "The tide rises twice a day, and the fishermen wait for it in the old harbour.",
    "de": "Die Flut steigt zweimal am Tag, und die Fischer warten im alten Hafen auf sie.",
    "fr": "La marée monte deux fois par jour, et les pêcheurs l'attendent dans le vieux port.",
    "es": "La marea sube dos veces al día y los pescadores la esperan en el puerto viejo.",
    "it": "La marea sale due volte al giorno e i pescatori la aspettano nel vecchio porto.",
    "pt": "A maré sobe duas vezes por dia e os pescadores esperam por ela no porto velho.",
    "nl": "Het tij komt twee keer per dag op en de vissers wachten erop in de oude haven.",
    "ru": "Прилив поднимается дважды в день, и рыбаки ждут его в старой гавани.",
    "el": "Η παλίρροια ανεβαίνει δύο φορές τη μέρα και οι ψαράδες την περιμένουν στο παλιό λιμάνι.",
    "zh": "潮水每天上涨两次，渔民们在旧港口等候它。",
    "ja": "潮は一日に二度満ち、漁師たちは古い港でそれを待つ。",
    "ko": "밀물은 하루에 두 번 들어오고 어부들은 옛 항구에서 기다린다.",
    "ar": "يرتفع المد مرتين في اليوم وينتظره الصيادون في الميناء القديم.",
    "hi": "ज्वार दिन में दो बार उठता है और मछुआरे पुराने बंदरगाह में उसकी प्रतीक्षा करते हैं।",
    "th": "น้ำขึ้นวันละสองครั้งและชาวประมงรออยู่ที่ท่าเรือเก่า",
    "pl": "Przypływ podnosi się dwa razy dziennie, a rybacy czekają na niego w starym porcie.",
}
every = pytest.mark.parametrize("language", QUESTIONS)


@pytest.mark.parametrize("language", sorted(set(QUESTIONS) - {"hi"}))
def test_the_language_of_a_question_and_of_a_sentence(language):
    assert [language_of(texts[language]) for texts in (QUESTIONS, ANSWERS, OTHERS)] == [language] * 3


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


# --- scores ---------------------------------------------------------------------------------------------------------


@every
def test_the_same_answer_has_every_score_and_another_has_not(language):
    question, answer, other = (texts[language] for texts in (QUESTIONS, ANSWERS, OTHERS))
    same = score(answer, answer, [], question)
    assert [same[name] for name in ("rouge1", "rouge2", "rougeL", "exact_match", "f1")] == [1.0] * 5
    assert rouge(answer, answer)["rougeL"] == 1.0
    different = score(other, answer, [], question)
    assert different["rouge2"] < 0.2 and different["f1"] < 0.7 and different["exact_match"] == 0.0


def test_half_of_a_chinese_answer_is_worth_about_half():
    whole, half = "船身漆成绿色", "船身漆"
    assert rouge(half, whole)["rouge1"] == pytest.approx(2 * 3 / 9)
    assert token_f1(half, [whole], "zh") == pytest.approx(2 * 3 / 9)


@pytest.mark.parametrize(
    ("answer", "reference", "language"),
    [
        ("die Fähre", "Fähre", "de"),
        ("STRASSE", "Straße", "de"),
        ("l’étrave", "étrave", "fr"),
        ("el casco.", "Casco", "es"),
        ("ＣＮＮ", "cnn", "zh"),
        (unicodedata.normalize("NFD", "Fähre"), "fähre", "en"),
        ("¿verde?", "verde", "es"),
    ],
)
def test_case_articles_and_ways_to_write_a_letter_do_not_count(answer, reference, language):
    assert exact_match(answer, [reference], language) == token_f1(answer, [reference], language) == 1.0


def test_what_looks_alike_and_means_something_else_differs():
    assert exact_match("10⁹", ["109"]) == 0.0
    assert exact_match("der Kiel", ["Kiel"], "en") == 0.0  # an article of another language is a word


@pytest.mark.parametrize("answer", ["船身是绿色的。", "لونها أخضر؟", "„Sie ist grün.“", "वह हरा है।"])
def test_an_answer_comes_to_its_end_in_any_script(answer):
    assert not is_run_on(answer)
    assert is_run_on(answer.rstrip("。؟।“.") + " ")


# --- sentences and words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentences",
    [
        ["潮水上涨了。", "谁在等候？", "渔民！", "他们说：“来了。”", "船走了"],
        ["Прилив поднялся.", "Рыбаки ждут."],
        ["Dr. Ohm kam am 3. Oktober mit z. B. Nr. 7 an.", "Äpfel gab es keine.", "Über ihn schrieb niemand."],
        ["La marea subió.", "¿Quién espera?", "Élla espera, p. ej. en el puerto."],
        ["ارتفع المد.", "من ينتظر؟", "الصيادون ينتظرون."],
        ["ज्वार उठा।", "मछुआरे आए।"],
        ["Η παλίρροια ανέβηκε.", "Ποιος περιμένει;", "Οι ψαράδες."],
        ["The hull is green; Ruth J. Hale et al. Painted it.", "It dried in 1.5 days."],
    ],
)
def test_sentences_end_where_a_reader_sees_it(sentences):
    between = "" if language_of("".join(sentences)) == "zh" else " "
    assert sentences_of(between.join(sentences)) == sentences


def test_words_are_stems_of_their_language():
    assert content_words("die grünen Schiffe", "de") == content_words("Schiff, grüne", "de")
    assert content_words("les maisons vertes", "fr") == content_words("maison verte", "fr")
    assert content_words("в старых гаванях", "ru") == content_words("старая гавань", "ru")
    assert content_words("船身", "zh") <= content_words("渡船的船身漆成绿色", "zh")
    assert content_words("नौका", "hi") and len(content_words("नौका", "hi")) == 1  # a vowel mark parts no word


def test_numbers_are_claims_beside_chinese_letters_and_german_nouns_are_no_names():
    assert claims("建于1962年，长3.5米。", "zh") == {"1962", "3.5"}
    assert claims("Im Hafen liegt die Fähre von 1962.", "de") == {"1962"}
    assert claims("Dans le port, Élodie Brun attend.", "fr") == content_words("Élodie Brun", "fr")


@every
def test_search_finds_the_passage_about_the_question_among_all_languages(language):
    names = [f"{kind} {name}" for name in QUESTIONS for kind in ("answer", "other")]
    texts = [texts[name] for name in QUESTIONS for texts in (ANSWERS, OTHERS)]
    ((best, _), *_) = Search(names, texts).search([QUESTIONS[language]], k=3)[0]
    assert best == f"answer {language}"


# --- filters --------------------------------------------------------------------------------------------------------


def reason(language, question, answer, check=None):
    text = f"{ANSWERS[language]} {OTHERS[language]}"
    return Filters([text], -1.0).reason(Candidate(question, answer, check or answer), text)


@pytest.mark.parametrize("language", sorted(QUESTIONS))
def test_a_right_pair_is_kept_in_its_language(language):
    assert reason(language, QUESTIONS[language], ANSWERS[language]) == ""


@pytest.mark.parametrize("language", ["de", "fr", "es", "ru", "zh"])
def test_a_wrong_pair_is_rejected_in_its_language(language):
    question, answer, other = (texts[language] for texts in (QUESTIONS, ANSWERS, OTHERS))
    assert reason(language, question, answer[:-4]) == "cut off"
    assert reason(language, question.rstrip("?？ "), answer) == "cut off"
    assert reason(language, question, answer.replace("1962", "1963")) == "not supported by the chunk"
    assert reason(language, question, other) == "answer not about the question"
    assert reason(language, question, answer, check=other) == "the model answers otherwise"


def test_a_pair_that_points_at_its_text_is_rejected():
    answer = ANSWERS["de"]
    assert reason("de", "Wer hat laut dem Text den Rumpf gestrichen?", answer) == "refers to the text"
    assert reason("zh", "文中是谁把船身漆成绿色的？", ANSWERS["zh"]) == "refers to the text"


# --- the embedded model ---------------------------------------------------------------------------------------------


def test_the_embedded_model_says_that_it_knows_english_alone():
    assert "(de)" in knows_not(EMBEDDED, [ANSWERS["de"], OTHERS["de"]])
    assert knows_not(EMBEDDED, [ANSWERS["en"], OTHERS["en"]]) == ""
    assert knows_not("some/model", [ANSWERS["de"]]) == ""
    assert len(knows_not(EMBEDDED, [OTHERS["zh"]]).splitlines()) == 1
