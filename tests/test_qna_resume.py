"""Tests of llama_qna/pairs/qna.py over a server on loopback: killed, deserted, refused, and started again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pandas as pd
import pytest

from llama_qna import cli
from llama_qna.pairs import qna
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_server import refusal, serving
from tests.test_pair_writers import FACTS, SECTIONS, asked_about, model, variant_at


def command(variant):
    """The real `llama-qna generate` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "llama_qna", "generate", variant.name],
        cwd=REPOSITORY,
        env=os.environ | {"LLAMA_QNA_ROOT": str(variant.root), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def results(variant):
    return [(variant.qna / name).read_bytes() for name in ("qna.csv", "qna_rejected.csv")]


def ledger_lines(variant):
    """Those of whole chunks, without those of single answers."""
    path = variant.run / "qna.ledger"
    return [line for line in path.read_text().splitlines() if '"candidates"' in line] if path.exists() else []


def requests(bodies):
    return {(json.dumps(body["messages"]), body["seed"]) for body in bodies}


@contextmanager
def stalling(reply, after):
    """A server that answers `after` requests and then none until `go_on` is set."""
    go_on, answered = threading.Event(), []

    def slow(body, attempt):
        answered.append(body)
        if len(answered) > after:
            go_on.wait(60)
        return reply(body, attempt)

    with serving(slow) as server:
        try:
            yield server, go_on
        finally:
            go_on.set()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run gives that nothing disturbs."""
    with serving(model) as server:
        variant = variant_at(tmp_path_factory.mktemp("undisturbed"), server.url)
        qna.generate(variant)
    return results(variant)


def test_killed_in_the_middle_and_run_again(tmp_path, undisturbed):
    answered = 8  # the first group, and the first request for each chunk of the second
    with stalling(model, after=answered) as (server, go_on):
        variant = variant_at(tmp_path, server.url)
        process = command(variant)
        wait_until(lambda: len(server.bodies) > answered or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
        go_on.set()
        lines, first = ledger_lines(variant), len(server.bodies)
        assert 0 < len(lines) < len(SECTIONS)
        assert not (variant.qna / "qna.csv").exists()
        qna.generate(variant)
        assert results(variant) == undisturbed
        assert ledger_lines(variant)[: len(lines)] == lines
    in_ledger = {fact for fact in FACTS if fact in "\n".join(lines)}
    assert len(in_ledger) == 2 * len(lines)
    assert asked_about(server.bodies[first:]) == set(FACTS) - in_ledger
    assert requests(server.bodies[first:]).isdisjoint(requests(server.bodies[:answered]))


def test_server_that_goes_away_midway_loses_nothing(tmp_path, undisturbed, monkeypatch, capsys):
    answered = 5  # all of the first chunk, and two of three of the second

    def leave(body, attempt):
        gone = len(server.bodies) > answered
        return refusal(503, "the server is shutting down") if gone else model(body)

    with serving(leave) as server:
        endpoint = {"url": server.url, "model": "toy", "max_retries": 0, "concurrency": 1}
        variant = variant_at(tmp_path, server.url, endpoint=endpoint)
        monkeypatch.setenv("LLAMA_QNA_ROOT", str(variant.root))
        assert cli.main(["generate", variant.name]) == 2
        errors = capsys.readouterr().err
        (line,) = [line for line in errors.splitlines() if line.startswith("llama-qna: ")]
        assert line == errors.splitlines()[-1]
        assert "the server answered 503 (the server is shutting down)" in line
        lines, first = ledger_lines(variant), len(server.bodies)
        assert 0 < len(lines) < len(SECTIONS)
        server.reply = model
        qna.generate(variant)
    assert results(variant) == undisturbed
    assert asked_about(server.bodies[first:]).isdisjoint(fact for fact in FACTS if fact in "\n".join(lines))
    assert requests(server.bodies[first:]) == requests(server.bodies) - requests(server.bodies[:answered])


@pytest.mark.parametrize("what", ["first", "check"])
def test_refused_request_is_named_and_asked_again_next_time(what, tmp_path, undisturbed):
    """One chunk is too long for the server. Five chunks of a group; the other four are not asked about again."""
    long = SECTIONS[2]

    def strict(body, attempt):
        asked = body["messages"][-1]["content"]
        too_long = long[0] in asked and (what == "first" or (long[1] in asked and "\nQuestion:" in asked))
        return refusal(400, "the prompt is too long") if too_long else model(body)

    with serving(strict) as server:
        variant = variant_at(tmp_path, server.url, batch_size=64)
        pairs = qna.generate(variant)
        assert not set(pairs.Answer) & set(long) and len(pairs) == len(FACTS) - len(long)
        rejected = pd.read_csv(variant.qna / "qna_rejected.csv", keep_default_na=False)
        assert set(rejected.reason) == {"no pair in the response: refused by the server: the prompt is too long"}
        assert len(ledger_lines(variant)) == len(SECTIONS) - 1
        server.reply, first = model, len(server.bodies)
        (variant.qna / "run.json").unlink()  # so that the stage is not taken as done
        qna.generate(variant)
    assert results(variant) == undisturbed
    assert asked_about(server.bodies[first:]) == set(long)


def test_other_address_or_patience_of_the_same_model_keeps_the_ledger(tmp_path):
    with serving(model) as server:
        variant = variant_at(tmp_path, server.url)
        qna.generate(variant)
        before = results(variant)
    with serving(model) as server:
        endpoint = {"url": server.url, "model": "toy", "concurrency": 1, "timeout_seconds": 9}
        variant = variant_at(tmp_path, server.url, endpoint=endpoint)
        qna.generate(variant)
        assert results(variant) == before
        assert server.bodies == []
        endpoint["model"] = "another"
        qna.generate(variant_at(tmp_path, server.url, endpoint=endpoint))
        assert asked_about(server.bodies) == set(FACTS)
