"""Tests of llama_qna/pairs/ledger.py: real files, processes that are really killed, a disk that is really full."""

import os
import signal
import subprocess
import sys

import pytest

from llama_qna import UserError
from llama_qna.pairs.ledger import Ledger
from llama_qna.project.variant import REPOSITORY


def entry(n, **more):
    return {"key": f"key {n}", "text": f"Text {n}, “quoted”\nwith two lines and half a pair \ud83d"} | more


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stage" / "ledger.jsonl"


@pytest.fixture
def filled(path):
    """A closed ledger of five entries, written in two groups."""
    with Ledger(path) as ledger:
        ledger.add([entry(0), entry(1)])
        ledger.add([entry(2), entry(3), entry(4)])
    return path


def keys(path):
    with Ledger(path) as ledger:
        return [n for n in range(1000) if f"key {n}" in ledger]


def child(program, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_what_was_added_is_there_now_and_later(filled):
    with Ledger(filled) as ledger:
        assert len(ledger) == 5 and ledger.damaged == []
        assert ledger.get("key 3") == entry(3)
        assert ledger.get("key 9") is None and "key 9" not in ledger
        ledger.add([entry(9, numbers=(1, 2.5))])
        now = ledger.get("key 9")
    with Ledger(filled) as ledger:
        assert ledger.get("key 9") == now == entry(9, numbers=[1, 2.5]), "the same in this process and in the next"


def test_a_newer_entry_takes_the_place_of_the_older(filled):
    with Ledger(filled) as ledger:
        ledger.add([{"key": "key 2", "text": "new"}])
        assert len(ledger) == 5
    with Ledger(filled) as ledger:
        assert ledger.get("key 2")["text"] == "new" and len(ledger) == 5


@pytest.mark.parametrize("lost", [1, 2, 40, 70])
def test_a_torn_last_line_is_cut_off(filled, lost):
    content = filled.read_bytes()
    assert len(content.split(b"\n")[4]) > 70
    filled.write_bytes(content[:-lost])
    assert keys(filled) == [0, 1, 2, 3]
    assert filled.read_bytes() == b"".join(content.splitlines(keepends=True)[:4])
    with Ledger(filled) as ledger:
        ledger.add([entry(4)])
    assert filled.read_bytes() == content, "done again, the file is that of an undisturbed run"


@pytest.mark.parametrize("place, wrong", [(5, b"X"), (14, b"f"), (30, b"\r"), (60, b"\x00"), (-3, b"\xff")])
def test_a_damaged_line_is_named_and_the_others_are_kept(filled, place, wrong, capsys):
    lines = filled.read_bytes().splitlines(keepends=True)
    damaged = bytearray(lines[2])
    assert damaged[place : place + 1 or None] != wrong
    damaged[place] = wrong[0]
    filled.write_bytes(b"".join([*lines[:2], bytes(damaged), *lines[3:]]))
    with Ledger(filled) as ledger:
        assert ledger.damaged == [3]
        assert "key 2" not in ledger and len(ledger) == 4
        ledger.add([entry(2)])
    assert capsys.readouterr().err == "ledger.jsonl: damaged, and left out: line 3\n"
    assert keys(filled) == [0, 1, 2, 3, 4]


def test_every_flipped_bit_is_noticed(filled):
    """No single flipped bit changes an entry in silence, wherever it is."""
    content = filled.read_bytes()
    good = [entry(n) for n in range(5)]
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        filled.write_bytes(flipped)
        with Ledger(filled) as ledger:
            found = [ledger.get(f"key {n}") for n in range(5)]
            assert len(ledger) < 5, place
        assert all(entry is None or entry == good[n] for n, entry in enumerate(found)), place
        assert sum(entry is not None for entry in found) >= 3, place  # a line break that is lost costs two entries


WRITER = """
import sys
from pathlib import Path
from llama_qna.pairs.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    start = len(ledger)
    for n in range(start, start + 1000):
        ledger.add([{"key": f"key {n}", "text": "x" * (n % 7) * 3000}])
        print(n, flush=True)
"""


@pytest.mark.parametrize("after", [1, 17, 60])
def test_kill_9_in_the_middle_loses_nothing_that_was_finished(path, after):
    done = []
    for _ in range(2):  # killed, started again, and killed again
        with child(WRITER, path) as process:
            for _ in range(after):
                done.append(int(process.stdout.readline()))
            process.send_signal(signal.SIGKILL)
            done += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        assert process.returncode == -signal.SIGKILL
        found = keys(path)
        assert found == list(range(len(found))), "none is missing in between"
        assert set(done) <= set(found), "what add() had returned from is there"
        assert len(found) - len(done) in (0, 1, 2), "at most the one that was being written, of either process"


def test_two_processes_never_write_at_once(path):
    with child(WRITER, path) as process:
        process.stdout.readline()
        with pytest.raises(UserError, match="ledger.jsonl is in use: the same stage runs already"):
            Ledger(path)
        process.kill()
    assert keys(path), "the lock ends with the process"
    with Ledger(path), pytest.raises(UserError):
        Ledger(path)


FULL_DISK = """
import resource, sys
from pathlib import Path
from llama_qna import UserError
from llama_qna.pairs.ledger import Ledger
path = Path(sys.argv[1])
with Ledger(path) as ledger:
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))  # the write stops in the middle of a line
    try:
        ledger.add([{"key": "key 5", "text": "x" * 1000}])
    except UserError as error:
        print(error)
    print(path.stat().st_size == size, "key 5" in ledger)
    ledger.add([{"key": "key 6", "text": "short"}])
"""


def test_a_full_disk_leaves_no_half_line(filled):
    with child(FULL_DISK, filled) as process:
        output = process.stdout.read()
    assert process.returncode == 0
    assert output.splitlines() == [
        "ledger.jsonl cannot be written (File too large); what is in it is kept: make room, and start again",
        "True False",
    ]
    assert keys(filled) == [0, 1, 2, 3, 4, 6]


def test_an_entry_that_cannot_be_kept_changes_nothing(filled):
    before = filled.read_bytes()
    with Ledger(filled) as ledger:
        for wrong in ({"key": "key 7", "score": float("nan")}, {"key": "key 7", "path": object()}):
            with pytest.raises((ValueError, TypeError)):
                ledger.add([entry(6), wrong])
        assert len(ledger) == 5
    assert filled.read_bytes() == before


def test_add_waits_for_the_disk(path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(path.stat().st_size), real(file)))
    with Ledger(path) as ledger:
        ledger.add([entry(0), entry(1)])
    assert synced == [path.stat().st_size], "once, after both lines"
