"""A generated part of a page that people write: it stands between two comments with its name."""

from __future__ import annotations

from pathlib import Path

from llama_qna import UserError
from llama_qna.project.files import write_text


def read(page: Path, name: str) -> str:
    """What stands between `<!-- name:begin -->` and `<!-- name:end -->`; UserError unless each is there once."""
    return _parts(page.read_text(encoding="utf-8"), page.name, name)[1]


def write(page: Path, **texts: str) -> None:
    """Put texts in their places, name by name; UserError as above, and then nothing is written."""
    content = page.read_text(encoding="utf-8")
    for name, text in texts.items():
        before, _, after = _parts(content, page.name, name)
        content = f"{before}{text.strip()}\n{after}"
    write_text(page, content)


def _parts(content: str, page: str, name: str) -> tuple[str, str, str]:
    """What stands before the text of that name, the text, and what stands after it, the two comments included."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, *rest = content.split(begin)
    if len(rest) != 1 or rest[0].count(end) != 1:
        raise UserError(f"{page} has no `{begin.strip()}` followed by `{end}`")
    inside, after = rest[0].split(end)
    return before + begin, inside, end + after
