"""Tests of llama_qna/serving/terminal.py and the verb `ask`: files, pipes, a conversation, and mistakes in them."""

import csv
import fcntl
import io
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from llama_qna import UserError, cli
from llama_qna.answering import answerer
from llama_qna.answering.answerer import Answer, Source
from llama_qna.project.data import CHUNK_COLUMNS
from llama_qna.project.systems import SYSTEMS, is_given_passages
from llama_qna.project.variant import Variant
from llama_qna.serving import terminal
from llama_qna.serving.terminal import COLUMNS, ask_file

PASSAGE = Source("small-0001", "small", 3, "2 Method", "The mill \x1b[31mburns.")


class Oracle:
    """Answers at once, and can fail; what a model answers is tested in test_answering.py."""

    name, batch_size, computed_by = "small", 2, "transformers"

    def __init__(self, fail_at=None):
        self.asked, self.fail_at = [], fail_at

    def label(self, system):
        return f"{system}, {self.computed_by}"

    def check(self, question, system):
        if not question.strip():
            raise UserError("the question is empty")

    def sources(self, question):
        return [PASSAGE]

    def reads(self, system):
        return False

    def answer(self, questions, system="finetuned"):
        if self.fail_at in questions:
            raise KeyboardInterrupt
        self.asked += questions
        return [Answer(f"{q.upper()}, {system}", (PASSAGE,) * is_given_passages(system)) for q in questions]

    def stream(self, question, system):
        if question == "bad":
            raise UserError("the question is longer than the 900 tokens of a prompt")
        yield from (question, " \x1b[2J", system)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in.csv").write_text('number,Question\n1,who\n2,"why, and\nwhere"\n3,how\n4,who\n5,when\n')
    return tmp_path / "in.csv", tmp_path / "out.csv"


