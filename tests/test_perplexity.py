"""Perplexity against plain re-computations, against the study's recipe and against lm-evaluation-harness."""

import copy
import math
import random
import socket

import pytest
import torch
import torch.nn.functional as F

from llama_qna import UserError
from llama_qna.evaluation.perplexity import perplexity, published_perplexity
from llama_qna.models.prompts import text_ids
from tests import fixtures_models as shared

TEXT = "The lid of the kettle weighs three kilograms, and <|im_end|> is only a word here. Its inventor was naïve. " * 3
PLAIN = TEXT.replace("<|im_end|>", "lid")  # lm-evaluation-harness would read the control token as one


class Bytes:
    """A tokenizer whose tokens are pieces of `width` bytes."""

    bos_token_id, eos_token_id, all_special_tokens = None, 0, []

    def __init__(self, width):
        self.width = width

    def __call__(self, text, **options):
        data = text.encode()
        pieces = [data[i : i + self.width] for i in range(0, len(data), self.width)]
        return {"input_ids": [int.from_bytes(piece, "big") for piece in pieces]}


@pytest.fixture(scope="module")
def tiny():
    return shared.tiny_llama()


@pytest.fixture(scope="module")
def ids():
    return text_ids(shared.tokenizer(), TEXT)


@pytest.fixture(scope="module")
def llama_tokenizer():
    """The embedded tokenizer as Llama's: it begins every text with a start token."""
    from tokenizers.processors import TemplateProcessing

    llama = copy.deepcopy(shared.tokenizer())
    llama.bos_token = "<|endoftext|>"
    llama.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", llama.bos_token_id)]
    )
    return llama


@torch.no_grad()
def token_by_token(model, ids, window, stride):
    """Nats of every token but the first, each from a forward of its own over the context that its window gives it."""
    nats = []
    for position in range(1, len(ids)):
        begin = 0
        while begin + window + (window == stride) <= position:  # the first window that scores the token
            begin += stride
        if window == stride:
            begin = min(begin, max(len(ids) - 1 - window, 0))  # the last one reaches back until it is full
        logits = model(torch.tensor([ids[begin:position]])).logits[0, -1].float()
        nats.append(F.cross_entropy(logits, torch.tensor(ids[position])).item())
    return nats


# --- windows ---------------------------------------------------------------------------------------------------------


def test_short_text_is_one_plain_forward():
    model, text = shared.float32_base(), TEXT[:150]
    ids = torch.tensor([text_ids(shared.tokenizer(), text)])
    with torch.no_grad():
        nats = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).item()
    scores = perplexity(model, shared.tokenizer(), text, window=512, stride=256)
    assert scores["perplexity"] == pytest.approx(math.exp(nats), rel=1e-4)
    assert scores["tokens"] == ids.shape[1] - 1


WINDOWS = [(2, 1), (8, 1), (16, 4), (16, 5), (16, 15), (60, 7), (1000, 500), (1, 1), (8, 8), (16, 16), (1000, 1000)]


@pytest.mark.parametrize(("window", "stride"), WINDOWS)
def test_windows_equal_token_by_token(tiny, ids, window, stride):
    nats = token_by_token(tiny, ids, window, stride)
    scores = perplexity(tiny, shared.tokenizer(), TEXT, window, stride)
    assert scores["tokens"] == len(ids) - 1 == len(nats)
    assert scores["nll"] == pytest.approx(sum(nats), rel=1e-4)
    assert scores["perplexity"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-3)
    assert (scores["window"], scores["stride"], scores["start_token"]) == (window, stride, False)


def test_windows_matter(tiny, ids):
    """Otherwise the test above would hold for any window."""
    sums = [sum(token_by_token(tiny, ids, *window)) for window in [(8, 1), (60, 7), (8, 8)]]
    assert all(abs(a - b) > 1e-3 * a for a, b in zip(sums, sums[1:] + sums[:1], strict=True))


