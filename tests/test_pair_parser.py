"""Tests of llama_qna/pairs/parser.py: hand-labelled raw responses, what is left over, the labels of a user's own file.

`data/raw_responses.jsonl` holds what chat models write when asked for pairs, in many shapes, and the pairs that a
careful person reads there: labels, emphasis and wrapping quotes stripped, white space collapsed; choices stay in their
question, list marks in their answer ("-" for all bullets); explanations, sources, notes and closing phrases are in no
pair; an answer that was cut off makes a pair; a question without an answer does not.
"""

import json
import re
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from llama_qna.pairs.parser import ANSWER_LABEL, QUESTION_LABEL, parse_response, without_label

strip_question_label = partial(without_label, kind=QUESTION_LABEL)
strip_answer_label = partial(without_label, kind=ANSWER_LABEL)


def parse_pairs(text):
    return parse_response(text)[0]


RESPONSES = [json.loads(line) for line in (Path(__file__).parent / "data" / "raw_responses.jsonl").open("rb")]


def words(text):
    return re.findall(r"\w+", text)


def test_nearly_all_pairs_of_the_labelled_responses_are_recovered_and_none_is_invented():
    assert len({response["raw"] for response in RESPONSES}) == len(RESPONSES) >= 170
    labelled, missed, invented = 0, [], []
    for response in RESPONSES:
        found, true = Counter(parse_pairs(response["raw"])), Counter(map(tuple, response["pairs"]))
        labelled += true.total()
        missed += [(response["shape"], pair) for pair in (true - found).elements()]
        invented += [(response["shape"], pair) for pair in (found - true).elements()]
    assert not invented
    assert len(missed) <= 0.01 * labelled, missed


def test_response_that_is_cut_off_gives_only_what_it_says():
    """A cut hides what comes, so that the start of a list of choices is read as an answer; seldom, and never more."""
    cuts = [(response, response["raw"][:n]) for response in RESPONSES for n in range(0, len(response["raw"]), 7)]
    found = strange = 0
    for response, raw in cuts:
        pairs, leftovers = parse_response(raw)
        assert pairs or leftovers
        assert not Counter(words(" ".join(text for pair in pairs for text in pair))) - Counter(words(raw))
        found += len(pairs)
        strange += sum(question not in [true for true, _ in response["pairs"]] for question, _ in pairs)
    assert strange <= 0.01 * found


A = ("What is a wicket?", "A small door.")
B = ("What is a fold?", "A group of stages.")
Q = A[0]

