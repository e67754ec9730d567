"""Tests of llama_qna/cli.py and commands.py: the command, mostly with something wrong: one line and status 2.

A process of its own costs seconds, so that only what needs one has one.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from llama_qna import __version__, cli, commands
from llama_qna.project.variant import REPOSITORY

VERBS = [
    "variants",
    "load",
    "generate",
    "gold",
    "pretrain",
    "finetune",
    "repeat",
    "evaluate",
    "figures",
    "run",
    "new",
    "plan",
    "ask",
    "serve",
    "export",
    "publish",
]


def files(root):
    """Every file below the root, with its content."""
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def refused(toy_root, capfd):
    """Run a command that must be refused, and return its complaint."""

    def run(*arguments):
        before = files(toy_root)
        capfd.readouterr()
        assert cli.main([*arguments]) == 2
        said = capfd.readouterr()
        assert "Traceback" not in said.out + said.err
        lines = said.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("llama-qna: "), said.err
        assert files(toy_root) == before, "a refused command writes nothing"
        return lines[0].removeprefix("llama-qna: ")

    return run


@pytest.fixture
def pdf(toy_root):
    return toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf"


@pytest.fixture
def short_pdf(pdf, make_pdf):
    """One line in place of the paper, for what is not about its text."""
    make_pdf(pdf, ["The ferry leaves at seven."])


# --- it stays quick --------------------------------------------------------------------------------------------------


def test_help_and_a_refused_variant_import_nothing_heavy(toy_root):
    program = (
        "import sys\nfrom llama_qna import cli\n"
        "def show(names): print([name for name in names.split() if name in sys.modules])\n"
        "for arguments in ['--help'], ['load', '--help'], ['--version']:\n"
        "    try: cli.main(arguments)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "show('torch transformers pandas numpy matplotlib peft bitsandbytes pydantic')\n"
        "assert cli.main(['ask', 'nothing', 'Why?']) == 2\n"
        "show('torch transformers')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]


# --- it does what it says --------------------------------------------------------------------------------------------


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert [verb for verb in VERBS if f"\n    {verb} " not in said] == []


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"llama-qna {__version__}\n"


@pytest.mark.parametrize(
    "verb, more, kept",
    [("generate", [], True), ("ask", ["--input", "a.csv"], True), ("ask", [], False), ("page", [], False)],
)
def test_ctrl_c_promises_to_go_on_only_where_work_is_kept(verb, more, kept, monkeypatch, capsys):
    def stopped(_):
        raise KeyboardInterrupt

    stopped.__name__ = verb
    monkeypatch.setattr(commands, verb, stopped)
    assert cli.main([verb, "paper_135m", *more]) == 128 + signal.SIGINT
    more_said = "; what was finished is kept, and the same command goes on there" if kept else ""
    assert capsys.readouterr().err == f"llama-qna: stopped{more_said}\n"


def test_variants_are_listed_with_what_they_are(toy_root, capsys):
    assert cli.main(["variants"]) == 0
    assert capsys.readouterr().out.split() == [
        "paper_135m", *"SmolLM2-135M-Instruct on the Wicketfold paper".split()
    ]  # fmt: skip


def test_variants_of_the_repository(capsys):
    assert cli.main(["variants"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [
        "paper_135m",
        "paper_13b",
        "paper_7b",
        "paper_reader_135m",
        "physics_books_135m",
        "physics_mk_books_7b",
    ]


def test_load_and_load_again(run_cli, toy_root):
    first = run_cli("load", "paper_135m")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.endswith("tokens, in runs/paper_135m/chunks\n")
    made = files(toy_root)
    again = run_cli("load", "paper_135m")
    assert again.returncode == 0 and "nothing has changed" in again.stdout
    assert files(toy_root) == made


def test_usage_error_is_status_2(capsys):
    mistakes = [], ["lod", "paper_135m"], ["load"], ["load", "paper_135m", "--wibble"], ["load", "paper_135m", "x"]
    for arguments in mistakes:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 2 and capsys.readouterr().err.startswith("usage: llama-qna")


# --- recipe ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("variants", "new")])
def test_unknown_variant(verb, refused):
    more = {"ask": ["Why?"], "export": ["--to", "adapter"]}.get(verb, [])
    assert refused(verb, "paper_153m", *more).endswith("did you mean paper_135m?")


def test_misspelt_key(refused, edit_recipe):
    edit_recipe("chunk_overlap:", "chunk_overlp:")
    complaint = "paper_135m/variant.yaml: unknown key `chunking.chunk_overlp`; did you mean `chunk_overlap`?"
    assert refused("load", "paper_135m") == complaint
    assert refused("variants") == complaint


def test_broken_yaml(refused, edit_recipe):
    edit_recipe("seed: 42", "seed: [42")
    assert "paper_135m/variant.yaml line" in refused("run", "paper_135m")


# --- documents -------------------------------------------------------------------------------------------------------


def test_missing_pdf(refused, pdf):
    pdf.unlink()
    complaint = "no document (*.pdf, *.txt, *.md) in data/pdfs/paper/: put the documents there and run again"
    assert refused("load", "paper_135m") == complaint


def test_missing_corpus_folder(refused, pdf):
    shutil.rmtree(pdf.parent)
    assert " in data/pdfs/paper/: put the documents there" in refused("run", "paper_135m")


def test_refused_command_leaves_no_empty_folders(refused, pdf, toy_root):
    pdf.unlink()
    refused("load", "paper_135m")
    assert not list(toy_root.glob("runs/paper_135m/*"))


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"just a note", "not a PDF"),
        (b"", "empty"),
        ((REPOSITORY / "tests" / "data" / "encrypted.pdf").read_bytes(), "encrypted"),
    ],
    ids=["no PDF", "empty", "encrypted"],
)
def test_bad_pdf(content, reason, refused, pdf):
    pdf.write_bytes(content)
    complaint = refused("load", "paper_135m")
    assert complaint.startswith("wicketfold.pdf: ") and reason in complaint


def test_damaged_pdf_is_one_line_whatever_its_library_logs(refused, pdf, edit_recipe):
    edit_recipe("extractor: pypdfium2", "extractor: pdfminer")
    content = pdf.read_bytes()
    pdf.write_bytes(content[: len(content) // 2])
    assert refused("load", "paper_135m").startswith("wicketfold.pdf: the PDF is damaged")


def test_pdf_with_nothing_but_page_numbers(refused, pdf, make_pdf):
    make_pdf(pdf, ["1"], ["2"], ["3"])
    assert "wicketfold.pdf" in refused("load", "paper_135m")


# --- base model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, reason",
    [
        ("/nowhere/at/all", "base_model /nowhere/at/all"),
        ("embedded/llama-70b", "the only embedded model is embedded/smollm2-135m-instruct"),
        ("not a name at all!", "base_model not a name at all!"),
    ],
)
def test_base_model_that_cannot_be_had(name, reason, refused, short_pdf, edit_recipe):
    edit_recipe("base_model: embedded/smollm2-135m-instruct", f'base_model: "{name}"')
    assert reason in refused("load", "paper_135m")


def test_base_model_that_cannot_be_reached(run_cli, short_pdf, edit_recipe):
    """In a process of its own, whose hub is offline, as the real command is."""
    edit_recipe("base_model: embedded/smollm2-135m-instruct", "base_model: nobody/nothing")
    done = run_cli("load", "paper_135m")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "base_model nobody/nothing cannot be reached" in done.stderr


@pytest.mark.parametrize("config", [None, "not json", '{"model_type": "nothing_known"}'])
def test_base_model_folder_without_a_model(config, refused, short_pdf, edit_recipe, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config)
    edit_recipe("base_model: embedded/smollm2-135m-instruct", f"base_model: {folder}")
    assert f"base_model {folder}: no model could be loaded from this folder" in refused("load", "paper_135m")


@pytest.mark.parametrize("wrapped", [True, False])
def test_gated_model(wrapped, toy_root, short_pdf, monkeypatch, capsys, edit_recipe):
    """The hub's answer is the one thing that cannot be had here; transformers wraps it in an OSError."""
    import httpx
    from huggingface_hub.errors import GatedRepoError
    from transformers import AutoTokenizer

    def gated(*args, **kwargs):
        response = httpx.Response(
            403, request=httpx.Request("GET", "https://huggingface.co/meta-llama/Llama-2-7b-chat-hf")
        )
        error = GatedRepoError("403 Client Error.\nCannot access gated repo.", response=response)
        if wrapped:
            raise OSError("You are trying to access a restricted repo.\nMake sure to have access.") from error
        raise error

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", gated)
    edit_recipe("embedded/smollm2-135m-instruct", "meta-llama/Llama-2-7b-chat-hf")
    assert cli.main(["load", "paper_135m"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "llama-qna: base_model meta-llama/Llama-2-7b-chat-hf is gated: ask for access at "
        "https://huggingface.co/meta-llama/Llama-2-7b-chat-hf, then run `hf auth login`"
    )


# --- stages in the wrong order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, first",
    [
        (["generate", "paper_135m"], "load"),
        (["gold", "paper_135m"], "generate"),
        (["pretrain", "paper_135m"], "load"),
        (["finetune", "paper_135m"], "generate"),
        (["evaluate", "paper_135m"], "generate"),
        (["repeat", "paper_135m"], "generate"),
        (["figures", "paper_135m"], "evaluate"),
        (["ask", "paper_135m", "What is a wicket?"], "load"),
        (["ask", "paper_135m", "What is a wicket?", "--system", "finetuned"], "run"),
        (["ask", "paper_135m", "What is a wicket?", "--system", "pretrained"], "pretrain"),
        (["serve", "paper_135m"], "pretrain"),
        (["export", "paper_135m", "--to", "merged"], "run"),
        (["publish", "paper_135m"], "run"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_stage_before_the_one_that_it_needs(arguments, first, refused):
    assert f"run `llama-qna {first} paper_135m` first" in refused(*arguments)


def test_unknown_notebook(refused):
    assert refused("run", "paper_135m", "--notebooks", "99_nothing").startswith("no notebook 99_nothing")


# --- a Q&A file of the user's ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "no such file"),
        ("question,reply\nWhat?,That.\n", "no column Answer"),
        ("Question,Answer\n", "no row has both"),
        ("", "not readable as CSV"),
    ],
)
def test_bad_qna_file(content, reason, refused, short_pdf, toy_root, edit_recipe):
    edit_recipe("  reference_questions: true", "  reference_questions: true\n  qna_file: mine.csv")
    if content is not None:
        (toy_root / "mine.csv").write_text(content)
    assert cli.main(["load", "paper_135m"]) == 0
    complaint = refused("generate", "paper_135m")
    assert complaint.startswith("Q&A file mine.csv: ") and reason in complaint


def test_good_qna_file_needs_no_model_and_is_exported(toy_root, edit_recipe, capsys):
    """Labels that all rows have are stripped; the reference questions know their chunks."""
    edit_recipe("  reference_questions: true", "  reference_questions: true\n  qna_file: mine.csv")
    rows = [
        "Question 3: What is a wicket?,Answer: A small door.",
        "Question 4: Who?,Answer: Nobody.",
        "Question 5: What is Δ?,Answer: A Δ.",
    ]
    (toy_root / "mine.csv").write_text("\n".join(["Question,Answer", *rows]))
    assert cli.main(["load", "paper_135m"]) == 0
    capsys.readouterr()
    assert cli.main(["generate", "paper_135m", "--export", "alpaca"]) == 0
    made = toy_root / "runs" / "paper_135m"
    said = [f"73 pairs in runs/paper_135m/{name}" for name in ("qna", "qna_alpaca.jsonl")]
    assert capsys.readouterr().out.splitlines() == said
    assert "mine.csv" in json.loads((made / "qna" / "run.json").read_text())["inputs"]
    own, who, delta, *_, last = map(json.loads, (made / "qna_alpaca.jsonl").read_text(encoding="utf-8").splitlines())
    origin = {"split": "train", "recipe": "file"}
    assert own == {"instruction": "What is a wicket?", "input": "", "output": "A small door.", "metadata": origin}
    assert (who["instruction"], who["output"], delta["output"]) == ("Who?", "Nobody.", "A Δ.")
    assert last["instruction"] == "Who wrote “Microsoft COCO: Common Objects in Context”?"
    assert set(last["metadata"]) == {"chunk_id", "document", "page", "split", "recipe"}


# --- arXiv -----------------------------------------------------------------------------------------------------------


def test_number_that_is_no_arxiv_number(refused):
    assert refused("load", "paper_135m", "--arxiv", "12.34") == "'12.34' is no arXiv number; they look like 2405.11913"


def test_paper_that_is_there_is_not_fetched_again(pdf, short_pdf, make_pdf, capsys):
    make_pdf(pdf.parent / "2405.11913.pdf", ["This one was fetched another day."])
    assert cli.main(["load", "paper_135m", "--arxiv", "2405.11913"]) == 0
    assert "fetched 2405.11913.pdf\n" in capsys.readouterr().out


# --- who reads the output --------------------------------------------------------------------------------------------


def test_a_reader_of_the_output_that_goes_away_is_no_error(toy_root):
    readable, writable = os.pipe()
    os.close(readable)
    command = [sys.executable, "-m", "llama_qna", "variants"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=writable, stderr=subprocess.PIPE)
    os.close(writable)
    assert done.returncode == 128 + signal.SIGPIPE and not done.stderr


def test_a_terminal_without_quotation_marks_gets_an_answer(monkeypatch):
    def variants(options):
        print("“one”")

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw := io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr("llama_qna.commands.variants", variants)
    assert cli.main(["variants"]) == 0 and raw.getvalue() == b"?one?\n"
