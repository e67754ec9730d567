"""README and docs: every link leads somewhere, and every command and option that they name is there."""

import re

import pytest

from llama_qna import commands
from llama_qna.project.variant import REPOSITORY

PAGES = [
    *REPOSITORY.glob("*.md"),
    *(
        path
        for folder in ("docs", "data", "notebooks", "*_7b", "*_13b", "*_135m")
        for path in REPOSITORY.glob(f"{folder}/*.md")
    ),
    REPOSITORY / "docs/page/README.md",
]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
VERB = re.compile(r"\bllama-qna ([a-z]+)\b([^`\n#]*)")
TARGET = re.compile(r"(?:^|`|&& )make ([a-z-]+)", re.MULTILINE)


@pytest.mark.parametrize("path", sorted(PAGES), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere_and_commands_are_there(path):
    text = path.read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (path.parent / link).exists()] == []
    options = {name for verb in commands.VERBS.values() for names, _ in verb.arguments for name in names}
    options |= {"--help", "--version"}
    named = VERB.findall(text)
    assert [verb for verb, _ in named if verb not in commands.VERBS] == []
    assert {option for _, rest in named for option in re.findall(r"(?<!\S)--[a-z-]+", rest)} - options == set()
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(TARGET.findall(text)) - targets == set()


def test_every_page_of_docs_is_in_its_index():
    index = (REPOSITORY / "docs/README.md").read_text(encoding="utf-8")
    there = [path.name for path in (REPOSITORY / "docs").glob("*.md") if path.name != "README.md"]
    assert [name for name in there if f"({name})" not in index] == []


def test_readme_is_short_without_what_is_generated():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    written = re.sub(r"<!-- (\w+):begin -->.*?<!-- \1:end -->", "", text, flags=re.DOTALL)
    assert len(written.split()) <= 1000
