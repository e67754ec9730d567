"""Tests of llama_qna/pairs/own.py: pairs as people, spreadsheets, other trainers and we write them."""

import codecs
import json

import pandas as pd
import pytest

from llama_qna import UserError
from llama_qna.pairs import formats
from llama_qna.pairs.own import read_qna_file
from llama_qna.project.data import QNA_COLUMNS, read_table

PAIR = ("What is a wicket?", "A small door, often low.")


@pytest.fixture
def read(tmp_path):
    def write(content, name="mine.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_qna_file(path)

    return write


def pairs(table):
    return list(zip(table.Question, table.Answer, strict=True))


def complaint(read, content, name="mine.csv"):
    with pytest.raises(UserError) as caught:
        read(content, name)
    text = str(caught.value)
    assert text.startswith(f"Q&A file {name}") and text.isprintable() and len(text) < 500
    return text


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, reason",
    [
        ("question,reply\nWhat?,That.\n", "no column Answer; it has question, reply"),
        ("text;reply\nWhat?;That.\n", "no column Question or Answer; it has text;reply"),
        ("", "not readable as CSV"),
        ("Question,Answer\n", "no row has both a question and an answer"),
        ("Question,Answer\nWhat?,\n,That.\nQuestion:,Answer:\n", "no row has both a question and an answer"),
        (b"\xff\xfe\x00\x01", "not readable as CSV"),
        ('Question,Answer\n"What?,That.\n', "not readable as CSV"),
        ("Question,Answer\na,b\na,b,c,d\n", "not readable as CSV"),
        ("Question,Answer,split\na,b,train\na,c,validation\n", "row 2 is neither train nor heldout"),
        ('{"question": "a", "answer": "b"}\n{"question": ', "not readable as JSON"),
        ("[" * 10**5, "not readable as JSON"),
        ('{"question": "\xe9", "answer": "b"}'.encode("cp1252"), "save it as UTF-8"),
        ('{"question": "a\\u0000", "answer": "b"}', "NUL bytes"),
        ('{"text": "only"}', "no row has both a question and an answer"),
    ],
)
def test_bad_file_is_named_with_its_reason(content, reason, read):
    assert reason in complaint(read, content)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"], ids=["xlsx", "xls"])
def test_spreadsheet_is_to_be_saved_as_csv(start, read):
    assert "save it as CSV (UTF-8)" in complaint(read, start + bytes(range(256)), "pairs.xlsx")


