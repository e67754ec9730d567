"""What a chat model wrote becomes question-answer pairs, in whatever shape it labelled them.

What a model thinks aloud is dropped, and JSON and CSV are read as what they are (`records`). The grammar of the rest: a
text has markers; a marker and the text up to the next one is a segment.

1. JSON that is broken off, tags, tables and lists of answers are first rewritten as labelled text.
2. Questions are marked by labels ("Question 3:", "**Q1.**"); where a response has none, by list numbers; where it has
   none of these, by standing alone on a line. Answers are marked by labels only.
3. The body of a segment ends where the model turns to something else: a title, a rule, a note, a closing phrase.
4. Questions in a row go with the answers in a row after them; without these, the text behind a question answers it.
   Where answers come first, they are paired only if paragraphs, list items or numbers show which belong together.
"""

import json
import re
from collections import namedtuple
from itertools import groupby, zip_longest

from llama_qna.models.server import LONGEST, without_thoughts
from llama_qna.pairs import records

_FLAGS = re.IGNORECASE | re.MULTILINE
_ASKS, _ANSWERS = "|".join(records.QUESTION_WORDS), "|".join(records.ANSWER_WORDS)
# Places of a label: the start of a line, behind a sentence, and anywhere for "Question:" and "Answer:" themselves.
_MARKS, _ITEM = r"^[^\w\n]*_{0,2}", r"\d{1,3}[.)](?!\d)[^\w\n]*"
_SENTENCE_END = r'(?:(?<=[.?!。？！])|(?<=[.?!]["”)]))'
_CAPITALIZED = "|".join(word.capitalize() for word in records.QUESTION_WORDS + records.ANSWER_WORDS)
_WHOLE_WORD = rf"(?<=\S)[ \t]+(?=(?-i:{_CAPITALIZED})[ \t]?\d*[ \t]?[:：])"
_PLACE = rf'(?:{_MARKS}(?:{_ITEM})?|{_SENTENCE_END}[^\w\n"”]{{0,9}}|{_WHOLE_WORD})'
_DIGITS = r"(?:[ \t]*(?:nr|no|n°)\b)?[ \t.#(-]*\d{1,3}\)?(?:[ \t]*(?:/|of)[ \t]*\d+)?"
_NUMBER = rf"(?:{_DIGITS}|[ \t]+(?:one|two|three|four|five)\b|[一二三四五六七八九十]{{1,2}})"
_END = r"(?:[ \t]*\([^()\n]{3,30}\))?[*_ \t]*(?:[:：.)\]】]|[-–—](?=\s)|(?=\n|\Z))"  # the bracket: "Question 1 (easy):"


def _label(words: str, letter: str) -> str:
    """A pattern of labels; a letter alone needs a colon or a bracket, unlike "A. Graves" and "vitamin A."."""
    word = rf"(?:{words})(?:{_NUMBER}?{_END}|{_NUMBER}(?=[ \t]+(?-i:[A-Z])))"
    short = (
        rf"{letter}(?:{_DIGITS}[*_ \t]*(?:[:：.)\]]|[-–—](?=\s))|[*_]*[:：)\]])|(?-i:{letter.upper()}) [:)–—-](?=\s)"
    )
    return rf"(?:{word}|{short})[:：*_]*[ \t]*(?:(?:{words})[*_ \t]*[:：][*_ \t]*)?"  # the end: "Question 1: Question:"