# raw text of a chat model, with {q} answered by {a} and {p} by {b}, and the pairs that a person reads in it
SHAPES = {
    "plain": ("Question: {q}\nAnswer: {a}", [A]),
    "two": ("Question: {q}\nAnswer: {a}\n\nQuestion: {p}\nAnswer: {b}", [A, B]),
    "numbered label": ("Question 1: {q}\nAnswer: {a}\nQuestion 2: {p}\nAnswer: {b}", [A, B]),
    "both numbered": ("Question 1: {q}\nAnswer 1: {a}", [A]),
    "short": ("Q: {q}\nA: {a}", [A]),
    "short, numbered": ("Q1: {q}\nA1: {a}\nQ2: {p}\nA2: {b}", [A, B]),
    "short, dots": ("Q1. {q}\nA1. {a}", [A]),
    "bold with colon": ("**Question:** {q}\n**Answer:** {a}", [A]),
    "bold before colon": ("**Question**: {q}\n**Answer**: {a}", [A]),
    "bold, numbered": ("**Question 1:** {q}\n\n**Answer 1:** {a}", [A]),
    "bold line": ("**Question 1: {q}**\n**Answer:** {a}", [A]),
    "list of pairs": ("1. Question: {q}\n   Answer: {a}\n2. Question: {p}\n   Answer: {b}", [A, B]),
    "list, brackets": ("1) Q: {q}\nA: {a}\n2) Q: {p}\nA: {b}", [A, B]),
    "heading": ("### Question 1:\n{q}\n### Answer 1:\n{a}", [A]),
    "one line": ("Question: {q} Answer: {a} Question: {p} Answer: {b}", [A, B]),
    "one line, short": ("Q: {q} A: {a} Q: {p} A: {b}", [A, B]),
    "last question without answer": ("Question: {q}\nAnswer: {a}\nQuestion: {p}", [A]),
    "last answer empty": ("Question: {q}\nAnswer: {a}\nQuestion: {p}\nAnswer:", [A]),
    "chatter before": ("Sure! Here is a question about the text:\n\nQuestion: {q}\nAnswer: {a}", [A]),
    "answer without question": ("Answer: Nobody knows.\nQuestion: {q}\nAnswer: {a}", [A]),
    "question asked again": ("Question: What was it?\nQuestion: {q}\nAnswer: {a}", [A]),
    "lower case": ("question: {q}\nanswer: {a}", [A]),
    "upper case": ("QUESTION: {q}\nANSWER: {a}", [A]),
    "in brackets": ("(Q) {q}\n(A) {a}", [A]),
    "space before colon": ("Question : {q}\nAnswer : {a}", [A]),
    "star bullets": ("* Question: {q}\n* Answer: {a}", [A]),
    "over two lines": ("Question: What is\na wicket?\nAnswer: A small\ndoor.", [A]),
    "label on its own line": ("Question:\n{q}\n\nAnswer:\n{a}", [A]),
    "Windows lines": ("Question: {q}\r\nAnswer: {a}\r\n", [A]),
    "nothing": ("", []),
    "refusal": ("I cannot help with that.", []),
    # JSON and tables, as what they are
    "JSON": ('[{{"question": "{q}", "answer": "{a}"}}, {{"question": "{p}", "answer": "{b}"}}]', [A, B]),
    "JSON, answers first": ('[{{"answer": "{a}", "question": "{q}"}}, {{"answer": "{b}", "question": "{p}"}}]', [A, B]),
    "JSON in a fence": ('Sure:\n```json\n[{{"prompt": "{q}",\n "completion": "{a}"}}]\n```\nBye.', [A]),
    "JSON, other names": ('{{"instruction": "{q}", "output": "{a}"}}\n{{"Query": "{p}", "Response": "{b}"}}', [A, B]),
    "JSON, numbered names": ('{{"qa": {{"question_1": "{q}", "answer_1": "{a}", "q2": "{p}", "a2": "{b}"}}}}', [A, B]),
    "JSON, a name twice": ('{{"question": "{q}", "answer": "{a}", "question": "{p}", "answer": "{b}"}}', [A, B]),
    "JSON, two lists": ('{{"questions": ["{q}", "{p}"], "answers": ["{a}", "{b}"]}}', [A, B]),
    "JSON, a dialogue": ('[{{"role": "user", "content": "{q}"}}, {{"role": "assistant", "content": "{a}"}}]', [A]),
    "JSON, trailing commas": (
        '[{{"question": "{q}", "answer": "{a}",}}, {{"question": "{p}", "answer": "{b}"}},]',
        [A, B],
    ),
    "JSON, labels in it": ('{{"question": "Question 1: {q}", "answer": "A: {a}"}}', [A]),
    "JSON, lists and numbers": (
        '[{{"question": "{q}", "answer": ["It is 4", "6"]}}, {{"question": "{p}", "answer": 4.5}}]',
        [(Q, "It is 4, 6"), (B[0], "4.5")],
    ),
    "JSON, half a pair": ('[{{"question": "{q}", "answer": null}}, {{"question": "{p}", "answer": "{b}"}}]', [B]),
    "JSON, cut off": (
        '[{{"question": "{q}", "answer": "{a}"}}, {{"question": "{p}", "answer": "A gr',
        [A, (B[0], "A gr")],
    ),
    "JSON of something else": ('{{"text": "{q}", "score": [1, 2]}}', []),
    "CSV": ('Question,Answer\n"{q}","{a}"\n"{p}","{b}"', [A, B]),
    "tabs": ("{q}\t{a}\n{p}\t{b}", [A, B]),
    "tags": ("<qa><q>{q}</q><a>{a}</a></qa>\n<qa><a>{b}</a></qa>", [A]),
    "YAML": ("- question: >\n    {q}\n  answer: |\n    {a}\n- question: {p}\n  answer: {b}", [A, B]),
    "a dialogue": ("### User: {q}\n### Assistant: {a}\n\nUser: {p}\nAssistant:\n{b}", [A, B]),
    # answers before their questions: paired where something shows it, and never with the next one
    "answers first, paragraphs": ("Answer: {a}\nQuestion: {q}\n\nAnswer: {b}\nQuestion: {p}", [A, B]),
    "answers first, list": ("- answer: {a}\n  question: {q}\n- answer: {b}\n  question: {p}", [A, B]),
    "answers first, numbers": ("Answer 1: {a}\nQuestion 1: {q}\nAnswer 2: {b}\nQuestion 2: {p}", [A, B]),
    "answers first, tags": (
        "<pair><answer>{a}</answer><question>{q}</question></pair>\n"
        "<pair><answer>{b}</answer><question>{p}</question></pair>",
        [A, B],
    ),
    "answers first, nothing shows it": ("Answer: {a}\nQuestion: {q}\nAnswer: {b}\nQuestion: {p}", []),
    "answers first, no JSON": ("{{'answer': '{a}', 'question': '{q}'}}, {{'answer': '{b}', 'question': '{p}'}}", []),
    "stray answer and question": ("Answer: x.\n\nQuestion: {q}\nAnswer: {a}\n\nQuestion: {p}", [A]),
    # thoughts
    "thoughts": ("<think>\nMaybe Question: Who? Answer: Nobody.\n</think>\n\nQuestion: {q}\nAnswer: {a}", [A]),
    "thoughts that the prompt began": ("Question: Who? Answer: Me.\n</think>\nQuestion: {q}\nAnswer: {a}", [A]),
    "thoughts in JSON": ('<think>{{"question": "Who?"</think>{{"question": "{q}", "answer": "{a}"}}', [A]),
    "thoughts, cut off": ("<thinking>\nQuestion: {q}\nAnswer: {a}", []),
    # harder
    "chatter after": ("Question: {q}\nAnswer: {a}\n\nI hope that helps!", [A]),
    "dash bullets": ("- Question: {q}\n- Answer: {a}", [A]),
    "pairs with a title": ("Pair 1:\nQuestion: {q}\nAnswer: {a}\n\nPair 2:\nQuestion: {p}\nAnswer: {b}", [A, B]),
    "heading without colon": ("### Question 1\n{q}\n### Answer 1\n{a}", [A]),
    "number sign": ("Question #1: {q}\nAnswer #1: {a}", [A]),
    "list without the word": ("1. {q}\nAnswer: {a}\n2. {p}\nAnswer: {b}", [A, B]),
    "the letter A in an answer": (
        "Question: {q}\nAnswer: It needs vitamin A. It is rare.",
        [(Q, "It needs vitamin A. It is rare.")],
    ),
    "class A: in an answer": ("Question: {q}\nAnswer: In class A: the best one.", [(Q, "In class A: the best one.")]),
    "the letter Q in an answer": (
        "Question: {q}\nAnswer: The factor is Q. It is 3.",
        [(Q, "The factor is Q. It is 3.")],
    ),
    "choices in a question": (
        "Question: Is it (A) or (B) there?\nAnswer: {a}",
        [("Is it (A) or (B) there?", "A small door.")],
    ),
}