def rows(path: Path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- a file of questions ---------------------------------------------------------------------------------------------


def test_every_question_gets_one_answer(files):
    oracle = Oracle()
    assert ask_file(oracle, *files, "base+passages") == 4
    written = rows(files[1])
    assert [row["question"] for row in written] == ["who", "why, and\nwhere", "how", "when"] == oracle.asked
    assert [row["answer"] for row in written] == [f"{question.upper()}, base+passages" for question in oracle.asked]
    assert {row["sources"] for row in written} == {"small, page 3, 2 Method (small-0001)"}
    assert list(written[0]) == COLUMNS


@pytest.mark.parametrize("mark", [",", ";", "\t", ", "])
def test_questions_are_read_however_a_spreadsheet_wrote_them(files, mark):
    rows = [["number", "QUESTION "], ["1", '"who, where; when"'], ["2", "why"]]
    files[0].write_text("\ufeff" + "".join(mark.join(row) + "\r\n" for row in rows))
    oracle = Oracle()
    assert ask_file(oracle, *files, "finetuned") == 2 and oracle.asked == ["who, where; when", "why"]
    files[0].write_text(f"number{mark}question\n1{mark}who\n2\n")
    with pytest.raises(UserError, match="row 2 has 1 fields, not 2"):
        ask_file(oracle, *files, "finetuned")


def test_a_question_with_a_carriage_return_is_answered_once(files):
    files[0].write_bytes(b'question\n"why\rand where"\n')
    assert ask_file(Oracle(), *files, "finetuned") == 1
    done = files[1].read_bytes()
    assert ask_file(Oracle(), *files, "finetuned") == 0 and files[1].read_bytes() == done
    assert [row["question"] for row in rows(files[1])] == ["why\nand where"]


def test_an_interrupted_file_goes_on_where_it_stopped(files):
    with pytest.raises(KeyboardInterrupt):
        ask_file(Oracle(fail_at="when"), *files, "finetuned")
    assert [row["question"] for row in rows(files[1])] == ["who", "why, and\nwhere"], "the first batch is there, whole"
    before, again = files[1].read_text(), Oracle()
    assert ask_file(again, *files, "finetuned") == 2 and again.asked == ["how", "when"]
    assert files[1].read_text().startswith(before)
    done = files[1].read_bytes()
    assert ask_file(again, *files, "finetuned") == 0 and files[1].read_bytes() == done
    assert [path.name for path in files[1].parent.iterdir() if "partial" in path.name] == []


def test_answers_of_other_systems_and_models_stay(files, monkeypatch):
    ask_file(Oracle(), *files, "finetuned")
    before = rows(files[1])
    assert ask_file(Oracle(), *files, "base") == 4
    monkeypatch.setattr(Oracle, "computed_by", "vLLM")
    assert ask_file(Oracle(), *files, "finetuned") == 4
    after = rows(files[1])
    assert after[:4] == before and len(after) == 12
    assert len({(row["question"], row["system"], row["model"]) for row in after}) == 12


def test_the_label_names_the_adapter(monkeypatch, tmp_path):
    adapter = tmp_path / "checkpoint-7"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(answerer, "trained", lambda variant, name: (None, adapter if name == "finetuned" else None))
    asked = object.__new__(answerer.Answerer)  # without a model, which a label does not need
    asked.variant = None
    first = asked.label("finetuned")
    assert first.startswith("finetuned checkpoint-7 ") and first.endswith(", transformers")
    (adapter / "adapter_model.safetensors").write_bytes(b"trained again")
    assert asked.label("finetuned") != first
    assert asked.label("base") == "base, transformers"


def test_the_label_of_a_system_given_passages_names_their_text(monkeypatch, tmp_path):
    """Answers from documents that have changed since are not taken for those of today."""
    monkeypatch.setattr(answerer, "trained", lambda variant, name: (None, None))
    asked = object.__new__(answerer.Answerer)
    asked.variant, chunks = SimpleNamespace(name="small", chunks=tmp_path), tmp_path / "chunks.csv"
    with pytest.raises(UserError, match="run `llama-qna load small` first"):
        asked.label("base+passages")
    labels = []
    for text in ("The mill burns.", "The mill stands."):
        chunks.write_text(f"{','.join(CHUNK_COLUMNS)}\nsmall-0001,small,3,2 Method,body,train,{text},4\n")
        labels.append([asked.label(system) for system in ("reader", "base+passages", "base")])
    assert labels[0][1].startswith("base on ") and labels[0][1].endswith(", transformers")
    assert [before == after for before, after in zip(*labels, strict=True)] == [False, False, True]


@pytest.mark.parametrize(
    "content, reason",
    [
        (b'question,system,model,answer,evidence,sources\nwho,qna,m,"torn', "out.csv is damaged"),
        (b"question,system,model,answer,evidence,sources\nwho,qna\n", "out.csv is damaged: row 1 has 2 fields, not 6"),
        (b"\xff\xfe\x00broken", "out.csv is damaged"),
        (b"name,age\nAda,36\n", "out.csv is not written by ask"),
    ],
)
def test_a_damaged_output_is_named_and_left_alone(files, content, reason):
    files[1].write_bytes(content)
    oracle = Oracle()
    with pytest.raises(UserError, match=reason):
        ask_file(oracle, *files, "finetuned")
    assert files[1].read_bytes() == content and oracle.asked == []


@pytest.mark.parametrize(
    "content, reason",
    [
        ("text\nwho\n", "no column `question`; there are: text"),
        ("", "no column `question`; there are: none"),
        ("question,note\nwho,\n ,empty\n", "in.csv, row 2: the question is empty"),
        ('question\n"who\n', "in.csv is damaged"),
        (None, "in.csv: No such file"),
    ],
)
def test_bad_input(files, content, reason):
    files[0].unlink()
    if content is not None:
        files[0].write_text(content)
    with pytest.raises(UserError, match=reason):
        ask_file(Oracle(), *files, "finetuned")
    assert not files[1].exists()


def test_a_question_that_is_too_long_for_its_system_is_named_with_its_row(files):
    """The reader takes fewer tokens than a prompt has; nothing is answered before all is checked."""
    files[0].write_text(f"question\nwho\n{'why ' * 400}\n")
    prompter = answerer.Prompter(Variant.load("paper_135m"))
    with pytest.raises(UserError, match="in.csv, row 2: the question .* is longer than 300 tokens"):
        ask_file(prompter, *files, "reader")
    assert prompter.check("why " * 400, "base") is None


@pytest.mark.parametrize(
    "name, reason", [("nowhere/out.csv", "its folder is not there"), ("out.csv", "Is a directory")]
)
def test_answers_that_could_not_be_written_are_not_asked_for(files, name, reason):
    (files[1].parent / "out.csv.tmp").mkdir()  # what is written first, under a name that is taken
    oracle = Oracle()
    with pytest.raises(UserError, match=reason):
        ask_file(oracle, files[0], files[1].parent / name, "finetuned")
    assert oracle.asked == []


def test_who_answers_into_a_file_at_the_same_time_is_refused(files):
    lock = files[1].with_name(".out.csv.lock")

    class Busy(Oracle):
        def answer(self, questions, system="finetuned"):
            with open(lock) as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return super().answer(questions, system)

    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another process holds it
        with pytest.raises(UserError, match="^out.csv is in use by another llama-qna"):
            ask_file(Busy(), *files, "finetuned")
    assert not files[1].exists()
    assert ask_file(Busy(), *files, "finetuned") == 4 and not lock.exists()


def test_questions_come_through_a_pipe(files):
    pipe = files[0].with_name("pipe")
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=("\ufeffquestion;note\nwho;1\n".encode(),), daemon=True)
    writer.start()
    oracle = Oracle()
    assert ask_file(oracle, pipe, files[1], "finetuned") == 1 and oracle.asked == ["who"]
    writer.join()


