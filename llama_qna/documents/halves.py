"""Work on a long document's pages in two processes, where there are two cores.

Only where this process is small and has one thread: the child that reads a file (`documents.extract`).
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

LEAST = 40  # pages; what fewer cost is not worth a second process
OUT_OF_MEMORY = 3  # exit status
T = TypeVar("T")


def in_halves(work: Callable[[range], list[T]], count: int) -> list[T]:
    """What `work(range(count))` returns, a list of so many; a forked process does the second half of it.

    Args:
        work: opens what it reads itself, since two processes that share an open file share their place in it.

    Raises:
        MemoryError: the second process had too little. Else what `work` raises.
    """
    with _without_collecting():
        if count < LEAST or not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
            return work(range(count))
        return _in_halves(work, count)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Python's garbage collector looks through all pages again and again, which are no garbage: a fifth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _in_halves(work: Callable[[range], list[T]], count: int) -> list[T]:
    reading, writing = os.pipe()
    seconds = signal.alarm(0)  # fork does not hand the alarm on
    process = os.fork()
    signal.alarm(seconds)
    if not process:
        _second_half(work, range(count // 2, count), writing)
    os.close(writing)
    try:
        with open(reading, "rb") as pipe:
            first, answer = work(range(count // 2)), pipe.read()
        status = os.waitpid(process, 0)[1]
        process = 0
    finally:
        if process:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))  # who waits for this process tells the reason
    if os.WEXITSTATUS(status) == OUT_OF_MEMORY:
        raise MemoryError
    second = pickle.loads(answer)  # from a process that had no rights which this one has not
    if isinstance(second, Exception):
        raise second
    return first + second


def _second_half(work: Callable[[range], list], numbers: range, writing: int) -> None:
    """Answer into a pipe; does not return. Whoever waits for the parent's output must not have to wait for this."""
    try:
        silent = os.open(os.devnull, os.O_RDWR)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        try:
            answer = pickle.dumps(work(numbers), protocol=5)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        except Exception as error:  # a damaged file makes the extractors raise whatever they please
            answer = pickle.dumps(ValueError(f"{type(error).__name__}: {error}"))
        with open(writing, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)