LANGUAGES = {
    "English": ("Question", "Answer", *A),
    "German": ("Frage", "Antwort", "Was ist ein Pegel?", "Ein Messgerät."),
    "French": ("Question", "Réponse", "Qu’est-ce qu’un flotteur ?", "Un corps qui flotte."),
    "Spanish": ("Pregunta", "Respuesta", "¿Qué es un pozo?", "Un hoyo con agua."),
    "Italian": ("Domanda", "Risposta", "Che cos’è un molo?", "Una costruzione nel mare."),
    "Portuguese": ("Pergunta", "Resposta", "O que é um poço?", "Um buraco com água."),
    "Dutch": ("Vraag", "Antwoord", "Wat is een peil?", "Een meetinstrument."),
    "Polish": ("Pytanie", "Odpowiedź", "Czym jest molo?", "Budowla w morzu."),
    "Russian": ("Вопрос", "Ответ", "Что такое мол?", "Сооружение в море."),
    "Japanese": ("質問", "回答", "ダムの高さは？", "七十二メートル。"),
    "Korean": ("질문", "답변", "댐의 높이는?", "칠십이 미터."),
    "Chinese": ("问题", "答案", "坝高多少？", "七十二米。"),
    "Chinese, short": ("问", "答", "坝高多少？", "七十二米。"),
}


