"""Rows that pass through a model together: as many as memory has room for, and fewer when it runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable

from llama_qna.models.device import available_memory, is_out_of_memory, release
from llama_qna.models.plan import CPU_TOKENS, KEPT_FREE, answering_row
from llama_qna.models.shapes import shapes_in


def in_batches(
    items: list,
    largest: int,
    work: Callable[[list], None],
    fitting: Callable[[object], int | None] = lambda first: None,
) -> None:
    """Give `work` all items in their order, some at a time; half as many from where memory runs out.

    Args:
        largest: items at once at most.
        work: does the whole of a batch or, where it raises, nothing of it.
        fitting: how many items fit of which the given one, the first, is the largest; None: all do.

    Raises:
        Exception: what `work` raises, and where not even one item fits.
    """
    start = 0
    while start < len(items):
        fits = fitting(items[start])
        batch = items[start : start + (largest if fits is None else max(1, min(largest, fits)))]
        try:
            work(batch)
            start += len(batch)
            continue
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        largest = len(batch) // 2  # outside of `except`, which holds the tensors of what failed
        print(f"llama-qna: out of memory with {len(batch)} rows at once; on with {largest}", file=sys.stderr)
        release()


def rows_that_fit(model, prompt: int, new: int) -> int:
    """Prompts that a GPU's free memory has room for at once; on a CPU as many as it computes quickest.

    Args:
        prompt: tokens of the longest one.
        new: tokens that may be written after it.
    """
    if model.device.type == "cpu":
        return CPU_TOKENS // prompt
    row = sum(answering_row(shapes_in(model.config.to_dict()), prompt, new, model.dtype.itemsize))
    return int(available_memory("cuda") * (1 - KEPT_FREE)) // row
