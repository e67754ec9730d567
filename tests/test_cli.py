"""Tests of llama_qna/cli.py and commands.py: the command does what it says, quickly, whoever reads its output.

A process of its own costs seconds, so that only what needs one has one.
"""

import io
import os
import signal
import subprocess
import sys

import pytest

from llama_qna import __version__, cli, commands
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_commands import VERBS, files

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


def test_load_and_load_again(run_cli, toy_root):
    first = run_cli("load", "paper_135m")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.endswith("tokens, in runs/paper_135m/chunks\n")
    made = files(toy_root)
    again = run_cli("load", "paper_135m")
    assert again.returncode == 0 and "nothing has changed" in again.stdout
    assert files(toy_root) == made


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
