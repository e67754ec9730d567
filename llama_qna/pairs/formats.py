"""Pairs as files that other trainers read: JSONL, each row with where it came from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from llama_qna.models import prompts
from llama_qna.project.data import QNA_COLUMNS
from llama_qna.project.files import write_lines

# of the formats that are dialogues: where the turns stand, who says what in each, and the names of the speakers
DIALOGUES = {
    "messages": ("messages", "role", "content", ("system", "user", "assistant")),
    "sharegpt": ("conversations", "from", "value", ("system", "human", "gpt")),
}
PROVENANCE = QNA_COLUMNS[2:]


def export(pairs: pd.DataFrame, format: str, path: Path) -> int:
    """Write the pairs as JSONL in one of three formats, with `PROVENANCE` under `metadata`.

    `messages` is the format of OpenAI and TRL, `alpaca` that of Stanford Alpaca, `sharegpt` that of Vicuna. `messages`
    and `sharegpt` begin with the system message that this package trains with.

    Args:
        pairs: the table of `project.data.read_qna`; what is empty of `PROVENANCE` is left out of the row.
        format: `messages`, `alpaca` or `sharegpt`.

    Returns:
        The number of rows.
    """
    rows = []
    for pair in pairs.to_dict("records"):
        metadata = {name: pair[name] for name in PROVENANCE if pair[name] != ""}
        if "page" in metadata:
            metadata["page"] = _page(metadata["page"])
        rows.append(_row(pair["Question"], pair["Answer"], format) | {"metadata": metadata})
    write_lines(path, rows)
    return len(rows)


def _page(page: int | str) -> int | str:
    """A column with gaps holds its numbers as text, `3` or `3.0`; a user's own file may say `iv`."""
    try:
        return int(float(page))
    except ValueError:
        return page


def _row(question: str, answer: str, format: str) -> dict:
    if format == "alpaca":
        return {"instruction": question, "input": "", "output": answer}
    turns, who, said, speakers = DIALOGUES[format]
    texts = (prompts.SYSTEM, question, answer)
    return {turns: [{who: speaker, said: text} for speaker, text in zip(speakers, texts, strict=True)]}