@pytest.mark.parametrize("touching", [True, False])
def test_text_that_fills_its_windows_exactly(tiny, ids, touching):
    window = len(ids) - touching
    scores = perplexity(tiny, shared.tokenizer(), TEXT, window, window if touching else window // 2)
    assert scores["nll"] == pytest.approx(sum(token_by_token(tiny, ids, len(ids), len(ids))), rel=1e-4)
    assert scores["tokens"] == len(ids) - 1


@pytest.mark.parametrize("stride", [17, 0, -4])
def test_stride_that_would_skip_tokens_is_refused(tiny, stride):
    with pytest.raises(UserError, match=f"stride {stride} and window 16"):
        perplexity(tiny, shared.tokenizer(), TEXT, window=16, stride=stride)


@pytest.mark.parametrize("text", ["", "The"])
def test_text_without_a_token_to_score_is_refused(tiny, text, llama_tokenizer):
    with pytest.raises(UserError, match="at least two tokens"):
        perplexity(tiny, shared.tokenizer(), text, 16, 8)
    with pytest.raises(UserError, match="at least two tokens"):
        perplexity(tiny, llama_tokenizer, "", 16, 8)


@pytest.mark.parametrize(("window", "stride"), [(512, 256), (300, 300), (64, 16)])
def test_windows_go_in_batches_within_the_tile(window, stride):
    model, text = shared.tiny_llama(vocabulary=256), "".join(map(chr, random.Random(0).choices(range(32, 127), k=3000)))
    one = perplexity(model, Bytes(1), text, window, stride, batch_size=1)
    made = []
    model.register_forward_hook(lambda module, inputs, output: made.append(tuple(output.logits.shape)))
    scores = perplexity(model, Bytes(1), text, window, stride, batch_size=8)
    assert scores["nll"] == pytest.approx(one["nll"], rel=1e-5)
    assert sum(windows * scored for windows, scored, _ in made) == scores["tokens"] == 2999  # and no logits beside
    assert max(windows * scored for windows, scored, _ in made) <= 1024
    assert max(windows for windows, _, _ in made) == min(8, 1024 // stride)


def test_a_sample_is_the_same_windows_whether_alone_or_of_the_whole(tiny):
    def scores(**more):
        return perplexity(tiny, shared.tokenizer(), TEXT, 16, 8, **more)

    whole, alone = scores(sample=3), scores(sample=3, whole=False)
    assert {key: whole[key] for key in ("nll", "tokens", "bits_per_byte")} == {
        key: scores()[key] for key in ("nll", "tokens", "bits_per_byte")
    }
    assert 0 < alone["tokens"] == alone["sample"]["tokens"] == whole["sample"]["tokens"] < whole["tokens"]
    assert alone["nll"] == pytest.approx(whole["sample"]["nll"], rel=1e-5)


def test_scored_tokens_of_a_window_longer_than_a_tile():
    model, text = shared.tiny_llama(vocabulary=256), "".join(map(chr, random.Random(0).choices(range(32, 127), k=2000)))
    data = torch.tensor([list(text.encode())])
    with torch.no_grad():
        nats = F.cross_entropy(model(data).logits[0, :-1], data[0, 1:], reduction="sum").item()
    assert perplexity(model, Bytes(1), text, 2048, 1024)["nll"] == pytest.approx(nats, rel=1e-5)


def test_adapter_counts(tiny):
    """An attached adapter changes the score as it changes a plain forward."""
    from peft import LoraConfig, get_peft_model

    text = TEXT[:150]
    data = torch.tensor([text_ids(shared.tokenizer(), text)])
    adapted = get_peft_model(shared.tiny_llama(), LoraConfig(init_lora_weights=False, target_modules=["q_proj"])).eval()
    with torch.no_grad():
        nats = F.cross_entropy(adapted(data).logits[0, :-1], data[0, 1:], reduction="sum").item()
    score = perplexity(adapted, shared.tokenizer(), text, 512, 256)["nll"]
    assert score == pytest.approx(nats, rel=1e-5)
    assert score != pytest.approx(perplexity(tiny, shared.tokenizer(), text, 512, 256)["nll"], rel=1e-3)


# --- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "stride"), [(16, 4), (1000, 500), (16, 16)])
def test_uniform_model_has_the_vocabularys_perplexity(window, stride):
    model = shared.tiny_llama(seed=1)
    torch.nn.init.zeros_(model.lm_head.weight)
    scores = perplexity(model, shared.tokenizer(), TEXT, window, stride)
    assert scores["perplexity"] == pytest.approx(49152, rel=1e-4)


def test_bits_per_byte_agrees_with_perplexity(tiny):
    scores = perplexity(tiny, shared.tokenizer(), TEXT, 16, 8)
    bits = scores["tokens"] * math.log2(scores["perplexity"])
    assert len(TEXT.encode()) > len(TEXT)  # bytes, not characters
    assert scores["bits_per_byte"] == pytest.approx(bits / len(TEXT.encode()))


@pytest.mark.parametrize("width", [1, 2])
def test_bits_per_byte_does_not_depend_on_the_tokenizer(width):
    """A uniform model over bytes has eight bits a byte, one over pairs of bytes as well."""
    text, model = "abcd" * 64, shared.tiny_llama(vocabulary=256**width)
    torch.nn.init.zeros_(model.lm_head.weight)
    assert perplexity(model, Bytes(width), text, 64, 32)["bits_per_byte"] == pytest.approx(8, rel=0.01)


def test_text_of_many_tokens_a_character_is_scored_whole(tiny):
    text = "\U00013000\U0001d100" * 20
    ids = shared.tokenizer()(text)["input_ids"]
    assert len(ids) > len(text) + 8
    assert perplexity(tiny, shared.tokenizer(), text, 1000, 500)["tokens"] == len(ids) - 1


# --- the start token -------------------------------------------------------------------------------------------------


def test_start_token_lets_the_first_token_be_scored(tiny, ids, llama_tokenizer):
    scores, start = perplexity(tiny, llama_tokenizer, TEXT, 16, 8), llama_tokenizer.bos_token_id
    assert scores["nll"] == pytest.approx(sum(token_by_token(tiny, [start, *ids], 16, 8)), rel=1e-4)
    assert (scores["tokens"], scores["start_token"]) == (len(ids), True)
    assert scores["bits_per_byte"] == pytest.approx(scores["nll"] / math.log(2) / len(TEXT.encode()))


# --- beside others ---------------------------------------------------------------------------------------------------


def test_equals_lm_evaluation_harness(tiny, llama_tokenizer, monkeypatch):
    """Its rolling windows begin with the start token and read one token before those that they score."""
    pytest.importorskip("lm_eval", reason="pip install --no-deps lm-eval==0.4.13")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("reaches for the network"))
    for model, text, window in [(shared.float32_base(), PLAIN, 20), (tiny, PLAIN, 16), (tiny, PLAIN[:40], 500)]:
        options = {"prefix_token_id": llama_tokenizer.bos_token_id, "max_length": window, "batch_size": 4}
        harness = HFLM(pretrained=model, tokenizer=shared.tokenizer(), **options)
        request = Instance("loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
        (loglikelihood,) = harness.loglikelihood_rolling([request], disable_tqdm=True)
        tokens = len(shared.tokenizer()(text)["input_ids"])
        scores = perplexity(model, llama_tokenizer, text, window, stride=window)
        assert scores["tokens"] == tokens and (tokens < window or tokens > 3 * window)
        assert scores["perplexity"] == pytest.approx(math.exp(-loglikelihood / tokens), rel=1e-3)


def study(model, ids, window, stride):
    """The study's loop: the model's own loss (a mean) of each window, and the mean of these."""
    losses, before = [], 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        rows = torch.tensor([ids[begin:end]])
        labels = rows.clone()
        labels[:, : before - end] = -100
        with torch.no_grad():
            losses.append(model(rows, labels=labels).loss)
        before = end
        if end == len(ids):
            break
    return torch.stack(losses).mean().exp().item()


def test_published_perplexity_is_the_studys(tiny):
    texts = [f"Chunk {n} says that a lid of type {n * n} fits the kettle." for n in range(9)]
    drawn = random.Random(42).choices(texts, k=9)
    assert len(set(drawn)) < 9  # with replacement
    ids = text_ids(shared.tokenizer(), "\n\n".join(drawn))
    published = published_perplexity(tiny, shared.tokenizer(), texts, window=32, stride=16)
    assert published == pytest.approx(study(tiny, ids, 32, 16), rel=1e-4)
    totals = perplexity(tiny, shared.tokenizer(), "\n\n".join(drawn), 32, 16)["perplexity"]
    assert published != pytest.approx(totals, rel=1e-3)
    assert published != pytest.approx(published_perplexity(tiny, shared.tokenizer(), texts, 32, 16, seed=1), rel=1e-3)


def test_published_perplexity_without_chunks_is_refused(tiny):
    with pytest.raises(UserError, match="chunks"):
        published_perplexity(tiny, shared.tokenizer(), [])


def test_log_likelihoods_equal_the_plain_computation(monkeypatch):
    """Of answers of unlike lengths, whatever else is in the batch."""
    from llama_qna.models import likelihood

    model = shared.tiny_llama(vocabulary=100)
    prompts, answers = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]], [[20, 21, 2], [22, 2], [23, 24, 25, 2]]
    wanted = []
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        wanted.append(sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)) / len(answer))
    for size in (1, 3):
        monkeypatch.setattr(likelihood, "TOGETHER", size)
        assert likelihood.answer_log_likelihoods(model, prompts, answers) == pytest.approx(wanted, rel=1e-4)
