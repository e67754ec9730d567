"""The command with documents, base models and Q&A files as users have them: missing, damaged, out of reach, or good."""

import json
import shutil

import pytest

from llama_qna import cli
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_commands import refused_fixture  # noqa: F401


@pytest.fixture
def pdf(toy_root):
    return toy_root / "data" / "pdfs" / "paper" / "wicketfold.pdf"


@pytest.fixture
def short_pdf(pdf, make_pdf):
    """One line in place of the paper, for what is not about its text."""
    make_pdf(pdf, ["The ferry leaves at seven."])


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


# --- arXiv -----------------------------------------------------------------------------------------------------------


def test_number_that_is_no_arxiv_number(refused):
    assert refused("load", "paper_135m", "--arxiv", "12.34") == "'12.34' is no arXiv number; they look like 2405.11913"


def test_paper_that_is_there_is_not_fetched_again(pdf, short_pdf, make_pdf, capsys):
    make_pdf(pdf.parent / "2405.11913.pdf", ["This one was fetched another day."])
    assert cli.main(["load", "paper_135m", "--arxiv", "2405.11913"]) == 0
    assert "fetched 2405.11913.pdf\n" in capsys.readouterr().out


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


# --- a Q&A file of the user's ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "no such file"),
        ("question,reply\nWhat?,That.\n", "no column Answer"),
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
