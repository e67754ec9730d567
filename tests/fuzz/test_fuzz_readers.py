"""Hypothesis: whatever is in a response, a text, a recipe or a table, the readers keep their word or say one line."""

import csv
import io
import os

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llama_qna import UserError
from llama_qna.documents.chunks import split
from llama_qna.documents.clean import Document, Paragraph
from llama_qna.documents.columns import parts
from llama_qna.documents.text_files import _markdown_blocks, decode
from llama_qna.pairs.parser import ANSWER_LABEL, QUESTION_LABEL, parse_response, without_label
from llama_qna.pairs.qna import read_qna_file
from llama_qna.project.data import read_table
from llama_qna.project.recipe import Chunking, Recipe, read_recipe
from llama_qna.project.variant import REPOSITORY
from tests.fuzz.repairs import check_layout, check_repairs, check_words, page_of, runs_of

FEW = 20
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", FEW))  # of each test; more of them by hand
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == FEW, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

LABELS = st.sampled_from(
    'Question: |Question 1:|**Q2.**|Q:|A:|Answer:|**Answer:**|1. |2) |- |* |?\n|\n|\n\n|"|“|{|}|[|]|, |"question": "|'
    '"answer": "|<question>|</question>|| what |What is it? |It is a door. |A) red B) blue|<|im_end|>|</s>|---|Note: '
    '<think>|</think>|{"question": "Who?", "answer": 4}|Frage 1: |Réponse : |答：'
    "|Here are the questions:|I hope this helps|\\u0041|\\".split("|")
)
RESPONSE = st.lists(LABELS | st.text(max_size=8), max_size=40).map("".join)


@fuzzed
@given(RESPONSE)
def test_parser_finds_whole_pairs_or_says_what_is_left(text):
    pairs, leftovers = parse_response(text)
    assert pairs or leftovers, "no response vanishes"
    for question, answer in pairs:
        assert question.strip() == question != "" and answer.strip() == answer != ""
        assert "\n" not in question + answer
    kinds = {"question without answer", "answer without question", "empty response", "no labels"}
    kinds |= {"nothing behind the labels", "cut off within its thoughts"}
    assert {reason for _, reason in leftovers} <= kinds


@fuzzed
@given(RESPONSE)
def test_labels_are_stripped_from_the_start_alone(text):
    for kind in (QUESTION_LABEL, ANSWER_LABEL):
        rest = without_label(text, kind)
        assert rest == rest.strip() and len(rest) <= len(text)


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400).filter(str.strip)
PARAGRAPHS = st.lists(
    st.tuples(TEXT, st.integers(1, 9), st.sampled_from(["", "1 One", "2 Two"])), min_size=1, max_size=8
)


@fuzzed
@given(PARAGRAPHS, st.integers(1, 200), st.integers(0, 199), st.lists(TEXT, max_size=3))
def test_chunker_loses_no_word_and_keeps_to_its_size(paragraphs, size, overlap, entries):
    paragraphs = [Paragraph(" ".join(text.split()), page, section) for text, page, section in paragraphs]
    references = [(n, entry, 9) for n, entry in enumerate(entries, start=1)]
    chunking = Chunking(chunk_size=size, chunk_overlap=min(overlap, size - 1))
    rows = split(Document("d", 9, paragraphs, references), chunking, heldout=["2 Two"])
    body = [row for row in rows if row["kind"] == "body"]
    assert len({row["chunk_id"] for row in rows}) == len(rows)
    assert all(0 < len(row["text"]) <= size for row in body)
    assert all((row["split"] == "heldout") == (row["section"] == "2 Two") for row in body)
    assert {row["page"] for row in body} <= {paragraph.page for paragraph in paragraphs}
    there = set("".join(row["text"] for row in body))
    assert {c for paragraph in paragraphs for c in paragraph.text if not c.isspace()} <= there
    assert sum(row["kind"] == "reference" for row in rows) == len(entries)


SHIPPED = yaml.safe_load((REPOSITORY / "paper_135m" / "variant.yaml").read_text(encoding="utf-8"))
SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.binary(max_size=9)
)
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALAR, inner, max_size=3))
KEYS = [(key,) for key in SHIPPED] + [
    (key, inner) for key, section in SHIPPED.items() if isinstance(section, dict) for inner in section
]


def read(tmp_path, content):
    path = tmp_path / "variant.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(read_recipe(path), Recipe)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 500


@fuzzed
@given(st.sampled_from(KEYS), VALUE, st.booleans())
def test_recipe_with_any_value_is_read_or_one_line(tmp_path, place, value, beside):
    recipe = yaml.safe_load(yaml.safe_dump(SHIPPED))
    section = recipe if len(place) == 1 else recipe[place[0]]
    section[str(value) if beside else place[-1]] = value
    read(tmp_path, yaml.safe_dump(recipe, allow_unicode=True))


@fuzzed
@given(st.text(alphabet="abk:-[]{}?&*!<>|'\"%@,# \n\t\\0159.é\ud800", max_size=60) | st.binary(max_size=60))
@example("a: 0o9")
@example("a: 1:99:99")
@example("a: +.inf.")
def test_recipe_of_any_characters_is_one_line(tmp_path, content):
    read(tmp_path, content)


FIELD = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@fuzzed
@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=6))
def test_table_gives_back_what_was_written(tmp_path, rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("Question", "Answer"), *rows])
    path = tmp_path / "mine.csv"
    path.write_bytes(text.getvalue().encode())
    table = read_table(path, "mine.csv", ["Question", "Answer"])
    assert list(zip(table.Question, table.Answer, strict=True)) == rows


@fuzzed
@given(st.binary(max_size=80) | st.text(alphabet='Question,Answer"\n\r;\t\0é x', max_size=80).map(str.encode))
@example(b'Question,Answer\n"')
@example(b"Question,Answer\n,,\n")
def test_table_of_any_bytes_is_read_or_one_line(tmp_path, content):
    path = tmp_path / "mine.csv"
    path.write_bytes(b"Question,Answer\n" + content if len(content) % 2 else content)
    try:
        table = read_qna_file(path)
        assert len(table) and (table.Question != "").all() and (table.Answer != "").all()
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 500


@fuzzed
@given(st.binary(max_size=60), st.booleans())
def test_repairs_keep_their_word(data, with_outline):
    pages = page_of(data).split("\f")
    titles = [line.strip() for line in pages[0].splitlines() if line.strip()][:3] if with_outline else []
    check_repairs(pages, {title: n for n, title in enumerate(titles)})
    check_words(page_of(data))


@fuzzed
@given(st.binary(max_size=160))
@example(bytes([0, 12, 201, 30]) * 8)
def test_order_of_reading_loses_no_run(data):
    check_layout(runs_of(data))


@fuzzed
@given(st.binary(max_size=80))
def test_text_file_of_any_bytes_is_text_or_one_line(content):
    try:
        text, _ = decode(content)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert "\r" not in text and "\0" not in text
    for _, lines in _markdown_blocks(text):
        assert all(isinstance(line, str) for line in lines)


def test_columns_are_really_put_in_order():
    runs = runs_of(bytes([0, 12, 201, 30]) * 8)
    assert [run.left for part in parts(runs) for run in part.runs] == [50] * 8 + [311] * 8


def test_pieces_of_a_page_are_all_reached():
    assert page_of(bytes([0, 1, 2])) == "\n\n\n\n" and page_of(b"\xff\xff\xff")
    with pytest.raises(AssertionError):
        check_repairs.__globals__["_check_text"]("a\nb")
