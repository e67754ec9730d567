"""Tests of llama_qna/models/server.py against a real server on loopback that behaves badly on demand."""

import subprocess
import sys
import threading
import time

import pytest

from llama_qna import UserError
from llama_qna.models.server import Completion, complete_all
from llama_qna.project.recipe import Endpoint
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_server import answer, refusal, serving


def number(body):
    return int(body["messages"][-1]["content"].split()[-1])


def echo(body, attempt=1):
    return answer(f"text {number(body)}")


def asked(count):
    return [[{"role": "user", "content": f"request {n}"}] for n in range(count)]


def complete(url, requests, *, temperature=0.5, stop=None, **options):
    endpoint = Endpoint(**{"url": url, "model": "toy", "max_retries": 0, "timeout_seconds": 20} | options)
    seeds = [100 + n for n in range(len(requests))]
    return complete_all(endpoint, requests, max_tokens=9, temperature=temperature, seeds=seeds, stop=stop)


# --- what goes well --------------------------------------------------------------------------------------------------


def test_every_request_is_answered_once_with_its_own_seed(monkeypatch):
    monkeypatch.setenv("TOY_API_KEY", "  sesame\n")  # as it comes from a file
    with serving(echo) as server:
        found = list(complete(server.url, asked(20), concurrency=4, stop=["\n"], api_key_variable="TOY_API_KEY"))
    assert sorted(found, key=lambda c: c.index) == [Completion(n, f"text {n}", tokens=3) for n in range(20)]
    assert len(server.bodies) == 20
    for body in server.bodies:
        assert body["seed"] == 100 + number(body)
        assert (body["model"], body["max_tokens"], body["temperature"], body["stop"]) == ("toy", 9, 0.5, ["\n"])
        assert body["path"] == "/v1/chat/completions"
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sesame"}


def test_a_local_server_gets_some_key_and_no_empty_stop(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(echo) as server:
        assert len(list(complete(server.url, asked(1)))) == 1
    assert server.headers[0]["Authorization"] == "Bearer none"
    assert server.bodies[0].get("stop") is None


def test_requests_in_flight_are_bounded_and_the_bound_is_used():
    both = threading.Barrier(3, timeout=20)  # no answer leaves before three requests are there

    def reply(body, attempt):
        both.wait()
        return echo(body)

    with serving(reply) as server:
        assert len(list(complete(server.url, asked(12), concurrency=3))) == 12
    assert server.most_busy == 3


def test_a_caller_that_holds_back_stops_the_requests():
    with serving(echo) as server:
        answers = complete(server.url, asked(50), concurrency=2)
        next(answers)
        time.sleep(0.3)
        assert len(server.bodies) <= 4, "the two first, and one more for each that came back"
        assert len(list(answers)) == 49


def test_answers_come_as_they_arrive():
    others_are_read = threading.Event()

    def reply(body, attempt):
        if number(body) == 0:
            assert others_are_read.wait(20)
        return echo(body)

    with serving(reply) as server:
        answers = complete(server.url, asked(6), concurrency=2)
        assert [next(answers).index for _ in range(5)] == [1, 2, 3, 4, 5]
        others_are_read.set()
        assert [completion.index for completion in answers] == [0]


def test_a_text_that_was_cut_off_says_so_and_none_is_lost():
    texts = [("whole", "stop"), ("cut o", "length"), (None, "stop"), ("half a pair \ud83d", "stop")]
    with serving(lambda body, attempt: answer(*texts[number(body)])) as server:
        found = sorted(complete(server.url, asked(4)), key=lambda c: c.index)
    assert [(c.text, c.cut_off) for c in found] == [
        ("whole", False),
        ("cut o", True),
        ("", False),
        ("half a pair ?", False),
    ]


def test_a_server_that_counts_no_tokens():
    def reply(body, attempt):
        status, content = echo(body)
        del content["usage"]
        return status, content

    with serving(reply) as server:
        assert list(complete(server.url, asked(1))) == [Completion(0, "text 0")]


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(echo) as server:
        assert len(list(complete(server.url, asked(1)))) == 1
        assert len(list(complete(server.url.replace("127.0.0.1", "localhost"), asked(1)))) == 1


# --- what passes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [refusal(429, "slow down", **{"Retry-After": "0.2"}), refusal(500, "oops"), refusal(503, "loading")]
)
def test_a_server_that_fails_for_a_while_is_asked_again(first):
    with serving(lambda body, attempt: first if attempt == 1 else echo(body)) as server:
        found = list(complete(server.url, asked(3), max_retries=1))
    assert sorted(c.text for c in found) == ["text 0", "text 1", "text 2"]
    assert len(server.bodies) == 6


def test_a_slow_answer_is_asked_for_again():
    done = threading.Event()

    def reply(body, attempt):
        if attempt == 1:
            done.wait(20)
        return echo(body)

    with serving(reply) as server:
        found = list(complete(server.url, asked(1), max_retries=1, timeout_seconds=0.3))
        done.set()
    assert [c.text for c in found] == ["text 0"] and len(server.bodies) == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_does_not_harm_the_others(status):
    long = refusal(status, "the prompt has 9000 tokens\nand 4096 are allowed")
    with serving(lambda body, attempt: long if number(body) == 1 else echo(body)) as server:
        found = sorted(complete(server.url, asked(4), max_retries=3), key=lambda c: c.index)
    assert [c.text for c in found] == ["text 0", "", "text 2", "text 3"]
    assert found[1].error == "the prompt has 9000 tokens and 4096 are allowed"
    assert len(server.bodies) == 4, "it is not asked again"