def test_letters_of_every_language_are_labels_where_question_and_answer_have_one():
    pair = ("Où est l’atelier ?", "À Saint-Éloi.")
    for layout in ("Q : {}\nR : {}", "Q1: {}\nR1: {}", "P: {}\nR: {}", "D: {}\nR: {}", "F: {}\nA: {}"):
        assert parse_pairs(layout.format(*pair)) == [pair]
    assert parse_pairs("Q：坝高多少？\nA：七十二米。\n\n希望这些有帮助！") == [("坝高多少？", "七十二米。")]
    assert parse_pairs("1. 坝高多少？\n七十二米。") == parse_pairs("【问题一】坝高多少？\n【答案一】七十二米。")


LAYOUTS = """{}: {}|{}: {}
{} 1: {}|{} 1: {}
{}1：{}|{}1：{}
**{}:** {}|**{}:** {}
{} : {}||{} : {}
{}\u00a0: {}|{}\u00a0: {}
1. {}: {}|   {}: {}
- {}: {}|- {}: {}
### {}|{}|### {}|{}"""


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("layout", LAYOUTS.splitlines())
def test_labels_of_every_language_are_found(language, layout):
    asks, answers, question, answer = LANGUAGES[language]
    raw = layout.replace("|", "\n").format(asks, question, answers, answer)
    assert parse_pairs(raw) == [(question, answer)]
    assert parse_pairs(f"{raw}\n\n{raw}") == [(question, answer)] * 2
    assert strip_question_label(f"{asks} 2: {question}") == question
    assert strip_answer_label(f"**{answers}:** {answer}") == answer


@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_are_found_in_what_a_model_writes(shape):
    raw, pairs = SHAPES[shape]
    assert parse_pairs(raw.format(q=A[0], a=A[1], p=B[0], b=B[1])) == pairs


@pytest.mark.parametrize(
    "raw, leftovers",
    [
        ("", [("", "empty response")]),
        (" \n", [(" \n", "empty response")]),
        ("I cannot help with that.", [("I cannot help with that.", "no labels")]),
        ("Question: ...\nAnswer: ...", [("Question: ...\nAnswer: ...", "nothing behind the labels")]),
        ("Q: Who?\nA: Bohr.\nQ: When?", [("Q: When?", "question without answer")]),
        ("Q: Who?\nQ: When?\nA: In 1913.", [("Q: Who?", "question without answer")]),
        ("Q: Who?\nA: Bohr.\nA: In 1913.", [("A: In 1913.", "answer without question")]),
        ("Answer 1: Bohr.\n\nHope this helps!", [("Answer 1: Bohr.\n\nHope this helps!", "answer without question")]),
        ("<think>Q: Who?\nA: Me.", [("<think>Q: Who?\nA: Me.", "cut off within its thoughts")]),
        ('[{"question": "Who?", "answer": null}]', [("Who?", "question without answer")]),
        (
            '[{"question": "...", "answer": "..."}]',
            [('[{"question": "...", "answer": "..."}]', "nothing behind the labels")],
        ),
        ("1. Who?\n2. When?", [("1. Who?", "question without answer"), ("2. When?", "question without answer")]),
        ("Sure!\nQ: Who?\nA: Bohr.\n\nLet me know if you need more.", []),
    ],
)
def test_what_is_left_over_is_kept_with_its_reason(raw, leftovers):
    assert parse_response(raw)[1] == leftovers


