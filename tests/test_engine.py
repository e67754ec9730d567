"""The engine itself, vLLM in its own environment on the embedded model: the `openai` client and hostile requests."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pandas as pd
import pytest
import torch

from llama_qna import UserError
from llama_qna.answering.answerer import Answerer
from llama_qna.models import prompts
from llama_qna.project.systems import SYSTEMS, is_given_passages
from llama_qna.project.variant import REPOSITORY
from llama_qna.serving.engine import ENVIRONMENT, KEY_VARIABLE
from llama_qna.serving.engine_client import EngineAnswerer, answerer_for
from tests import fixtures_models as shared
from tests.fixtures_models import small_run_fixture  # noqa: F401

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ENVIRONMENT / "bin" / "python").is_file(), reason="the engine is not installed: `make serve`"
    ),
]
KEY = "a-key-of-the-tests"
MODELS = ("base", "pretrained", "finetuned")
QUESTIONS = list(pd.read_csv(REPOSITORY / "data" / "paper" / "gold.csv").Question.head(10))
OFFLINE = {"trust_env": False, "timeout": 120}  # no proxy of the environment


@pytest.fixture(scope="module")
def url(small_run, tmp_path_factory):
    """The engine with the small run's models, started by the real command; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("engine") / "log"
    environment = os.environ | {"LLAMA_QNA_ROOT": str(small_run.variant.root), KEY_VARIABLE: KEY}
    with open(log, "w") as file:
        engine = subprocess.Popen(
            [sys.executable, "-m", "llama_qna", "serve", "small", "--port", str(port)],
            cwd=REPOSITORY, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(240):
            if engine.poll() is None and is_healthy(f"http://127.0.0.1:{port}"):
                break
            assert engine.poll() is None, log.read_text()[-3000:]
            time.sleep(0.5)
        else:
            pytest.fail(f"the engine did not start within two minutes: {log.read_text()[-3000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(engine.pid, signal.SIGTERM)
        engine.wait(30)


def is_healthy(url):
    try:
        return httpx.get(f"{url}/health", **OFFLINE).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def asked(client, question=QUESTIONS[0], **options):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(**{"model": "finetuned", "messages": messages} | options)


@pytest.fixture
def still_well(url, client):
    """After the test the engine is healthy and answers as before it."""
    before = asked(client).choices[0].message.content
    yield
    assert is_healthy(url) and asked(client).choices[0].message.content == before


# --- what it serves --------------------------------------------------------------------------------------------------


def test_models_and_health(url, client):
    assert is_healthy(url)
    assert {model.id for model in client.models.list()} == set(MODELS)


def test_the_models_are_those_of_this_process(client, small_run):
    """The likelihood of the first word, against transformers with the adapters on the same weights."""
    answerer = Answerer(small_run.variant)
    ids = answerer.prompt_ids(QUESTIONS[0])
    for name in MODELS:
        with torch.inference_mode():
            wanted = answerer._load(name)(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        reply = client.completions.create(model=name, prompt=ids, max_tokens=1, temperature=0, logprobs=1)
        assert reply.choices[0].logprobs.token_logprobs[0] == pytest.approx(wanted.max().item(), abs=0.1)


def test_the_base_stays_itself_beside_adapters(client):
    """In one batch with requests for the adapters it gives the likelihoods that it gives alone."""
    ids = prompts.question_ids(shared.tokenizer(), QUESTIONS[0])

    def likelihoods(model):
        reply = client.completions.create(model=model, prompt=ids, max_tokens=8, temperature=0, logprobs=1)
        return reply.choices[0].logprobs.token_logprobs

    alone = {name: likelihoods(name) for name in MODELS}
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(likelihoods, MODELS * 4))
    for name, found in zip(MODELS * 4, together, strict=True):
        assert found[0] == pytest.approx(alone[name][0], abs=0.05)


@pytest.mark.parametrize("model", MODELS)
def test_a_bare_question_gets_the_prompt_of_training(client, model):
    for question in QUESTIONS:
        ids = prompts.question_ids(shared.tokenizer(), question)
        chat = asked(client, question, model=model)
        assert chat.usage.prompt_tokens == len(ids)
        direct = client.completions.create(model=model, prompt=ids, temperature=0, max_tokens=4)
        assert chat.choices[0].message.content == direct.choices[0].text
        assert chat.usage.completion_tokens <= 4, "the recipe's longest answer"


def test_a_stream_adds_up_to_the_answer(client):
    pieces = [chunk.choices[0].delta.content or "" for chunk in asked(client, stream=True)]
    assert len(pieces) > 2 and "".join(pieces) == asked(client).choices[0].message.content


def test_64_clients_at_once_are_all_answered(url):
    async def one(client, number):
        question = f"{QUESTIONS[number % len(QUESTIONS)]} Say it in {number + 5} words."
        messages = [{"role": "user", "content": question}]
        model = MODELS[number % len(MODELS)]
        stream = await client.chat.completions.create(model=model, messages=messages, stream=True, max_tokens=16)
        chunks = [chunk.choices[0] async for chunk in stream]
        return "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason

    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=300) as client:
            return await asyncio.gather(*(one(client, number) for number in range(64)))

    answers = asyncio.run(all_at_once())
    assert len(answers) == 64 and {reason for _, reason in answers} <= {"stop", "length"}
    assert all(text.strip() for text, _ in answers)
    assert is_healthy(url)


# --- what it refuses -------------------------------------------------------------------------------------------------


def test_a_bad_key(url, still_well):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger:
        for request in (stranger.models.list, lambda: asked(stranger)):
            with pytest.raises(openai.AuthenticationError):
                request()


def test_an_overlong_prompt(client, still_well):
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        asked(client, "why " * 5000)


def test_an_unknown_model(client, still_well):
    with pytest.raises(openai.NotFoundError):
        asked(client, model="gpt-4")


@pytest.mark.parametrize("max_tokens", [-1, 0])
def test_max_tokens_below_one(client, still_well, max_tokens):
    with pytest.raises(openai.BadRequestError):
        asked(client, max_tokens=max_tokens)


def test_huge_max_tokens(client, still_well):
    """They end where the context does, or are refused."""
    try:
        reply = asked(client, max_tokens=10**9)
    except openai.BadRequestError:
        return
    assert reply.usage.total_tokens <= 2048


def post(url, content):
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return httpx.post(f"{url}/v1/chat/completions", content=content, headers=headers, **OFFLINE)


@pytest.mark.parametrize(
    "content", [b'{"model": "finetuned", "messages": [', b"", b"[]", b"\xff\xfe", b'{"model": "finetuned"}']
)
def test_broken_json(url, still_well, content):
    assert post(url, content).status_code in (400, 422)


def test_a_body_of_10_mb(url, still_well):
    body = b'{"model": "finetuned", "messages": [{"role": "user", "content": "' + b"why " * 2_500_000 + b'"}]}'
    assert post(url, body).status_code in (400, 413)


def test_a_client_that_hangs_up(url, client, still_well):
    for _ in range(8):
        stream = asked(client, stream=True, model="base", max_tokens=1000)
        next(iter(stream))
        stream.close()


# --- our own client --------------------------------------------------------------------------------------------------


@pytest.fixture
def answerer(url, small_run):
    return EngineAnswerer(small_run.variant, f"{url}/v1", KEY)


def test_every_system_through_the_engine(answerer):
    questions = QUESTIONS[:4]
    for system in SYSTEMS:
        answers = answerer.answer(questions, system)
        assert len(answers) == 4 and all(bool(answer.sources) == is_given_passages(system) for answer in answers)
        alone = answerer.answer(questions[:1], system)[0].text  # in a batch, sums are rounded in another way
        assert "".join(answerer.stream(questions[0], system)) == alone


def test_a_key_or_a_place_that_is_wrong(url, small_run, monkeypatch):
    variant = small_run.variant
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(UserError, match="refuses the key; set LLAMA_QNA_API_KEY"):
        EngineAnswerer(variant, f"{url}/v1")
    with pytest.raises(UserError, match="no engine answers"):
        EngineAnswerer(variant, "http://127.0.0.1:9/v1")
    assert isinstance(answerer_for(variant, f"{url}/v1"), Answerer)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert isinstance(answerer_for(variant, f"{url}/v1"), EngineAnswerer)


def test_another_variant_is_not_taken_for_this_one(url, small_run, tmp_path):
    other = shared.write_variant(tmp_path)
    with pytest.raises(UserError, match="does not serve small"):
        EngineAnswerer(other, f"{url}/v1", KEY)