# --- what ends it ----------------------------------------------------------------------------------------------------


def complaint(url, requests=None, **options):
    """The one line of the `UserError`, and what had been yielded before."""
    found = []
    with pytest.raises(UserError) as caught:
        for completion in complete(url, requests or asked(3), **options):
            found.append(completion)
    text = str(caught.value)
    assert "\n" not in text
    return text, found


@pytest.mark.parametrize(
    "reply, said",
    [
        (refusal(401, "bad key"), "answered 401 (bad key); set the environment variable TOY_API_KEY to a key that the"),
        (refusal(403, "not yours"), "answered 403 (not yours); the key in the environment variable TOY_API_KEY may"),
        (refusal(404, "no such model"), "answered 404 (no such model); correct the url, which mostly ends in /v1, or"),
        (refusal(429, "quota is used up"), "answered 429 (quota is used up); lower concurrency"),
        (refusal(500, "oops"), "answered 500 (oops); see the server's log, and start again"),
        ((418, {"detail": "teapot"}), "answered 418 (teapot); see"),
        ((502, b"<html>" + b"bad gateway " * 100, {"Content-Type": "text/html"}), "answered 502 ("),
        ((200, b'{"choices": [{"mess'), "no chat completion; does generation.endpoint.url end as the server wants it"),
        ((200, b"<html>Welcome</html>", {"Content-Type": "text/html"}), "no chat completion"),
        ((200, {"object": "list", "data": []}), "no chat completion"),
        ((200, {"choices": []}), "no chat completion"),
    ],
)
def test_a_server_that_cannot_be_used_is_named_with_what_to_do(reply, said):
    with serving(lambda body, attempt: reply) as server:
        text, found = complaint(server.url, api_key_variable="TOY_API_KEY")
    assert text.startswith(f"{server.url}: ") and said in text
    assert len(text) < 450 and found == []


def test_a_server_that_wants_to_be_left_alone_for_an_hour_is():
    with serving(lambda body, attempt: refusal(429, "come back later", **{"Retry-After": "3600"})) as server:
        text, _ = complaint(server.url, asked(1), max_retries=5)
    assert "answered 429 (come back later)" in text and len(server.bodies) == 1


def test_a_server_that_is_not_there():
    with serving(echo) as server:
        url = server.url
    text, _ = complaint(url, max_retries=1)
    assert text == f"{url}: the server cannot be reached; start it, or correct generation.endpoint.url"


def test_a_server_that_never_answers():
    done = threading.Event()

    def reply(body, attempt):
        done.wait(20)
        return echo(body)

    with serving(reply) as server:
        text, _ = complaint(server.url, asked(1), timeout_seconds=0.2, max_retries=1)
        done.set()
    assert text.startswith(f"{server.url}: no answer within 0.2 s, after 1 retries; raise timeout_seconds or lower")
    assert len(server.bodies) == 2


def test_an_address_without_a_scheme_is_refused_at_once():
    text, _ = complaint("localhost:8000/v1", max_retries=5)
    assert text == "generation.endpoint.url: 'localhost:8000/v1' does not begin with http:// or https://"


@pytest.mark.parametrize("url", ["http://localhost:8000v1", "http://[::1:8000/v1", "http://local\x01host/v1"])
def test_an_address_that_is_none_is_one_line(url):
    text, _ = complaint(url, max_retries=0)
    assert text.startswith(f"{url!r} is no address of a server (Invalid ") and "\n" not in text


def test_what_arrived_before_an_error_is_handed_over_and_the_rest_is_not_sent():
    def reply(body, attempt):
        return echo(body) if number(body) < 5 else refusal(401, "the key has expired")

    with serving(reply) as server:
        text, found = complaint(server.url, asked(40), concurrency=1)
    assert "the key has expired" in text
    assert [c.index for c in found] == [0, 1, 2, 3, 4]
    assert len(server.bodies) == 6


def check_comes_back_at_once(reply, use):
    """Check that `use(url)` comes back while another of its requests still waits for its next try, far away."""
    waits, hung_up = threading.Event(), threading.Event()

    def patient(body, attempt):
        if number(body) == 0:
            waits.set()
            return refusal(429, "later", **{"Retry-After": "100"})
        assert waits.wait(20)
        return reply(body, attempt)

    with serving(patient) as server:
        worker = threading.Thread(target=lambda: (use(server.url), hung_up.set()), daemon=True)
        worker.start()
        assert hung_up.wait(30), "a request that waits for its next try holds up the end"
        worker.join()
    left = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert all(thread.daemon for thread in left), "a thread that waits must not keep the process alive"


def test_an_error_does_not_wait_for_the_requests_in_flight():
    def use(url):
        complaint(url, asked(4), concurrency=2, max_retries=5)

    check_comes_back_at_once(lambda body, attempt: refusal(401, "bad key"), use)


def test_a_caller_that_stops_does_not_wait_for_the_requests_in_flight():
    def use(url):
        answers = complete(url, asked(4), concurrency=2, max_retries=5)
        assert next(answers).index == 1
        answers.close()

    check_comes_back_at_once(echo, use)


# --- where it runs ---------------------------------------------------------------------------------------------------


def test_it_works_inside_a_running_event_loop():
    """A notebook's cells run inside one."""
    import asyncio

    async def cell():
        return list(complete(server.url, asked(3)))

    with serving(echo) as server:
        assert len(asyncio.run(cell())) == 3


def test_importing_the_module_is_light():
    program = (
        "import sys, llama_qna.models.server\n"
        "print([name for name in 'openai httpx httpx2 pydantic torch'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
