"""Pairs in records: under which names people, chat models and other trainers keep a question and its answer."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator

from llama_qna.text.tables import DELIMITERS, plain_line_ends

# Words of labels and names of fields and columns, in the order in which they are believed: English, German, French,
# Spanish, Italian, Portuguese, Dutch, Polish, Russian, Chinese, Japanese, Korean.
QUESTION_WORDS = ("question", "frage", "pregunta", "domanda", "pergunta", "vraag", "pytanie", "вопрос")
QUESTION_WORDS += ("问题", "問題", "问", "問", "質問", "질문")
ANSWER_WORDS = ("answer", "antwort", "réponse", "reponse", "respuesta", "risposta", "resposta", "antwoord")
ANSWER_WORDS += ("odpowiedź", "ответ", "答案", "答", "回答", "답변")
# ... and of fields alone, as alpaca and others call them
QUESTION = (*QUESTION_WORDS, "q", "query", "instruction", "prompt", "input")
ANSWER = (*ANSWER_WORDS, "a", "response", "output", "completion")
_ASKS, _ANSWERS = ("user", "human", "prompter"), ("assistant", "gpt", "model", "bot")
_OPENING = re.compile(r'\{\s*["}]|\[\s*["\[{]')  # as JSON that can hold a pair begins
_TRIES = 200  # of reading JSON where it does not begin; a response has a few brackets
_NAME = re.compile(r"[\W_]*(.*?)[\W_]*(\d*)[\W_]*", re.DOTALL)  # "Question 2:" is "question" of the second pair


def pairs_in(value) -> Iterator[tuple[str, str]]:
    """Every pair in what JSON holds, at any depth and in its order; a half one with "" for what is not there.

    Fields have the usual names in any order (`question_1`, `Q`, `instruction` with `input` and `output`), a dialogue
    is a list of turns (`role` and `content`, `from` and `value`), and `questions` may stand beside `answers`.
    """
    if isinstance(value, list):
        turns = [_turn(item) for item in value]
        if any(turns):
            yield from _dialogue([turn for turn in turns if turn])
        else:
            for item in value:
                yield from pairs_in(item)
    elif isinstance(value, dict):
        found = _fields(value)
        yield from found
        for inner in () if found else value.values():
            yield from pairs_in(inner)


def json_pairs(text: str) -> tuple[list[tuple[str, str]], str]:
    """The pairs of all JSON in a text, and the text without it; JSON that is broken off stays in the text."""
    text = re.sub(r'(["}])\s*,(\s*[}\]])', r"\1\2", text)  # a comma behind the last item, as models write it
    pairs, rest, done, failed = [], [], 0, 0
    match = _OPENING.search(text)
    while match and failed < _TRIES:
        end = match.start() + 1
        try:
            value, end = _DECODER.raw_decode(text, match.start())
            found = list(pairs_in(value))
        except (ValueError, RecursionError):
            found, failed = [], failed + 1
        if found:
            pairs += found
            rest.append(text[done : match.start()])
            done = end
        match = _OPENING.search(text, end)
    return pairs, "".join([*rest, text[done:]])


def table_pairs(text: str) -> list[tuple[str, str]]:
    """The pairs of a text that is a table: its first line names the columns."""
    lines = text.strip().splitlines()
    for delimiter in DELIMITERS if lines else "":
        try:
            rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
        except csv.Error:
            continue
        names = {field_name(name)[0] for name in rows[0]}
        if names & set(QUESTION) and names & set(ANSWER):
            return [pair for row in rows[1:] for pair in _fields(dict(zip(rows[0], row, strict=False))) if all(pair)]
    return []


def _record(items: list[tuple[str, object]]) -> dict:
    """A JSON object; a name that comes again, as models write it, is of another pair."""
    times, record = Counter(), {}
    for name, value in items:
        times[name] += 1
        record[f"{name} {times[name]}" if times[name] > 1 else name] = value
    return record


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_record)


def text_of(value) -> str:
    """The text of a field: a number as it is written, the items of a list one after the other; else ""."""
    if isinstance(value, list):
        items = [item for item in map(text_of, value) if item]
        return (" " if all(item[-1] in ".?!。？！" for item in items) else ", ").join(items)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return ""
    # JSON can hold half a character, which no file can
    return plain_line_ends(value.encode("utf-8", "replace").decode()).strip()


def field_name(name: str) -> tuple[str, str]:
    """The name of a field or column without case, marks and number; and the number."""
    return _NAME.fullmatch(name.lower()).groups()


def _fields(record: dict) -> list[tuple[str, str]]:
    groups: dict[str, dict] = {}
    for key, value in record.items():
        name, number = field_name(key)
        groups.setdefault(number, {}).setdefault(name, value)
    found = []
    for group in groups.values():
        if isinstance(group.get("questions"), list) and isinstance(group.get("answers"), list):
            found += zip(map(text_of, group["questions"]), map(text_of, group["answers"]), strict=False)
        question, answer = _first(group, QUESTION), _first(group, ANSWER)
        if question and answer and "instruction" in group and "input" in group and not _first(group, QUESTION_WORDS):
            question = "\n\n".join(filter(None, (text_of(group["instruction"]), text_of(group["input"]))))
        found += [(question, answer)] if question or answer else []
    return [pair for pair in found if any(pair)]


def _first(group: dict, names: tuple[str, ...]) -> str:
    return next((text for name in names if (text := text_of(group.get(name)))), "")


def _turn(item) -> tuple[str, str] | None:
    """Who says what, where this is a turn of a dialogue."""
    if not isinstance(item, dict):
        return None
    who, said = item.get("role", item.get("from")), item.get("content", item.get("value"))
    return (who.lower(), text_of(said)) if isinstance(who, str) and isinstance(said, str) else None


def _dialogue(turns: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    asked = ""
    for who, said in turns:
        if who in _ANSWERS and asked:
            yield asked, said
        asked = said if who in _ASKS else ""
