"""Tests of llama_qna/qna.py: the filters, the user's own file; no text is generated here."""

import re

import pandas as pd
import pytest

from llama_qna import UserError, chunks, pair_filters, qna, records
from llama_qna.documents import read_document
from llama_qna.variants import REPOSITORY, Variant

TEXT = (
    "The Brisling-7 is a microcontroller board with a single core at 200 MHz. Both run our runtime Latchkey, which "
    "takes 64 KB of flash. Traffic is the fraction of inputs that reach a stage. Energy is measured with a power meter."
)

GOOD = "Traffic is the fraction of inputs that reach a stage."
HOW_MUCH = "How much flash does the runtime Latchkey take?"


@pytest.mark.parametrize(
    "question, answer",
    [
        ("What is the traffic of a stage?", GOOD),
        (HOW_MUCH, "The runtime Latchkey takes 64 KB of flash."),
        ("What is the Brisling-7?", "The Brisling-7 is a microcontroller board with a single core at 200 MHz."),
    ],
)
def test_good_pair_is_kept(question, answer):
    assert pair_filters.reject_reason(question, answer, TEXT) == ""


@pytest.mark.parametrize(
    "question, answer, reason",
    [
        ("Traffic is the fraction of inputs.", GOOD, "not a question"),
        ("What is traffic?", GOOD, "not a question"),
        ("What is the traffic of a stage?", "Fraction.", "answer too short"),
        ("What is the traffic of a stage?", "Traffic is the fraction of inputs that", "answer cut off"),
        ("What does the text say about traffic?", GOOD, "refers to the text"),
        ("What is the traffic of a stage?", "As stated above, it is the fraction of inputs.", "refers to the text"),
        ("What is the traffic of a stage?", "It is the traffic of a stage.", "answer repeats the question"),
        ("What is the traffic of a stage?", f"{GOOD} " * 10, "answer too long"),
        ("What is the traffic of a stage?", "The traffic is a jam of lorries.", "answer not supported by the chunk"),
        (HOW_MUCH, "The runtime Latchkey takes 65 KB of flash.", "answer not supported by the chunk"),
        (
            "How much flash does it take on Corvane?",
            "The runtime takes 64 KB of flash.",
            "question not about the chunk",
        ),
        ("Why do elephants measure the inputs of rivers?", GOOD, "question not about the chunk"),
        (
            "What is the traffic of a stage?",
            "The runtime Latchkey takes 64 KB of flash.",
            "answer not about the question",
        ),
    ],
)
def test_bad_pair_is_rejected_with_its_reason(question, answer, reason):
    assert pair_filters.reject_reason(question, answer.strip(), TEXT) == reason


def pairs_table(*pairs):
    return pd.DataFrame([{"Question": q, "Answer": a, "chunk_id": "c"} for q, a in pairs])


def test_near_duplicates_are_kept_once():
    table = pairs_table(
        ("What is the traffic of a stage?", GOOD),
        ("What, then, is the traffic of stages?", GOOD),
        ("What fraction of inputs is the traffic of a stage?", GOOD),
    )
    assert pair_filters.filter_pairs(table, {"c": TEXT}) == ["", "near duplicate", ""]


def test_rejected_pair_does_not_make_a_good_one_a_duplicate():
    question = "What is the traffic of a stage?"
    table = pairs_table((question, "A jam of lorries."), (question, GOOD))
    assert pair_filters.filter_pairs(table, {"c": TEXT}) == ["answer not supported by the chunk", ""]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_passages_lose_no_sentence(count):
    passages = qna.passages_of(TEXT, count)
    assert " ".join(passages) == TEXT
    assert 1 <= len(passages) <= count
    assert all(passage in TEXT for passage in passages)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_passages_of_the_paper_lose_nothing_but_fragments(count):
    """All paragraphs of more than 40 letters: a passage shorter than that is no matter for a question."""
    for paragraph in read_document(REPOSITORY / "data" / "pdfs" / "paper" / "wicketfold.pdf").paragraphs:
        passages = qna.passages_of(paragraph.text, count)
        lost = len(" ".join(paragraph.text.split())) - len(" ".join(passages))
        assert len(passages) <= count
        if len(paragraph.text) > 40:
            assert lost <= 42, (paragraph.text, passages)


def test_passages_are_of_about_equal_length():
    text = " ".join(f"This is sentence {n} of a text with twenty sentences." for n in "abcdefghijklmnopqrst")
    lengths = [len(passage) for passage in qna.passages_of(text, 4)]
    assert len(lengths) == 4 and max(lengths) < 1.3 * min(lengths)


# --- a file of the user's own ----------------------------------------------------------------------------------------


