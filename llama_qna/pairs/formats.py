"""Pairs as files that other trainers read: JSONL, each row with where it came from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llama_qna.models import prompts

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["messages", "alpaca", "sharegpt"]
PROVENANCE = ["chunk_id", "document", "page", "split", "recipe", "model", "evidence"]


def export(pairs: pd.DataFrame, chunks: pd.DataFrame, format: Format, path: Path) -> int:
    """Write the pairs as JSONL in one of three formats, with `PROVENANCE` under `metadata`.

    `messages` is the format of OpenAI and TRL, `alpaca` that of Stanford Alpaca, `sharegpt` that of Vicuna. `messages`
    and `sharegpt` begin with the system message that this package trains with.

    Args:
        pairs: `Question` and `Answer`; what is missing or empty of `PROVENANCE` is left out of the row.
        chunks: gives document, page and split of a pair that names its chunk and nothing else.

    Returns:
        The number of rows.
    """
    rows_of = {"messages": _messages, "alpaca": _alpaca, "sharegpt": _sharegpt}[format]
    known = chunks.set_index("chunk_id")[["document", "page", "split"]].to_dict("index")
    rows = []
    for pair in pairs.astype(object).fillna("").to_dict("records"):
        metadata = _metadata(pair, known)
        rows.append(rows_of(pair["Question"], pair["Answer"]) | ({"metadata": metadata} if metadata else {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    os.replace(beside, path)  # a reader sees the old file or the new one, never half of one
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


def _messages(question: str, answer: str) -> dict:
    turns = [("system", prompts.SYSTEM), ("user", question), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def _alpaca(question: str, answer: str) -> dict:
    return {"instruction": question, "input": "", "output": answer}


def _sharegpt(question: str, answer: str) -> dict:
    turns = [("system", prompts.SYSTEM), ("human", question), ("gpt", answer)]
    return {"conversations": [{"from": role, "value": content} for role, content in turns]}
