"""The tables in docs/reliability.md and the tests agree: each row has its tests, and each fault test its row."""

import ast
import re

from llama_qna.project.variant import REPOSITORY

TESTS = REPOSITORY / "tests"
ROW = re.compile(r"^\| (?P<fault>[^|]+) \| (?P<outcome>[^|]+) \| (?P<tests>(`[\w/]+\.py::\w+` ?)+) ?\|$")


def rows():
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    faults = text.split("## Faults\n")[1].split("\n## ")[0]
    lines = [line for line in faults.splitlines() if line.startswith("| ") and not line.startswith("| fault |")]
    found = [ROW.match(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {match["fault"]: re.findall(r"`(.+?)`", match["tests"]) for match in found}


def functions(path):
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_each_row_names_tests_that_exist():
    missing = []
    for test in sum(rows().values(), []):
        file, name = test.split("::")
        if not (TESTS / file).is_file() or name not in functions(TESTS / file):
            missing.append(test)
    assert missing == []


def test_each_fault_test_has_a_row():
    named = set(sum(rows().values(), []))
    there = {
        f"{path.relative_to(TESTS)}::{name}"
        for path in sorted((TESTS / "faults").glob("test_*.py"))
        if path.name != "test_table.py"
        for name in functions(path)
        if name.startswith("test_")
    }
    assert sorted(there - named) == []


def test_there_are_at_least_sixty_kinds_of_fault():
    assert len(rows()) >= 60
