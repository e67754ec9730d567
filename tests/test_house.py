"""The order of the packages: what each may import, no circles, short functions. CONTRIBUTING.md has the map."""

import ast
import re
from graphlib import CycleError, TopologicalSorter

import pytest

from llama_qna.project.code import PACKAGE, imports_of
from llama_qna.project.variant import REPOSITORY

# from the ground up: a package imports what stands beside its name, and itself
MAY_IMPORT = {
    "text": "",
    "project": "text",
    "models": "project text",
    "documents": "models project text",
    "pairs": "models project text",
    "training": "models project text",
    "answering": "models project text",
    "evaluation": "answering models project text",
    "reporting": "project text",
    "serving": "answering documents reporting models project text",
}
TOP = {"__init__", "__main__", "cli", "commands", "run", "repeat", "publish"}
CARD = "llama_qna.reporting.card"  # all that serving takes of reporting


def modules():
    """The modules of the package by their dotted names, without the `__init__` of packages."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]
    return [".".join(("llama_qna", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in paths]


def package(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


def wrong_arrows(module: str, imported: list[str]) -> list[str]:
    """The imports of a module that the table forbids, each as `module -> imported`."""
    home, found = package(module), []
    for other in imported:
        allowed = {home, *MAY_IMPORT[home].split()} if home else {*MAY_IMPORT, ""}
        forbidden = other != "llama_qna" and package(other) not in allowed
        past_the_door = home == "serving" and package(other) == "reporting" and other != CARD
        if forbidden or past_the_door:
            found.append(f"{module} -> {other}")
    return found


def test_a_module_imports_only_what_stands_below_it():
    assert [arrow for module in modules() for arrow in wrong_arrows(module, imports_of(module))] == []


def test_the_test_sees_a_stage_that_imports_a_stage_and_a_package_that_climbs():
    assert wrong_arrows("llama_qna.training.stages", ["llama_qna.pairs.qna", "llama_qna.models.base"]) == [
        "llama_qna.training.stages -> llama_qna.pairs.qna"
    ]
    assert wrong_arrows("llama_qna.text.words", ["llama_qna.project.files"])
    assert wrong_arrows("llama_qna.serving.page", ["llama_qna.reporting.figures"])


def test_no_circle_among_modules_wherever_their_imports_stand():
    graph = {module: [other for other in imports_of(module) if other != "llama_qna"] for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_inside_the_package_nobody_imports_from_the_door_of_a_package():
    """`from llama_qna.models.base import load_base`: the hash of a stage then knows which modules it runs."""
    doors = {f"llama_qna.{name}" for name in MAY_IMPORT} | {"llama_qna.training.cpu"}
    assert [module for module in modules() if doors & set(imports_of(module))] == []


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_package_says_what_it_decides_and_hands_out_what_it_names(name):
    import importlib

    door = importlib.import_module(f"llama_qna.{name}")
    assert len(door.__doc__.split()) > 10
    assert door.__all__
    for public in door.__all__:
        assert callable(getattr(door, public))
    with pytest.raises(AttributeError):
        door.no_such_name  # noqa: B018


def test_the_top_holds_the_commands_alone():
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP


def test_no_function_is_longer_than_a_screen():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"


def test_the_map_in_contributing_is_this_table():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE))
    for name, allowed in MAY_IMPORT.items():
        assert set(re.findall(r"`(\w+)`", rows[name])) == set(allowed.split()), name
