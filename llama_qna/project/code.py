"""The code that a stage runs: its module and all of ours that this imports, found from the imports themselves.

A hash of it tells when a finished stage has to be done again. Comments and docstrings do not count.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from llama_qna.project.files import digest

PACKAGE = Path(__file__).resolve().parents[1]
# where the code of each stage begins
BEGINS = {
    "load": "llama_qna.documents.chunks",
    "write": "llama_qna.pairs.writers",  # what the model writes, without what is kept of it
    "generate": "llama_qna.pairs.qna",
    "pretrain": "llama_qna.training.stages",
    "finetune": "llama_qna.training.stages",
    "finetune_only": "llama_qna.training.stages",
    "read": "llama_qna.training.reading",
    "repeat": "llama_qna.repeat",
    "evaluate": "llama_qna.evaluation.protocols",
    "figures": "llama_qna.reporting.figures",
}


def code_hash(stage: str) -> str:
    """The hash of all modules that a stage's code imports, wherever in a module the import stands."""
    return digest({module: _hash(_text(module)) for module in imported(BEGINS[stage])})


def imported(module: str) -> set[str]:
    """A module of ours and those of ours that it imports, directly or through others."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports_of(name)
    return found


def imports_of(module: str) -> list[str]:
    """The modules of ours that a module itself imports; what only type checkers import does not count."""
    found = []
    for origin, name in _imports(_text(module)):
        inner = f"{origin}.{name}"  # of `from package import module`
        found.append(inner if _path(inner).is_file() else origin)
    return list(dict.fromkeys(found))


@cache
def _imports(text: str) -> list[tuple[str, str]]:
    """The pairs (module, name) of `from module import name` in a text, where the module is one of ours."""
    found, waiting = [], [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "llama_qna":
            found += [(node.module, alias.name) for alias in node.names]
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            waiting += ast.iter_child_nodes(node)
    return found


@cache
def _hash(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return digest({"code": ast.dump(tree)})


def _text(module: str) -> str:
    return _path(module).read_text(encoding="utf-8")


def _path(module: str) -> Path:
    """The file of a module; of a package its `__init__.py`."""
    place = PACKAGE.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