@pytest.fixture
def qna_file(tmp_path):
    def write(content):
        path = tmp_path / "mine.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    "content, reason",
    [
        ("question,reply\nWhat?,That.\n", "no column Question or Answer; it has question, reply"),
        ("Question,reply\nWhat?,That.\n", "no column Answer; it has Question, reply"),
        ("", "not readable as CSV"),
        ("Question,Answer\n", "no row has both a question and an answer"),
        ("Question,Answer\nWhat?,\n,That.\nQuestion:,Answer:\n", "no row has both a question and an answer"),
        (b"\xff\xfe\x00\x01", "not readable as CSV"),
        ('Question,Answer\n"What?,That.\n', "not readable as CSV"),
        ("Question,Answer\na,b\na,b,c,d\n", "not readable as CSV"),
    ],
)
def test_bad_file_is_named_with_its_reason(content, reason, qna_file):
    with pytest.raises(UserError) as caught:
        qna.read_qna_file(qna_file(content))
    assert str(caught.value).startswith("Q&A file mine.csv: ") and reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"Q&A file mine\.csv: no such file \(generation\.qna_file"):
        qna.read_qna_file(tmp_path / "mine.csv")


def test_labels_are_stripped_and_incomplete_rows_dropped(qna_file):
    table = qna.read_qna_file(
        qna_file(
            "Answer,Question,x\nAnswer: A door.,Question: What?,\nNone,What is NA?,\n,Lost?,\n1. A: B.,1. Q: C?,\n"
        )
    )
    assert list(table.Question) == ["What?", "What is NA?", "C?"]
    assert list(table.Answer) == ["A door.", "None", "B."]
    assert (set(table.split), set(table.method)) == ({"train"}, {"file"})


@pytest.mark.parametrize(
    "text", ["A. Graves wrote it.", "Q. Le wrote it.", "A 4-bit table.", "a) and b)", "Questions: three."]
)
def test_text_that_only_looks_like_a_label_stays(text, qna_file):
    table = qna.read_qna_file(qna_file(f"Question,Answer\n{text},{text}\n"))
    assert (table.Question[0], table.Answer[0]) == (text, text)


def test_file_that_a_spreadsheet_wrote_with_a_mark_at_its_start(qna_file):
    table = qna.read_qna_file(qna_file("\ufeffQuestion,Answer\nWhat is it?,A door.\n"))
    assert list(table.Question) == ["What is it?"]


# --- the stage -------------------------------------------------------------------------------------------------------


@pytest.fixture
def variant(toy_root, edit_recipe):
    """A loaded paper whose pairs come from a file of two."""
    edit_recipe("  reference_questions: true", "  reference_questions: true\n  qna_file: mine.csv")
    (toy_root / "mine.csv").write_text(
        'Question,Answer\nWhat is a wicket?,"A small, round door."\nQ: What is NA?,A: None.\n'
    )
    variant = Variant.load("paper_135m")
    chunks.load(variant)
    return variant


def test_reference_pairs_ask_for_every_entry(variant):
    table = chunks.read_chunks(variant)
    pairs = qna.reference_pairs(table[table.kind == "reference"])
    assert list(pairs.columns) == qna.COLUMNS
    assert list(pairs.Question) == [f"What is reference [{n}]?" for n in range(1, 36)]
    assert pairs.Answer[8].startswith("Y. Kaya, S. Hong, and T. Dumitras. Shallow-Deep Networks")
    by_id = table.set_index("chunk_id")
    for pair in pairs.itertuples():
        number = re.search(r"\d+", pair.Question).group()
        assert by_id.text[pair.chunk_id] == f"[{number}] {pair.Answer}"
        assert by_id.page[pair.chunk_id] == pair.page


def test_reference_pairs_come_back_from_a_file_as_they_were(variant, tmp_path):
    """As paper_13b/variant.yaml proposes: the pairs of one variant as the file of another."""
    table = chunks.read_chunks(variant)
    pairs = qna.reference_pairs(table[table.kind == "reference"])
    pairs.to_csv(tmp_path / "qna.csv", index=False)
    again = qna.read_qna_file(tmp_path / "qna.csv")
    assert list(again.Question) == list(pairs.Question)
    assert list(again.Answer) == list(pairs.Answer)


def test_generate_takes_the_file_and_the_references(variant):
    table = qna.generate(variant)
    assert list(table.columns) == qna.COLUMNS
    assert list(table.Question[:3]) == ["What is a wicket?", "What is NA?", "What is reference [1]?"]
    assert list(table.Answer[:2]) == ["A small, round door.", "None."]
    assert len(table) == 2 + 35
    record = records.valid_record(variant.qna, "generate")
    assert record["results"] == {"pairs": 37, "rejected": 0, "reasons": {}}
    rejected = pd.read_csv(variant.qna / "qna_rejected.csv")
    assert list(rejected.columns) == [*qna.COLUMNS, "reason"] and rejected.empty


def test_generate_again_is_skipped_until_the_file_changes(variant, toy_root, capsys):
    qna.generate(variant)
    capsys.readouterr()
    qna.generate(variant)
    assert "nothing has changed" in capsys.readouterr().out
    (toy_root / "mine.csv").write_text("Question,Answer\nWhat is new?,This one.\n")
    assert qna.generate(variant).Question[0] == "What is new?"
    assert "nothing has changed" not in capsys.readouterr().out


def test_generate_before_load_says_what_to_run(toy_root):
    with pytest.raises(UserError, match="no chunks yet for paper_135m: run `llama-qna load paper_135m` first"):
        qna.generate(Variant.load("paper_135m"))
