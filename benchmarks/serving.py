"""How fast the engine answers: the first word of one client, and many clients at once against one at a time.

Starts `llama-qna serve VARIANT`, and asks the gold questions of its corpus as chat completions, each with a stream.
Rounds take turns between models and numbers of clients, so that a slow moment of the machine meets all. Writes
`benchmarks/results/serving.json`, and from it the table in `docs/serving.md`.

    python -m benchmarks.serving [VARIANT] [--questions 32] [--rounds 3]
"""

import argparse
import asyncio
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

import httpx
import openai
import pandas as pd

from benchmarks import marked
from llama_qna.project import provenance
from llama_qna.project.files import write_json
from llama_qna.project.variant import Variant
from llama_qna.serving.engine import KEY_VARIABLE

RESULTS = Path(__file__).parent / "results" / "serving.json"
PAGE = RESULTS.parents[2] / "docs" / "serving.md"
MODELS = ("base", "finetuned")
MANY, CROWD = 16, 64  # clients at once


@contextmanager
def engine(variant: Variant, port: int, key: str):
    """The running engine; yields the moment of the command on the clock."""
    environment = os.environ | {KEY_VARIABLE: key}
    command = [sys.executable, "-m", "llama_qna", "serve", variant.name, "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while not healthy(port):
                if process.poll() is not None:
                    log.seek(0)
                    sys.exit(f"the engine has ended:\n{log.read()[-3000:]}")
                time.sleep(0.2)
            yield started
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


async def ask(client, model: str, question: str) -> dict:
    """One answer: seconds to its first word and to its end, and its tokens."""
    started, first, tokens = time.perf_counter(), None, 0
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        if first is None and chunk.choices and chunk.choices[0].delta.content:
            first = time.perf_counter() - started
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return {"first": first, "seconds": time.perf_counter() - started, "tokens": tokens}


async def crowd(client, model: str, questions: list[str], clients: int) -> dict:
    """So many clients, each of whom asks the next question when the last one is answered."""
    waiting, answers, failures = iter(questions), [], 0

    async def one():
        nonlocal failures
        for question in waiting:
            try:
                answers.append(await ask(client, model, question))
            except openai.OpenAIError:
                failures += 1

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    seconds = time.perf_counter() - started
    return {
        "clients": clients,
        "questions": len(questions),
        "failures": failures,
        "first_token_seconds": round(statistics.median(answer["first"] or answer["seconds"] for answer in answers), 3),
        "answers_per_second": round(len(answers) / seconds, 3),
        "tokens_per_second": round(sum(answer["tokens"] for answer in answers) / seconds, 1),
    }


async def measure(port: int, key: str, questions: list[str], rounds: int) -> dict[str, list[dict]]:
    url = f"http://127.0.0.1:{port}/v1"
    http_client = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=url, api_key=key, max_retries=0, timeout=600, http_client=http_client
    ) as client:
        measured = {model: [] for model in MODELS}
        for number in range(1, rounds + 1):
            for model in MODELS:
                # every round and number of clients asks questions that no cache of prompts knows
                for clients in (1, MANY):
                    asked = [f"{question} ({number}.{clients})" for question in questions]
                    measured[model].append(await crowd(client, model, asked, clients))
                    print(f"round {number}, {model}: {measured[model][-1]}", flush=True)
        for model in MODELS:
            asked = [f"{question} (crowd)" for question in islice(cycle(questions), CROWD)]
            measured[model].append(await crowd(client, model, asked, CROWD))
            print(f"{model}: {measured[model][-1]}", flush=True)
        return measured


def summary(found: list[dict]) -> dict:
    """Medians over the rounds."""

    def median(clients: int, key: str) -> float:
        return statistics.median(row[key] for row in found if row["clients"] == clients)

    one, many = median(1, "answers_per_second"), median(MANY, "answers_per_second")
    return {
        "first_token_seconds_1_client": median(1, "first_token_seconds"),
        "answers_per_second_1_client": one,
        f"answers_per_second_{MANY}_clients": many,
        "ratio": round(many / one, 2),
        f"failures_{CROWD}_clients": next(row["failures"] for row in found if row["clients"] == CROWD),
        "rounds": found,
    }


def table(facts: dict) -> str:
    """The table of the documentation: a column a model, and a line on machine, day and variant."""
    models = facts["models"]
    rows = {
        "first token, one client, median of the rounds": "{first_token_seconds_1_client:.2f} s",
        "answers a second, one client": "{answers_per_second_1_client:.2f}",
        f"answers a second, {MANY} clients at once": f"{{answers_per_second_{MANY}_clients:.2f}}",
        "ratio of the two": "{ratio:.1f}",
        f"failures among {CROWD} clients at once": f"{{failures_{CROWD}_clients}}",
    }
    lines = [f"| | {' | '.join(f'`{name}`' for name in models)} |", "|---|" + "---|" * len(models)]
    lines += [
        f"| {name} | {' | '.join(form.format(**row) for row in models.values())} |" for name, form in rows.items()
    ]
    about = f"From the command to the first answer {facts['seconds_to_first_answer']:.0f} s. `{facts['variant']}`, "
    about += f"{facts['questions']} questions in each of the rounds, {facts['cores']} CPU cores, {facts['date']}; "
    about += "[`serving.json`](../benchmarks/results/serving.json) has every round."
    return "\n".join([*lines, "", about, ""])


async def first_answer(port: int, key: str, question: str) -> None:
    http_client = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key=key, timeout=600, http_client=http_client
    ) as client:
        await ask(client, "finetuned", question)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("variant", nargs="?", default="paper_135m")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    variant, key = Variant.load(options.variant), secrets.token_urlsafe()
    questions = list(pd.read_csv(variant.gold).Question.head(options.questions))
    with engine(variant, options.port, key) as started:
        asyncio.run(first_answer(options.port, key, questions[0]))
        start = round(time.perf_counter() - started, 1)
        print(f"first answer {start} s after the command")
        measured = asyncio.run(measure(options.port, key, questions, options.rounds))
    facts = {"variant": variant.name, "questions": len(questions), "cores": len(os.sched_getaffinity(0))}
    facts |= {"seconds_to_first_answer": start, "models": {model: summary(found) for model, found in measured.items()}}
    facts |= {
        "date": datetime.now(UTC).date().isoformat(),
        "git": provenance.git_state(),
        "machine": provenance.machine(),
    }
    for model, row in facts["models"].items():
        print(model, {name: value for name, value in row.items() if name != "rounds"})
    write_json(RESULTS, facts)
    marked.write(PAGE, "measured", table(facts))


if __name__ == "__main__":
    main()
