"""Rows of a training from chunks and pairs, none longer than `max_length`; what did not fit is said before training."""

from __future__ import annotations

import pandas as pd

from llama_qna import UserError, one_line
from llama_qna.models import prompts
from llama_qna.project import processes

NAMED = 3  # of what did not fit; the rest is counted


def chunk_rows(tokenizer, chunks: pd.DataFrame, max_length: int, what: str) -> list[dict]:
    """The rows of the chunks' text; what of a chunk is over `max_length` tokens makes rows of its own.

    Raises:
        UserError: there is nothing to learn in them.
    """
    found = [prompts.text_rows(tokenizer, text, max_length) for text in chunks.text]
    longer = [chunk_id for chunk_id, rows in zip(chunks.chunk_id, found, strict=True) if len(rows) > 1]
    rows = [row for of_chunk in found for row in of_chunk]
    if not rows:
        raise UserError(f"{what}: no chunk of the training sections has text to train on")
    if longer:
        _say(f"{what}: {len(longer)} of {len(chunks)} chunks are longer than max_length, {max_length} tokens, and make "
             f"several rows, {len(rows)} in all: {_some(longer)}")  # fmt: skip
    return rows


def pair_rows(tokenizer, pairs: pd.DataFrame, max_length: int, what: str) -> list[dict]:
    """The rows of the pairs, closed book; one that is longer than `max_length` tokens is left out.

    Raises:
        UserError: none fits, or there is none.
    """
    texts = zip(pairs.Question, pairs.Answer, strict=True)
    found = [(question, prompts.training_row(tokenizer, question, answer)) for question, answer in texts]
    return fitting(found, max_length, what, "pairs")


def fitting(found: list[tuple[str, dict]], max_length: int, what: str, kind: str) -> list[dict]:
    """The rows that fit; the others are counted and named.

    Args:
        found: each row with the question that it is about.
        kind: what the rows are, in the plural.

    Raises:
        UserError: none fits, or there is none.
    """
    longer = [(question, row) for question, row in found if not prompts.fits(row, max_length)]
    if not found:
        raise UserError(f"{what}: there is no training pair")
    if longer:
        longest = max(len(row["input_ids"]) for _, row in longer)
        said = f"{what}: {len(longer)} of {len(found)} {kind} are longer than max_length, {max_length} tokens (the "
        said += f"longest takes {longest})"
        if len(longer) == len(found):
            raise UserError(f"{said}; raise it in the recipe")
        _say(f"{said}, and left out: {_some(list(dict.fromkeys(question for question, _ in longer)))}")
    return [row for _, row in found if prompts.fits(row, max_length)]


def _some(names: list[str]) -> str:
    shown = [one_line(name) for name in names[:NAMED]]
    return ", ".join(shown) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _say(line: str) -> None:
    if processes.is_main():
        print(line)