@pytest.mark.parametrize(
    "piece", ["*", " ", "\n", "1. ", "1. a\n", "? A) x ", "{[ ,", '"xx": 1, ', "| ", '{"question": "']
)
def test_endless_repetition_of_a_mark_gives_no_pair(piece):
    assert parse_pairs(piece * (12_000 // len(piece))) == []


HOSTILE = {
    "ten megabytes": "The mill burns. " * 650_000,
    "ten megabytes of brackets": '[{"a": ' * 1_500_000,
    "ten megabytes of thoughts": "<think>" * 1_500_000,
    "JSON inside JSON": '{"a": ' * 5_000 + "1" + "}" * 5_000,
    "lists inside lists": "[" * 40_000 + "]" * 20_000,
    "an endless number": '{"question": "How many?", "answer": ' + "9" * 20_000 + "}",
    "names without end": "{" + ", ".join(f'"question_{n}": 1' for n in range(2_000)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_response_gives_no_pair_and_ends(kind):
    pairs, leftovers = parse_response(HOSTILE[kind])
    assert pairs == [] and leftovers


def test_control_tokens_end_a_response_wherever_they_stand():
    text = '{"question": "What is it?", "answer": "A door."}<|im_end|>\n{"question": "Who?", "answer": "Me."}'
    assert parse_pairs(text) == [("What is it?", "A door.")]


@pytest.mark.parametrize(
    "label",
    """Question: |question 3: |Question #3: |Question 3 - |QUESTION 3: |Q: |Q3: |Q1. |Q1) |Q) |**Question:** |**Q1:**
    |(Q) |(Question) |[Question 2] |### Question 2:\n|1. |2) |1. Question: |1) Q: |- Question: |Ques. 4: """.split("|"),
)
def test_label_of_a_question_is_stripped(label):
    assert strip_question_label(f"{label}What is a fold?") == "What is a fold?"


@pytest.mark.parametrize(
    "label",
    """Answer: |answer 3: |Answer #3: |ANSWER 2: |A: |A3: |A1. |A1) |A) |a) |a: |**Answer:** |**A1:** |(Answer) |(A)
    |[Answer] |### Answer\n|1. Answer: |1. A: |- Answer: |Ans: |The answer is: |Sample answer: """.split("|"),
)
def test_label_of_an_answer_is_stripped(label):
    assert strip_answer_label(f"{label}A group of stages (on one board).") == "A group of stages (on one board)."


def test_what_a_label_opened_is_closed():
    assert strip_question_label("**Question 1: What is a fold?**") == "What is a fold?"
    assert strip_answer_label("(A: A group of stages.)") == "A group of stages."


@pytest.mark.parametrize("strip", [strip_question_label, strip_answer_label])
@pytest.mark.parametrize(
    "text",
    """A. Graves wrote it.|Q. Le wrote it.|Q factors are large.|A 4-bit table.|a) and b)|A) red\nB) blue|Questions: two.
    |Answers have been given.|3.5 million years ago, what happened?|2001: A Space Odyssey.|A* is a search.|It is A: so.
    |Vitamin A. It is rare.|Is it so? Answer: no.|"Quoted." (A note)|The answer is 12.|The steps are 1) and 2)""".split(
        "|"
    ),
)
def test_text_that_only_looks_like_a_label_stays(strip, text):
    assert strip(text.strip()) == text.strip()


def test_a_list_in_an_answer_keeps_its_first_number():
    assert strip_answer_label("1. Heat it. 2. Cool it.") == "1. Heat it. 2. Cool it."
