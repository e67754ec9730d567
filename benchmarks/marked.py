"""A generated part of a page that people write: it stands between two comments with its name."""

from __future__ import annotations

from pathlib import Path

from llama_qna.project.files import write_text


def read(page: Path, name: str) -> str:
    """What stands between `<!-- name:begin -->` and `<!-- name:end -->`; ValueError unless each is there once."""
    return _parts(page, name)[1]


def write(page: Path, name: str, text: str) -> None:
    """Put a text in that place; ValueError as above."""
    before, _, after = _parts(page, name)
    begin, end = _marks(name)
    write_text(page, f"{before}{begin}{text.rstrip()}\n{end}{after}")


def _parts(page: Path, name: str) -> tuple[str, str, str]:
    begin, end = _marks(name)
    before, rest = page.read_text(encoding="utf-8").split(begin)
    inside, after = rest.split(end)
    return before, inside, after


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