def test_missing_file_is_named_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"Q&A file mine\.csv: no such file \(generation\.qna_file"):
        read_qna_file(tmp_path / "mine.csv")


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8], ids=["", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("mark", [",", ";", "\t", ", ", " ; "])
@pytest.mark.parametrize(
    "names", ["Question Answer", "question answer", "QUESTION ANSWER", "Frage Antwort", "prompt response"]
)
def test_table_is_read_however_it_is_written(names, mark, end, bom, read):
    rows = [names.split(), ["What is a wicket?", '"A small door, often low; or not."'], ["Who?", '"Two\nlines"']]
    content = bom + "".join(mark.join(row) + end for row in rows).encode()
    assert pairs(read(content)) == [(PAIR[0], "A small door, often low; or not."), ("Who?", "Two\nlines")]


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_carriage_return_inside_a_pair_is_a_line_break_and_tears_no_row(end, read, tmp_path):
    rows = [("What is A?", f"It is one.{end}It is two."), (f"What{end}is B?", "It is b.")]
    records = "".join(json.dumps(dict(zip(("question", "answer"), row, strict=True))) + "\n" for row in rows)
    quoted = "Question,Answer\r\n" + "".join(f'"{question}","{answer}"\r\n' for question, answer in rows)
    for content, name in ((records, "mine.jsonl"), (quoted, "mine.csv")):
        table = read(content, name)
        table.to_csv(tmp_path / "qna.csv", index=False)
        written = read_table(tmp_path / "qna.csv", "qna.csv", QNA_COLUMNS)
        assert pairs(written) == [("What is A?", "It is one.\nIt is two."), ("What\nis B?", "It is b.")] == pairs(table)


def test_columns_stand_in_any_order_and_others_are_no_matter(read):
    table = read("note,Answer ,QUESTION,Split\nx,A door.,What?,heldout\nx,None,What is NA?,\n")
    assert pairs(table) == [("What?", "A door."), ("What is NA?", "None")]
    assert list(table.columns) == QNA_COLUMNS
    assert (list(table.split), list(table.recipe)) == (["heldout", "train"], ["file", "file"])


def test_alpaca_as_a_table(read):
    table = read("instruction,input,output\nWhat is,a wicket?,A small door.\nWho?,,Bohr.\n")
    assert pairs(table) == [("What is\n\na wicket?", "A small door."), ("Who?", "Bohr.")]


def test_half_rows_doubles_and_contradictions_are_named(read, capsys):
    table = read("Question,Answer\nA?,one\n,lost\nA?,one\nA?,two\nB?,\nC?,three\n")
    assert pairs(table) == [("A?", "one"), ("A?", "two"), ("C?", "three")]
    half, double, several = capsys.readouterr().out.splitlines()
    assert "rows 2, 5" in half and "row 3" in double and "rows 1, 4" in several


def test_of_a_double_the_training_pair_stays(read):
    table = read("Question,Answer,split\nA?,one,heldout\nB?,two,train\nA?,one,train\n")
    assert list(zip(table.Question, table.split, strict=True)) == [("B?", "train"), ("A?", "train")]


def test_pair_that_names_its_chunk_has_its_place(tmp_path, capsys):
    chunks = [("d-0", "d", 3, "heldout"), ("d-1", "d", 4, "train")]
    chunks = pd.DataFrame(chunks, columns=["chunk_id", "document", "page", "split"])
    rows = [("a?", "d-0", ""), ("b?", "nowhere", ""), ("c?", "d-0", "train"), ("d?", "", "HELDOUT ")]
    table = pd.DataFrame(rows, columns=["question", "chunk_id", "split"]).assign(answer="Yes.")
    table.to_csv(tmp_path / "mine.csv", index=False)
    found = read_qna_file(tmp_path / "mine.csv", chunks)
    assert list(found.split) == ["heldout", "train", "train", "heldout"]
    assert list(found.page) == ["3", "", "3", ""] and found.document[0] == "d"
    assert "row 3" in capsys.readouterr().out, "training on what its chunk holds out is said"


# --- labels ----------------------------------------------------------------------------------------------------------

ORDINALS = [
    ("1. FC Köln won the cup in which year?", "1983."),
    ("2. Weltkrieg: Wann begann er?", "1939."),
    ("Which is first?", "1. FC Köln."),
    ("What is A?", "A – the ampere; V – the volt."),
    ("Which vitamin?", "A: retinol."),
    ("What day was it?", "3. Oktober 1990."),
    ("Who wrote it?", "A. Graves."),
]


def write(rows):
    return pd.DataFrame(rows, columns=["Question", "Answer"]).to_csv(index=False)


def test_numbers_and_letters_of_a_few_rows_are_text(read):
    assert pairs(read(write(ORDINALS))) == ORDINALS


def test_words_with_a_colon_are_labels_wherever_they_stand(read):
    more = [
        ("Q: 5. Which comes fifth?", "a) the moth."),
        ("To life?", "Answer: 42"),
        ("Frage 3: Was?", "**Antwort:** Das."),
        ("问：坝高多少？", "答：七十二米。"),
    ]
    bare = [
        ("5. Which comes fifth?", "a) the moth."),
        ("To life?", "42"),
        ("Was?", "Das."),
        ("坝高多少？", "七十二米。"),
    ]
    assert pairs(read(write(ORDINALS + more))) == ORDINALS + bare
    assert pairs(read(write([*ORDINALS, ("Q: What is NA?", "A: None.")])))[-1] == ("What is NA?", "None.")


LABELS = """Question 3: {} | Answer 3: {}
Q1. {} | A1. {}
Q: {} | A) {}
**Question:** {} | **Answer:** {}
QUESTION 2: {} | ANSWER 2: {}
1. {} | (Answer) {}
1. Q: {} | 1. A: {}"""


@pytest.mark.parametrize("labels", LABELS.splitlines())
@pytest.mark.parametrize("bare", [0, 1])
def test_labels_of_all_or_nearly_all_rows_are_stripped(labels, bare, read):
    question, answer = labels.split(" | ")
    rows = [(f"What is {n}?", f"A door, {n}.") for n in range(12)]
    labelled = [(question.format(q), answer.format(a)) for q, a in rows[bare:]]
    assert pairs(read(write(rows[:bare] + labelled))) == rows


# --- JSON ------------------------------------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    [
        [*PAIR, "d-0001", "d", 3, "heldout", "reader", "toy", "A wicket is a door."],
        ["Who?", "“Ilse”.", "", "", "", "train", "file", "", ""],
    ],
    columns=QNA_COLUMNS,
)


@pytest.mark.parametrize("form", ["messages", "alpaca", "sharegpt"])
def test_what_is_exported_comes_in_again(form, tmp_path):
    formats.export(TABLE, form, tmp_path / "mine.jsonl")
    pd.testing.assert_frame_equal(read_qna_file(tmp_path / "mine.jsonl"), TABLE.astype(str))


@pytest.mark.parametrize(
    "record",
    [
        {"answer": PAIR[1], "question": PAIR[0]},
        {"prompt": PAIR[0], "completion": PAIR[1]},
        {"instruction": "What is", "input": "a wicket?", "output": PAIR[1]},
        {"messages": [{"role": "user", "content": PAIR[0]}, {"role": "assistant", "content": PAIR[1]}]},
        {"conversations": [{"from": "human", "value": PAIR[0]}, {"from": "gpt", "value": PAIR[1]}]},
    ],
)
def test_records_of_the_usual_names(record, read):
    wanted = ("What is\n\na wicket?", PAIR[1]) if "input" in record else PAIR
    for content in (json.dumps(record), f"\n{json.dumps(record)}\n\n", json.dumps([record], indent=1)):
        assert pairs(read(content, "mine.jsonl")) == [wanted]


def test_of_a_dialogue_the_first_question_is_taken_and_the_rest_named(read, capsys):
    turns = [("user", "Who?"), ("assistant", "Bohr."), ("user", "And when?"), ("assistant", "In 1913.")]
    record = {"messages": [{"role": role, "content": content} for role, content in turns]}
    assert pairs(read(json.dumps(record))) == [("Who?", "Bohr.")]
    assert "row 1" in capsys.readouterr().out


def test_lists_numbers_and_half_characters_are_text(read):
    rows = [{"q": "Which?", "a": ["A door.", "A gate."]}, {"q": "How many?", "a": 4}, {"q": "Odd?", "a": "x\ud83d"}]
    found = read("\n".join(map(json.dumps, rows)))
    assert pairs(found) == [("Which?", "A door. A gate."), ("How many?", "4"), ("Odd?", "x?")]
