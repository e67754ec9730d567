"""The command with a wrong word, recipe or order of stages: one line, status 2, and nothing is written."""

import errno
import os

import pytest

from llama_qna import cli, commands
from tests.fixtures_commands import VERBS, refused_fixture  # noqa: F401


def test_usage_error_is_status_2(capsys):
    mistakes = [], ["lod", "paper_135m"], ["load"], ["load", "paper_135m", "--wibble"], ["load", "paper_135m", "x"]
    for arguments in mistakes:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 2 and capsys.readouterr().err.startswith("usage: llama-qna")


# --- paths -----------------------------------------------------------------------------------------------------------

LONG = "What_is_" + "x" * 300


@pytest.mark.parametrize("name", [LONG, f"./{LONG}.pdf"])
def test_name_that_is_too_long_for_any_file_is_one_line(name, refused):
    assert refused("ask", name, "Why?")
    if "/" not in name:
        for verb in ("run", "plan", "new"):
            assert "File name too long" in refused(verb, name)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR])
def test_path_that_is_closed_or_in_the_way_is_one_line(number, refused, monkeypatch):
    def variants(options):
        raise OSError(number, os.strerror(number), "/a/closed\nfolder")

    monkeypatch.setattr(commands, "variants", variants)
    assert refused("variants") == f"/a/closed folder: {os.strerror(number)}"


# --- recipe ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("variants", "new")])
def test_unknown_variant(verb, refused):
    more = {"ask": ["Why?"], "export": ["--to", "adapter"]}.get(verb, [])
    assert refused(verb, "paper_153m", *more).endswith("did you mean paper_135m?")


def test_misspelt_key(refused, edit_recipe):
    edit_recipe("chunk_overlap:", "chunk_overlp:")
    complaint = "paper_135m/variant.yaml: unknown key `chunking.chunk_overlp`; did you mean `chunk_overlap`?"
    assert refused("load", "paper_135m") == complaint


def test_broken_yaml(refused, edit_recipe):
    edit_recipe("seed: 42", "seed: [42")
    assert "paper_135m/variant.yaml line" in refused("run", "paper_135m")


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