# --- words and pipes -------------------------------------------------------------------------------------------------


def test_one_answer_stands_alone_and_several_with_their_questions():
    assert list(terminal.ask(Oracle(), ["who"], "finetuned", False)) == ["WHO, finetuned"]
    assert list(terminal.ask(Oracle(), ["who", "why"], "finetuned", False)) == [
        "Question: who\nAnswer: WHO, finetuned",
        "Question: why\nAnswer: WHY, finetuned",
    ]


def test_sources_are_told_apart_and_steer_no_terminal():
    given = list(terminal.ask(Oracle(), ["who"], "base+passages", True))[1]
    found = list(terminal.ask(Oracle(), ["who"], "finetuned", True))[1]
    assert given == "Answered from:\n  small, page 3, 2 Method (small-0001)\n    The mill [31mburns."
    assert found.startswith("The model was given no passage; these were found:\n  small, page 3")


@pytest.fixture
def oracle(monkeypatch, toy_root):
    """The verb `ask` with the oracle in place of the model."""
    oracle = Oracle()
    monkeypatch.setattr("llama_qna.models.lineage.trained", lambda variant, name: (None, None))
    monkeypatch.setattr("llama_qna.answering.answerer.Answerer", lambda variant: oracle)
    return oracle


def test_questions_from_a_pipe(oracle, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffwho\n\n  why \n\ufeff\n"))
    assert cli.main(["ask", "paper_135m", "--system", "base"]) == 0
    assert oracle.asked == ["who", "why"] and "Answer: WHY, base" in capsys.readouterr().out


@pytest.mark.parametrize("system", ["reader", "base"])
def test_a_piped_question_that_is_no_text_is_one_line(toy_root, monkeypatch, capsys, system):
    chunks = toy_root / "runs/paper_135m/chunks/chunks.csv"
    chunks.parent.mkdir(parents=True)
    chunks.write_text(f"{','.join(CHUNK_COLUMNS)}\nsmall-0001,small,3,2 Method,body,train,The mill burns.,4\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"who\nM\xfchle\n"), encoding="utf-8"))
    assert cli.main(["ask", "paper_135m", "--system", system]) == 2
    assert capsys.readouterr().err == "llama-qna: the question holds bytes that are no text in UTF-8\n"


def test_standard_input_that_somebody_has_read_of_is_left_as_it_is(oracle, monkeypatch, capsys):
    piped = io.TextIOWrapper(io.BytesIO(b"read\nwho\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", piped)
    assert piped.readline() == "read\n" and cli.main(["ask", "paper_135m", "--system", "base"]) == 0
    assert oracle.asked == ["who"]


@pytest.mark.parametrize(
    "words", [["who", "--sources", "why"], ["--sources", "who", "why"], ["who", "why", "--sources"]]
)
def test_questions_may_stand_around_options(oracle, capsys, words):
    assert cli.main(["ask", "paper_135m", "--system", "finetuned", *words]) == 0
    assert oracle.asked == ["who", "why"] and capsys.readouterr().out.count("these were found") == 2


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--system", "gpt", "who"], "there is no system 'gpt'"),
        (["--input", "in.csv"], "--input and --output belong together"),
        (["--input", "in.csv", "--output", "out.csv", "who"], "--input and --output"),
        (["--engine", "http://127.0.0.1:9/v1", "who"], "no engine answers"),
        (["--system", "finetuned"], "no question"),
    ],
)
def test_mistakes_are_one_line(oracle, monkeypatch, capsys, words, reason):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(["ask", "paper_135m", *words]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1 and reason in captured.err and not captured.out


# --- a conversation --------------------------------------------------------------------------------------------------


def test_a_conversation(monkeypatch, capsys):
    lines = iter(
        ["who", "", "/system base+passages", "/system gpt", "/sources", "why", "bad", "/wibble", "/quit", "never"]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    terminal.converse(Oracle(), "base", False)
    out = capsys.readouterr().out
    assert "who [2Jbase\n" in out and "why [2Jbase+passages\nAnswered from:" in out
    assert f"base+passages (there are: {', '.join(SYSTEMS)})\n" * 2 in out
    assert "longer than the 900 tokens" in out and out.count(terminal.HELP) == 2
    assert next(lines) == "never"


def test_the_end_of_the_input_ends_a_conversation(monkeypatch):
    def end(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    terminal.converse(Oracle(), "base", False)
