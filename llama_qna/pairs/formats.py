"""Pairs as files that other trainers read: JSONL, each row with where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from llama_qna.models import prompts
from llama_qna.project.files import write_text

# of the formats that are dialogues: where the turns stand, who says what in each, and the names of the speakers
DIALOGUES = {
    "messages": ("messages", "role", "content", ("system", "user", "assistant")),
    "sharegpt": ("conversations", "from", "value", ("system", "human", "gpt")),
}
PROVENANCE = ["chunk_id", "document", "page", "split", "recipe", "model", "evidence"]


def export(pairs: pd.DataFrame, chunks: pd.DataFrame, format: str, path: Path) -> int:
    """Write the pairs as JSONL in one of three formats, with `PROVENANCE` under `metadata`.

    `messages` is the format of OpenAI and TRL, `alpaca` that of Stanford Alpaca, `sharegpt` that of Vicuna. `messages`
    and `sharegpt` begin with the system message that this package trains with.

    Args:
        format: `messages`, `alpaca` or `sharegpt`.
        pairs: `Question` and `Answer`; what is missing or empty of `PROVENANCE` is left out of the row.
        chunks: gives document, page and split of a pair that names its chunk and nothing else.

    Returns:
        The number of rows.
    """
    known = chunks.set_index("chunk_id")[["document", "page", "split"]].to_dict("index")
    rows = []
    for pair in pairs.astype(object).fillna("").to_dict("records"):
        metadata = _metadata(pair, known)
        rows.append(_row(pair["Question"], pair["Answer"], format) | ({"metadata": metadata} if metadata else {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)


def _metadata(pair: dict, chunks: dict[str, dict]) -> dict:
    own = {name: pair[name] for name in PROVENANCE if pair.get(name, "") != ""}
    found = chunks.get(own.get("chunk_id"), {}) | own
    return {name: _page(found[name]) if name == "page" else str(found[name]) for name in PROVENANCE if name in found}


def _page(page) -> int | str:
    """A column with gaps holds its numbers as text or as floats; a user's own file may say `iv`."""
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
