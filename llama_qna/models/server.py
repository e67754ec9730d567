"""Text from an OpenAI-compatible server, in place of a model in this process.

The `openai` package waits, retries and backs off; this module keeps a bounded number of requests in flight, hands over
each answer as it arrives, and turns what can go wrong into one line that says what to do.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llama_qna import UserError, first_line

if TYPE_CHECKING:
    from llama_qna.project.recipe import Endpoint

# What a server answers to one request that it cannot serve, such as a prompt that is too long; others may pass.
REFUSED = (400, 413, 422)
LONGEST = 30_000  # characters that are read of a response; a model that writes more repeats itself
_THOUGHTS = re.compile(r"[<\[](think(?:ing)?|thoughts?|reasoning)[>\]].*?(?:[<\[]/\1[>\]]|\Z)", re.I | re.S)
_THOUGHTS_END = re.compile(r"\A.*[<\[]/(?:think(?:ing)?|thoughts?|reasoning)[>\]]", re.I | re.S)  # begun in the prompt


@dataclass
class AnswerFormat:
    """A JSON schema for answers, which not every server takes: one that has refused it is not asked for it again."""

    schema: dict | None

    def options(self) -> dict:
        if not self.schema:
            return {}
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.schema}}}


@dataclass(frozen=True)
class Completion:
    """One answer of the server."""

    index: int  # of the request
    text: str  # empty where `error` is set
    cut_off: bool = False  # the text ends because `max_tokens` was reached
    tokens: int = 0  # written, as the server counts them; 0 where it does not say
    error: str = ""  # why the server refused this one request


def complete_all(
    endpoint: Endpoint,
    requests: list[list[dict]],
    *,
    max_tokens: int,
    temperature: float,
    seeds: list[int],
    stop: list[str] | None = None,
    answer_format: AnswerFormat | None = None,
    setting: str = "generation.endpoint",
) -> Iterator[Completion]:
    """Send every request as a chat completion and yield the answers in the order in which they arrive.

    At most `endpoint.concurrency` requests are in flight, and no further one is sent while the caller holds back.

    Args:
        requests: the messages of each request.
        max_tokens: the longest answer, in tokens.
        seeds: one for each request; most servers take 0 to 2**31 - 1.
        stop: strings that end an answer.
        answer_format: is emptied where the server refuses it and answers without it.
        setting: where the recipe names the server, for messages.

    Raises:
        UserError: the server cannot be reached, refuses key or model, or still fails after the retries. Requests in
            flight are then cancelled; what arrived before has been yielded.
    """
    if not endpoint.url.lower().startswith(("http://", "https://")):
        raise UserError(f"{setting}.url: {endpoint.url!r} does not begin with http:// or https://")
    options = {"model": endpoint.model, "max_tokens": max_tokens, "temperature": temperature, "stop": stop or None}
    waiting = iter(list(enumerate(zip(requests, seeds, strict=True))))
    arrived: SimpleQueue[Completion | Exception] = SimpleQueue()
    key = os.environ.get(endpoint.api_key_variable, "")
    in_flight, client = 0, client_of(endpoint.url, key, endpoint.timeout_seconds, endpoint.max_retries)

    def work(index: int, more: dict) -> None:
        try:
            form = answer_format or AnswerFormat(None)
            arrived.put(_complete(client, endpoint, index, options | more, form, setting))
        except Exception as error:  # it belongs to the caller's thread
            arrived.put(error)

    try:
        while True:
            for index, (messages, seed) in islice(waiting, endpoint.concurrency - in_flight):
                # a daemon: one that waits for its next try must not keep the process alive
                Thread(target=work, args=(index, {"messages": messages, "seed": seed}), daemon=True).start()
                in_flight += 1
            if not in_flight:
                return
            done = [arrived.get()]
            while not arrived.empty():
                done.append(arrived.get())
            in_flight -= len(done)
            failed = [answer for answer in done if isinstance(answer, Exception)]
            yield from (answer for answer in done if answer not in failed)
            if failed:
                raise failed[0]
    finally:
        client.close()  # ends the requests that are still in flight


def without_thoughts(text: str) -> str:
    """A response without what a reasoning model thought aloud (`<think>`…`</think>`), whole or cut off."""
    return _THOUGHTS_END.sub("", _THOUGHTS.sub("", text[:LONGEST]))


def client_of(url: str, key: str, seconds: float, retries: int):
    """A client of the server at an address.

    Args:
        key: the server's, "" where it wants none.
        seconds: that a request may take.

    Raises:
        UserError: it is no address.
    """
    import openai

    try:
        return openai.OpenAI(
            base_url=url,
            api_key=key.strip() or "none",  # local servers want something
            timeout=seconds,
            max_retries=retries,
            # a proxy for the internet knows no server on this machine
            http_client=openai.DefaultHttpxClient(trust_env=not _is_loopback(url)),
        )
    except Exception as error:  # the error for a bad address is of whichever library openai sends with
        raise UserError(f"{url!r} is no address of a server ({first_line(error)})") from None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return host == "localhost"


def _complete(
    client, endpoint: Endpoint, index: int, options: dict, answer_format: AnswerFormat, setting: str
) -> Completion:
    """One request with its retries."""
    import openai

    try:
        answer = _formatted(client, options, answer_format)
        choice = answer.choices[0]
        text = (choice.message.content or "").encode("utf-8", "replace").decode()  # JSON can hold half a character
        tokens = answer.usage.completion_tokens if answer.usage else 0
        return Completion(index, text, choice.finish_reason == "length", tokens)
    except openai.OpenAIError as error:
        if getattr(error, "status_code", None) in REFUSED:
            return Completion(index, "", error=said_by(error))
        raise UserError(f"{endpoint.url}: {_explain(error, endpoint, setting)}") from None
    except (ValueError, AttributeError, TypeError, IndexError):  # JSON that is damaged, or of something else
        raise UserError(
            f"{endpoint.url}: the server's answer is no chat completion; does {setting}.url end as the server wants "
            "it, mostly in /v1?"
        ) from None


def _formatted(client, options: dict, answer_format: AnswerFormat):
    """An answer in the format, or without it from a server that refuses it."""
    import openai

    form = answer_format.options()
    try:
        return client.chat.completions.create(**options, **form)
    except openai.APIStatusError as error:
        if not form or error.status_code not in REFUSED:
            raise
    answer = client.chat.completions.create(**options)  # refused too where the prompt is what is wrong
    answer_format.schema = None
    return answer


def _explain(error: Exception, endpoint: Endpoint, setting: str) -> str:
    """What is wrong with the server as a whole, and what to do about it."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return (
            f"no answer within {endpoint.timeout_seconds:g} s, after {endpoint.max_retries} retries; raise "
            f"timeout_seconds or lower concurrency in {setting}"
        )
    if isinstance(error, openai.APIConnectionError):
        return f"the server cannot be reached; start it, or correct {setting}.url"
    status = getattr(error, "status_code", None)
    advice = {
        401: f"set the environment variable {endpoint.api_key_variable} to a key that the server takes",
        403: f"the key in the environment variable {endpoint.api_key_variable} may not use the model",
        404: f"correct the url, which mostly ends in /v1, or the model {endpoint.model!r} in {setting}",
        429: f"lower concurrency in {setting}, or look after your quota, and start again",
    }.get(status, "see the server's log, and start again")
    return f"the server answered {status or type(error).__name__} ({said_by(error)}); {advice}"


def said_by(error) -> str:
    """The server's own words, on one line."""
    body = error.body if isinstance(getattr(error, "body", None), dict) else {}
    words = " ".join(str(body.get("message") or body.get("detail") or error).split())
    return words if len(words) <= 200 else f"{words[:200]}…"
