"""Tests of llama_qna/project/code.py: a stage is undone when a module changes that its code really imports."""

import shutil

import pytest

from llama_qna.project import code

TRAINED = {"pretrain", "finetune", "finetune_only", "repeat", "read"}
MODELLED = {"write", "generate", "evaluate", *TRAINED}
ALL = set(code.BEGINS)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package whose modules may be changed; each test puts back what it changes."""
    copy = tmp_path_factory.mktemp("package") / "llama_qna"
    shutil.copytree(code.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "PACKAGE", copy)
        yield copy


@pytest.fixture(scope="module")
def before(package):
    return {stage: code.code_hash(stage) for stage in ALL}


@pytest.fixture
def undone_by(before):
    """The stages whose hash differs once the text of a module is changed."""

    def undone(path, change) -> set[str]:
        text = path.read_text(encoding="utf-8")
        path.write_text(change(text), encoding="utf-8")
        found = {stage for stage in ALL if code.code_hash(stage) != before[stage]}
        path.write_text(text, encoding="utf-8")
        return found

    return undone


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("text/words", MODELLED | {"load"}),
        ("text/search", {"evaluate", *TRAINED}),
        ("project/recipe", ALL),
        ("models/nf4", MODELLED | {"load"}),  # with the base, whose tokenizer counts the tokens of chunks
        ("models/likelihood", {"write", "generate", "evaluate", *TRAINED}),
        ("documents/page_headers", {"load"}),
        ("documents/extract", {"load"}),
        ("pairs/filters", {"generate"}),
        ("pairs/writers", {"write", "generate"}),
        ("training/loss", TRAINED),
        ("training/cpu/layers", TRAINED),
        ("training/cpu/attention", TRAINED),
        ("evaluation/intervals", {"evaluate", "repeat"}),
        ("evaluation/protocols", {"evaluate", "repeat"}),
        ("answering/retrieval", {"evaluate", "repeat"}),
        ("reporting/plot", {"figures"}),
        ("serving/page", set()),
        ("cli", set()),
        ("training/reading", TRAINED),
        ("training/passages", TRAINED - {"read"}),
        ("answering/reader", {"evaluate", "repeat"}),
        ("repeat", {"repeat"}),
    ],
)
def test_a_changed_module_undoes_just_the_stages_that_run_it(package, undone_by, module, stages):
    assert undone_by(package / f"{module}.py", lambda text: f"{text}\nANOTHER = 1\n") == stages


def test_a_comment_and_a_docstring_undo_nothing(package, undone_by):
    path = package / "models" / "base.py"
    assert undone_by(path, lambda text: f"# another comment\n{text}\n# and one more\n") == set()
    assert undone_by(path, lambda text: text.replace('"""', '"""Said otherwise. ', 1)) == set()


def test_what_only_type_checkers_import_does_not_count(package):
    path = package / "text" / "typed.py"
    path.write_text("from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from llama_qna.serving.page import x\n")
    assert code.imports_of("llama_qna.text.typed") == []