_QUESTION = _label(rf"(?:(?:first|second|third|next|last|sample|discussion) )?(?:{_ASKS}|ques)", "q")
_ANSWER = _label(rf"(?:(?:sample|possible|suggested|correct) )?(?:{_ANSWERS}|ans)|the answer(?: is)?(?=[ \t]*:)", "a")
QUESTION_LABEL, ANSWER_LABEL = rf"{_PLACE}{_QUESTION}|{_MARKS}{_ITEM}", _PLACE + _ANSWER
_THEN_ANSWER = rf"[^\w\n]*\n*[^\w\n]*(?:{_ANSWER})"
_MARKERS = [  # of questions, strongest first
    _PLACE + _QUESTION,
    # A list number, with a question mark before its second line is over or an answer below.
    rf"{_MARKS}(?:{_ITEM}|[ivx]{{1,4}}[.)] )"
    rf"(?=[^\n?？]*(?:\n[ \t]*(?-i:[a-z])(?!\))[^\n?？]*)?[?？]|[^\n]*{_THEN_ANSWER})",
    # A whole line in a list or at the start of a paragraph, a bold question, or a question with an answer behind it.
    rf"(?:(?:\A|(?<=\n\n))[^\w\n]*|^[^\w\n]+)(?=\w[^\n?？]*[?？](?:[^\w\n]*$|\*\*))"
    rf"|(?:{_MARKS}|{_SENTENCE_END}[ \t]+[\"“]?)(?=\w[^\n?？]*[?？]{_THEN_ANSWER})",
]
_CHOICES = re.compile(r"\W*a(?:[).].*?\s\(?b[).]|:[^\n]*\n\W*b:)(?!\S)", re.I | re.S)  # "A) red B) blue" is no answer
_NO_ANSWER = r"(?i)\W*(?:(?:explain|describe|discuss|give|justify|why|how|name|list|hint)\b|\d+(?:[.)]\s|[.)]?\Z))"
_HOPE = "ich hoffe, d(?:as|ies)|j['’]espère que c|espero que est[aeo]|spero che quest|希望这"
_CLOSING = rf"(?i)(?:(?<=[.!?。！？])\s*|\n\W*)(?:(?:(?:I|please) )?(?:hope (?:this|these|that h)|let me know)|{_HOPE})"
_PLACEHOLDER = re.compile(r"[\[<{]\D+[\]>}]\Z|[\W_]*\Z")
_OTHER = r"""(?:[\s{\[,]{0,40}"(?!question|answer)\w\w+"\s*:\s*(?:"[^"\n]*"|[\w.-]+)){0,9}"""
_FIELD = r"""[\s{\[,]{0,40}(["'])(question|answer|q|a)\1\s*:\s*(["'])((?s:.*?))(?:(?<!\\)\3(?=\s*[,}\]\n])|\Z)"""
_TABLE_ROW = r"^\|?(?:[ \t]*\d+[ \t]*\|)?[ \t]*(?!q[\d:.)]|ques)([^|\t\n]+\?) *[|\t][ \t]*([^|\t\n]+?)[ \t]*\|?[ \t]*$"
_END_OF_TURN = r"</s>|<\|(?:im_end|end|eot_id)[^|]*\|>|\[INST\]"
_CUT_FIELD = re.compile(r"""["'](?:question|answer|q|a)["']\s*:""", re.I)
_TURNS = [
    rf"^([^\w\n]*)(?:{words})[*_ \t]*:" for words in ("user|human|instruction|prompt", "assistant|ai|response|output")
]
_ASIDE = re.compile(  # a line on which the model turns to something else
    r"""[^\w\n]*(?:
        please\ |feel\ free|thank|(?:would|do)\ you\ (?:like|want|need)|is\ there\ any|(?:can|may)\ i\b
        |(?:these|the\ above)\ (?:\w+\ )?(?:questions|pairs|answers)
        |(?:note|explanation|rationale|difficulty|source|reference|evidence|passage|context|topic)[*_ ]*:
        |(?:q\ ?&\ ?a|qa|question[- ]+(?:and[- ]+)?answers?)?[- ]*(?:pair|example|set|passage)[ #]*\d*[*_]*:?[*_]*$
    )|\s*(?:\#+\ |\||\d+[.)]\W*$|[-*_=\#>\s]+$)""",
    re.IGNORECASE | re.VERBOSE,
)
# "question" or "answer"; number as written or ""; whether a blank line or the mark of a list item stands before it
_Segment = namedtuple("_Segment", "kind number body raw apart")


