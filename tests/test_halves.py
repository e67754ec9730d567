"""A long document is read by two processes: the same pages come out, and whatever stops one of them is told."""

import os
import signal
import subprocess
import sys
import time

import pytest
from reportlab.pdfgen.canvas import Canvas

from llama_qna.documents import halves
from llama_qna.documents.clean import clean
from llama_qna.documents.halves import LEAST, OUT_OF_MEMORY, in_halves
from llama_qna.documents.runs import read_pdfium

TWO_CORES = "import os, signal, sys, time; os.sched_getaffinity = lambda _: {0, 1}\n"
TWO_CORES += "from llama_qna.documents.halves import LEAST, in_halves\n"


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def in_process(second: str) -> subprocess.CompletedProcess:
    """A process in which work on the second half does something else."""
    code = f"{TWO_CORES}def work(numbers):\n    if numbers.start:\n        {second}\n    return list(numbers)\n"
    return subprocess.run([sys.executable, "-c", f"{code}print(in_halves(work, LEAST))"], capture_output=True)


def test_two_processes_read_what_one_reads(tmp_path, monkeypatch):
    canvas = Canvas(str(tmp_path / "long.pdf"))
    for page in range(LEAST + 1):
        canvas.drawString(72, 800, "A running head")
        for line in range(20):
            canvas.drawString(72, 760 - 14 * line, f"Line {line} of page {page} speaks of cause and consequence.")
        canvas.showPage()
    canvas.save()

    def documents():
        pages, outline = read_pdfium(tmp_path / "long.pdf")
        return pages, clean("long", pages, outline)

    asked = []
    monkeypatch.setattr(os, "fork", lambda fork=os.fork: asked.append(1) or fork())
    by_two = documents()
    assert len(asked) == 2  # once for the runs, once for their lines
    monkeypatch.setattr(halves, "LEAST", 10**6)
    assert by_two == documents() and len(by_two[0]) == LEAST + 1


def test_one_core_and_few_pages_are_not_shared(monkeypatch):
    monkeypatch.setattr(os, "fork", None)
    assert in_halves(list, LEAST - 1) == list(range(LEAST - 1))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert in_halves(list, LEAST) == list(range(LEAST))


def test_what_the_second_half_raises_is_raised():
    def work(numbers):
        if numbers.start:
            raise KeyError("damaged")
        return list(numbers)

    with pytest.raises(ValueError, match="KeyError.*damaged"):
        in_halves(work, LEAST)

    def hungry(numbers):
        if numbers.start:
            raise MemoryError
        return list(numbers)

    with pytest.raises(MemoryError):
        in_halves(hungry, LEAST)


def test_a_crash_of_the_second_half_is_that_of_the_reader():
    assert in_process("os.kill(os.getpid(), signal.SIGSEGV)").returncode == -signal.SIGSEGV
    assert in_process("os._exit(1)").returncode > 0  # it went without an answer


def test_the_second_half_ends_with_the_first():
    """What fails in the first half does not wait for the second, and its output is not held open."""
    code = "def work(numbers):\n    if numbers.start:\n        time.sleep(60)\n    raise ValueError('first')\n"
    code = TWO_CORES + code
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", f"{code}in_halves(work, LEAST)"], capture_output=True)
    assert b"first" in done.stderr and time.monotonic() - start < 30

    code = f"{TWO_CORES}signal.alarm(1)\nin_halves(lambda numbers: time.sleep(60), LEAST)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGALRM and time.monotonic() - start < 40


def test_the_exit_status_of_too_little_memory_is_that_of_the_reader():
    assert in_process(f"os._exit({OUT_OF_MEMORY})").stderr.strip().endswith(b"MemoryError")
