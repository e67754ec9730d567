"""What the tests of commands share: the verbs, a command that must be refused, and the files that it may not change."""

import pytest

from llama_qna import cli

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


@pytest.fixture(name="refused")
def refused_fixture(toy_root, capfd):
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