def parse_response(text: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The complete pairs in a chat model's free text, and what is left over; an answer that was cut off counts.

    Returns:
        Pairs (question, answer) without labels, markup and line breaks; leftovers (raw text, reason), of a half pair
        "question without answer" or "answer without question"; of a whole response from which nothing else came
        "empty response", "cut off within its thoughts", "no labels" or "nothing behind the labels".
    """
    said = without_thoughts(text)
    found, rest = records.json_pairs(re.split(_END_OF_TURN, said)[0])
    found = found or records.table_pairs(re.sub(r"(?m)^[ \t]*```.*$", "", said))
    fields = [(_field(question, QUESTION_LABEL), _field(answer, ANSWER_LABEL)) for question, answer in found]
    pairs = [pair for pair in fields if all(pair)]
    leftovers = [(question, "question without answer") for question, answer in fields if question and not answer]
    leftovers += [(answer, "answer without question") for question, answer in fields if answer and not question]
    segments = [] if fields and not _CUT_FIELD.search(rest) else _segments(_as_labelled_text(rest))
    more, lone = _pairs_of(segments)
    pairs, leftovers = pairs + more, leftovers + lone
    if not pairs and not leftovers:
        thought = text.strip() and not said.strip()
        reason = (
            "nothing behind the labels" if segments or fields else "no labels" if said.strip() else "empty response"
        )
        leftovers = [(text[:LONGEST], "cut off within its thoughts" if thought else reason)]
    return pairs, leftovers


def _field(text: str, kind: str) -> str:
    """The text of a JSON field or a table's, on one line; only a label with a colon is one there."""
    if re.search(r"[:：][*_ ]*\Z", label_of(text, kind)):
        text = without_label(text, kind)
    text = _plain(text, "")
    return "" if _PLACEHOLDER.match(text) else text


def _pairs_of(segments: list[_Segment]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs and leftovers, as of a response."""
    pairs, leftovers = [], []
    full = [segment for segment in segments if not _PLACEHOLDER.match(segment.body)]
    ordered = _questions_first(full)
    if ordered is None:
        return [], [_lone(segment) for segment in full]
    runs = [list(run) for _, run in groupby(ordered, key=lambda segment: segment.kind)]
    runs = [[], *runs] if ordered and ordered[0].kind == "answer" else runs
    for questions, answers in zip_longest(runs[::2], runs[1::2], fillvalue=[]):
        matched = _match(questions, answers)
        pairs += [(question.body, answer.body) for question, answer in matched]
        used = {id(segment) for pair in matched for segment in pair}
        lone = [segment for segment in questions + answers if id(segment) not in used]
        leftovers += [_lone(segment) for segment in lone]
    return pairs, leftovers


def _lone(segment: _Segment) -> tuple[str, str]:
    return segment.raw, f"{segment.kind} without {'answer' if segment.kind == 'question' else 'question'}"


def _questions_first(segments: list[_Segment]) -> list[_Segment] | None:
    """The segments, each question before its answer.

    None where the first answer and the last question suggest that each answer belongs to the question behind it, and
    neither numbers nor the layout show it: to the one before would be another answer.
    """
    answers, questions = segments[::2], segments[1::2]
    if len(segments) % 2 or {s.kind for s in answers} != {"answer"} or {s.kind for s in questions} != {"question"}:
        return segments
    pairs = list(zip(questions, answers, strict=True))
    turned = [segment for pair in pairs for segment in pair]
    if all(answer.number and answer.number == question.number for question, answer in pairs):
        return turned
    before_answers, before_questions = {s.apart for s in answers[1:]}, {s.apart for s in questions}
    if len(answers) == 1 or (before_answers == {False} and before_questions == {True}):
        return segments
    return turned if before_answers == {True} and before_questions == {False} else None


def label_of(text: str, kind: str) -> str:
    """The label at the start of a question or an answer; "" where there is none.

    Args:
        kind: `QUESTION_LABEL` ("Question 3: ", "Q1. ", "2) ") or `ANSWER_LABEL` ("**Answer:** ", "(Answer) ", "a) "). A
            list "a) ... b) ..." has none.
    """
    match = None if _CHOICES.match(text) else re.match(kind, text.strip(), _FLAGS)
    return match[0] if match else ""


def without_label(text: str, kind: str) -> str:
    """A question or an answer without the label that `label_of` finds."""
    label = label_of(text, kind)
    return _closed(text.strip()[len(label) :].strip(), label) if label else text.strip()


def _segments(text: str) -> list[_Segment]:
    segments, markers = [], _markers(text)
    for (match, kind), (following, next_kind) in zip_longest(markers, markers[1:], fillvalue=(None, "")):
        end = following.start() if following else len(text)
        raw, body, answer = text[match.start() : end].strip(), _until_aside(text[match.end() : end]), ""
        if kind == "question":
            body, answer = _unlabelled_answer(body) if next_kind != "answer" else (body, "")
            body = re.sub(r"\A\d{1,3}[.)]\s+", "", re.split(r"(?<=[?？])\W*\n\s*\n", body)[0])
        number = re.findall(r"(?i)\d+|\b(?:one|two|three|four|five)\b", match[0])
        apart = text[: match.start()].endswith("\n\n") or bool(re.match(r"\s*(?:[-*•]\s|\d+[.)])|\n\n", match[0]))
        segments.append(_Segment(kind, "".join(number[:1]).lower(), _plain(body, match[0]), raw, apart))
        segments += [segments[-1]._replace(kind="answer", body=_plain(answer, ""))] if answer else []
    return segments


def _markers(text: str) -> list[tuple[re.Match, str]]:
    answers = list(re.finditer(ANSWER_LABEL, text, _FLAGS))
    ends = [match.start() for match in answers[1:]] + [len(text)]
    answers = [m for m, end in zip(answers, ends, strict=False) if not _CHOICES.match(text[m.start() : end])]
    starts, questions = {match.start() for match in answers}, []
    for pattern in _MARKERS:
        questions = questions or [m for m in re.finditer(pattern, text, _FLAGS) if m.start() not in starts]
        if pattern is _MARKERS[-1]:  # a question without any label may be addressed to the user
            questions = [m for m in questions if m[0].strip() or not _ASIDE.match(text, m.end())]
    return sorted([(m, "question") for m in questions] + [(m, "answer") for m in answers], key=lambda m: m[0].start())


def _until_aside(body: str) -> str:
    lines = re.split(_CLOSING, body.strip())[0].split("\n")
    last = re.sub(r"[\W\d_]", "", lines[-1]).lower()
    labels = records.QUESTION_WORDS + records.ANSWER_WORDS
    if len(lines) > 1 and last and any(label.startswith(last) for label in labels):
        lines.pop()  # a label that the token limit cut
    end = next((i for i, line in enumerate(lines) if i and line.strip() and _ASIDE.match(line)), None)
    return "\n".join(lines[:end]).strip()


def _unlabelled_answer(body: str) -> tuple[str, str]:
    """Question and the answer behind it, on the next line or, if there is no other question mark, on the same."""
    match = re.match(r"(.*?[?？][^\w\n]*)\n(.+)", body, re.DOTALL)
    if not match and body.count("?") == 1:
        match = re.match(r"(.*\?\W*?)[ \t]+(.+)", body, re.DOTALL)
    unfit = not match or match[2].endswith(("?", "？")) or _CHOICES.match(match[2]) or re.match(_NO_ANSWER, match[2])
    return (body, "") if unfit else match.groups()


def _match(questions: list[_Segment], answers: list[_Segment]) -> list[tuple[_Segment, _Segment]]:
    """Questions in a row go with the answers after them: by number, one by one, or the last with the first."""
    if len(questions) > 1 and all(segment.number for segment in questions + answers):
        by_number = {question.number: question for question in questions}
        first = {answer.number: answer for answer in reversed(answers)}
        return [(by_number[n], first[n]) for n in by_number if n in first]
    if len(questions) != len(answers):
        questions, answers = questions[-1:], answers[:1]
    return list(zip(questions, answers, strict=False))


def _plain(body: str, label: str) -> str:
    """Text without emphasis and line breaks; of several list items the dashes stay, because they part them."""
    text = re.sub(r"(?<![\w*])(\*{1,3})(?=\S)([^\n]+?)(?<=\S)\1(?![\w*])", r"\2", body)
    text, items = re.subn(r"^[ \t]*[-*•][ \t]+", "- ", text, flags=re.MULTILINE)
    text = _closed(" ".join((text.removeprefix("- ") if items == 1 else text).split()), label)
    return re.sub(r'\A"([^"]*)"\Z|\A“([^“”]*)”\Z', r"\1\2", text).strip()


def _closed(text: str, label: str) -> str:
    """Text without the end of a bold, quoted or bracketed stretch that began before it."""
    for mark in ("**", '"'):
        text = text.removeprefix(mark).removesuffix(mark) if text.count(mark) % 2 else text
    return text.removesuffix(")") if label.count("(") > label.count(")") else text


def _as_labelled_text(text: str) -> str:
    """The same response, up to its end token, with every other layout rewritten as "Question: ..." lines."""
    text = re.split(_END_OF_TURN, text.replace("\r\n", "\n"))[0]
    text = re.sub(r"[\u00a0\u202f](?=[:：?])", " ", text)  # as French has it
    text = re.sub(r"<br ?/?>|^[ \t]*```.*$", "\n", text, flags=_FLAGS)
    text = re.sub(r"\n\s*\n", "\n\n", text.strip())
    text = re.sub(r"(?i)<(question|answer|q|a)>([^<]*)</\1>", r"\n\1: \2", text)
    text = re.sub(r"(?i)</?(?:qa|qna|pair|item|example)s?>", "\n\n", text)
    text = re.sub(rf"^(\W*(?:{_ASKS}|{_ANSWERS}):)[ \t]*[>|][+-]?[ \t]*$", r"\1", text, flags=_FLAGS)  # YAML's blocks
    if all(re.search(turn, text, _FLAGS) for turn in _TURNS):
        text = re.sub(_TURNS[0], r"\1Question:", text, flags=_FLAGS)
        text = re.sub(_TURNS[1], r"\1Answer:", text, flags=_FLAGS)
    text = re.sub(rf"{_OTHER}{_FIELD}{_OTHER}[\s,}}\]]*", _field_as_text, text, flags=_FLAGS)
    text = re.sub(_TABLE_ROW, r"\n\nQuestion: \1\nAnswer: \2", text, flags=_FLAGS)
    # "Q. ...?" and "A. ..." on the next line: only the two together tell a label from an initial.
    text = re.sub(r"(?m)^([^\w\n]*)Q\. ([^\n]*\?\W*?)\n\s*A\. ", r"\1Q: \2\nA: ", text)
    # So with the letters of other languages, such as "P:" and "R:".
    text = re.sub(r"(?m)^([^\w\n]*)[QPDF](\d{0,2}) ?: ([^\n]*\?\W*?)\n\s*[RA]\2 ?: ", r"\1Q\2: \3\nA\2: ", text)
    questions, answers = re.split(rf"(?:{_MARKS}answers(?: key)?[*_: \t]*$|\Z)", text, maxsplit=1, flags=_FLAGS)
    return questions + "\n\n" + re.sub(rf"{_MARKS}(\d+)[.)] ", r"Answer \1: ", answers, flags=_FLAGS)


def _field_as_text(field: re.Match) -> str:
    try:
        value = json.loads(f'"{field[4]}"', strict=False)
    except ValueError:  # written with single quotes, or cut off
        value = field[4].replace("\\", "")
    apart = "\n\n" if "{" in field[0][: field.start(1) - field.start()] else "\n"  # the first of an object
    return f"{apart}{field[2]}: {value}\n"
