"""Rows of a training from chunks and pairs, none longer than `max_length`; what did not fit is said before training."""

from __future__ import annotations

import sys

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
    """The rows of the pairs; one that is longer than `max_length` tokens is left out, see `training_row`.

    Raises:
        UserError: none fits, or there is none.
    """
    found = [
        prompts.training_row(tokenizer, question, answer, max_length)
        for question, answer in zip(pairs.Question, pairs.Answer, strict=True)
    ]
    longer = [
        pair for pair, row in zip(zip(pairs.Question, pairs.Answer, strict=True), found, strict=True) if row is None
    ]
    said = f"{len(longer)} of {len(pairs)} pairs are longer than max_length, {max_length} tokens"
    if longer:
        whole = (prompts.training_row(tokenizer, *pair, sys.maxsize) for pair in longer)
        said += f" (the longest takes {max(len(row['input_ids']) for row in whole)})"
    if len(longer) == len(pairs):
        raise UserError(f"{what}: {said}; raise it in the recipe" if longer else f"{what}: there is no training pair")
    if longer:
        _say(f"{what}: {said}, and left out: {_some([question for question, _ in longer])}")
    return [row for row in found if row is not None]


def _some(names: list[str]) -> str:
    shown = [one_line(name) for name in names[:NAMED]]
    return ", ".join(shown) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _say(line: str) -> None:
    if processes.is_main():
        print(line)
