"""`models.generate` and `models.likelihood`: texts and their scores do not depend on how prompts were batched.

In float32: bfloat16 rounds differently in another batch.
"""

from types import SimpleNamespace

import pytest
import torch

from llama_qna.models import batches, caches, generate, likelihood, plan
from llama_qna.models.batches import in_batches
from llama_qna.models.generate import continue_prompts, generate_texts
from llama_qna.models.likelihood import candidate_log_likelihoods
from llama_qna.models.prompts import encode_document, question_ids
from llama_qna.models.shapes import shapes_in
from tests import fixtures_models as shared

QUESTIONS = [
    "Why is the sky blue?",
    "What is the capital of France, and which river flows through it?",
    "Name a fruit.",
    "How many days does a week have, and which of them is the first one in most calendars of Europe?",
    "Who wrote the play Hamlet?",
]
LONG_BEGINNING = (
    "Please answer in one short sentence, without any introduction and without repeating the question itself: "
)


@pytest.fixture(scope="module")
def model():
    """On one thread: in steps of one token, two threads on a busy machine mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield shared.float32_base()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny():
    """For what holds of any model: its texts mean nothing, but each word depends on those before it."""
    return shared.tiny_llama()


def prompts_of(questions):
    return [question_ids(shared.tokenizer(), question) for question in questions]


def texts_of(model, prompts, **options):
    options = {"max_new_tokens": 8, "batch_size": 8} | options
    return generate_texts(model, shared.tokenizer(), prompts, **options)


@torch.inference_mode()
def plain_greedy(model, prompt, tokens):
    """One prompt, one token at a time, without `generate`."""
    ids, cache, given = torch.tensor([prompt]), None, []
    while len(given) < tokens:
        output = model(ids, past_key_values=cache, use_cache=True)
        cache, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
        if ids.item() == shared.tokenizer().eos_token_id:
            break
        given.append(ids.item())
    return shared.tokenizer().decode(given).strip()


def test_likelihoods_are_those_of_the_texts_scored_afterwards(tiny):
    prompts, dash = prompts_of(QUESTIONS), encode_document(shared.tokenizer(), " -")[0]
    found = continue_prompts(tiny, shared.tokenizer(), prompts, max_new_tokens=4, batch_size=8, watch=dash)
    ids = [encode_document(shared.tokenizer(), text.text) for text in found]
    whole = [n for n, text in enumerate(found) if not text.ended and len(ids[n]) == 4]  # decoded and back, unchanged
    assert whole
    scored = candidate_log_likelihoods(tiny, [prompts[n] for n in whole], [ids[n] for n in whole])
    assert [found[n].likelihood for n in whole] == pytest.approx(scored, abs=1e-3)
    watched = candidate_log_likelihoods(tiny, prompts, [[dash]] * len(prompts))
    assert [text.watched for text in found] == pytest.approx(watched, abs=1e-3)


def test_a_prompt_that_comes_twice_is_read_once_and_each_row_has_its_own_temperature(tiny, monkeypatch):
    prompts, read = prompts_of(QUESTIONS[:2]) * 2, []
    pad = generate._pad_after_prefix
    monkeypatch.setattr(generate, "_pad_after_prefix", lambda rows, prefix: read.append(len(rows)) or pad(rows, prefix))
    options = {"seeds": list("abcd"), "temperature": [0.0, 0.0, 5.0, 5.0]}
    texts = texts_of(tiny, prompts, **options)
    assert read == [2]
    assert texts[:2] == texts_of(tiny, prompts[:2])
    assert texts[2:] == texts_of(tiny, prompts[2:], seeds=list("cd"), temperature=5.0)
    assert texts[:2] != texts[2:]


# --- greedy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beginning", ["", LONG_BEGINNING], ids=["no shared prefix", "shared prefix"])
def test_batches_equal_one_prompt_at_a_time(tiny, beginning, monkeypatch):
    computed, shared_beginning = [], generate.shared_beginning
    monkeypatch.setattr(
        generate, "shared_beginning", lambda *args: computed.append(shared_beginning(*args)) or computed[-1]
    )
    prompts = prompts_of(beginning + question for question in QUESTIONS)
    assert len({len(prompt) for prompt in prompts}) >= 4
    wanted = [plain_greedy(tiny, prompt, 8) for prompt in prompts]
    assert len(set(wanted)) == len(wanted)  # so a wrong order would show
    for times, size in enumerate((8, 2), start=1):
        assert texts_of(tiny, prompts, batch_size=size) == wanted
        assert len(computed) == times and all(bool(cache) == bool(beginning) for _, cache in computed), "once a call"


def test_identical_prompts_share_a_prefix(tiny):
    prompts = prompts_of([LONG_BEGINNING + QUESTIONS[1]] * 3)
    assert texts_of(tiny, prompts, batch_size=2) == [plain_greedy(tiny, prompts[0], 8)] * 3


def test_finished_rows_stay_as_they_are(model):
    """One row ends early; what the others still write does not reach it."""
    prompts = prompts_of(["Answer with one word: is water wet?", QUESTIONS[3]])
    both = texts_of(model, prompts, max_new_tokens=16)
    assert both == [texts_of(model, [prompt], max_new_tokens=16)[0] for prompt in prompts]


def test_ended_is_what_the_model_did_and_not_the_limit(model):
    prompts = prompts_of(["Answer with one word: is water wet?", QUESTIONS[3]])
    texts = texts_of(model, prompts, max_new_tokens=32)
    short, long = (len(encode_document(shared.tokenizer(), text)) for text in texts)
    assert short < long < 32
    for limit, ended in ((long, False), (long + 1, True)):  # the token that ends a text needs a place of its own
        found = continue_prompts(model, shared.tokenizer(), prompts, batch_size=2, max_new_tokens=limit)
        assert [(text.text, text.ended) for text in found] == [(texts[0], True), (texts[1], ended)]


def test_a_line_break_ends_a_text_too(model):
    options = {"batch_size": 1, "max_new_tokens": 48}
    list_of = prompts_of(["List three fruits, one a line."])
    (line,) = continue_prompts(model, shared.tokenizer(), list_of, stop_at_newline=True, **options)
    assert line.ended and line.text


def test_done_counts_every_prompt(tiny):
    counts = []
    texts_of(tiny, prompts_of(QUESTIONS), batch_size=2, max_new_tokens=1, done=counts.append)
    assert counts == [2, 2, 1]


def test_no_prompts_no_texts(tiny):
    assert texts_of(tiny, []) == []


# --- sampled ---------------------------------------------------------------------------------------------------------


def test_sampled_text_depends_on_its_seed_alone(tiny):
    prompts, seeds = prompts_of(QUESTIONS[:4]), ["a", "b", "c", "d"]
    sampled = texts_of(tiny, prompts, temperature=1.0, seeds=seeds)
    assert texts_of(tiny, prompts, temperature=1.0, seeds=seeds, batch_size=1) == sampled
    turned = texts_of(tiny, prompts[::-1], temperature=1.0, seeds=seeds[::-1], batch_size=3)
    assert turned[::-1] == sampled
    assert texts_of(tiny, prompts, temperature=1.0, seeds=["e", "f", "g", "h"]) != sampled
    assert texts_of(tiny, prompts) != sampled


def test_noise_draws_from_the_softmax():
    logits, temperature, draws = torch.tensor([2.0, 1.0, 0.0, -1.0]), 0.7, 4000
    choice = generate._Choice([temperature] * draws, [f"seed {i}" for i in range(draws)])
    chosen = torch.tensor(choice(logits.expand(draws, -1), list(range(draws))))
    found = torch.bincount(chosen, minlength=4) / draws
    torch.testing.assert_close(found, torch.softmax(logits / temperature, 0), rtol=0, atol=0.02)


def test_draws_are_those_of_each_row_alone():
    """To the bit: the pairs that were published were drawn row by row."""
    logits, temperature, seeds = torch.randn(3, 49152) * 4, 0.6, ["a", "b", "c"]
    choice, alone = (generate._Choice([temperature] * len(seeds), seeds) for _ in range(2))
    for rows in ([0, 1, 2], [0, 2], [2]):
        wanted = []
        for row in rows:
            uniform = torch.rand(49152, generator=alone.generators[row]).clamp(1e-10, 1 - 1e-7)
            wanted.append((logits[row] / temperature - torch.log(-torch.log(uniform))).argmax().item())
        assert choice(logits[rows], rows) == wanted


# --- memory ----------------------------------------------------------------------------------------------------------


def test_fewer_rows_when_memory_runs_out(capsys):
    done, tried = [], []

    def work(batch):
        tried.append(len(batch))
        if len(batch) > 3:
            raise RuntimeError("CUDA out of memory")
        done.extend(batch)

    in_batches(list(range(10)), 8, work)
    assert done == list(range(10)) and tried == [8, 4, 2, 2, 2, 2, 2]
    assert capsys.readouterr().err.count("out of memory with") == 2
    with pytest.raises(RuntimeError, match="out of memory"):
        in_batches([1, 2], 2, lambda batch: work(batch * 4))
    with pytest.raises(RuntimeError, match="another"):
        in_batches([1, 2], 2, lambda batch: (_ for _ in ()).throw(RuntimeError("another")))


def test_texts_are_the_same_with_fewer_rows(tiny, monkeypatch):
    prompts, seeds = prompts_of(QUESTIONS), list("abcde")
    wanted, write = texts_of(tiny, prompts, temperature=1.0, seeds=seeds), generate._write

    def short_of_memory(tiny, prompts, *rest):
        texts = write(tiny, prompts, *rest)
        if len(prompts) > 2:
            raise RuntimeError("CUDA out of memory")
        return texts

    monkeypatch.setattr(generate, "_write", short_of_memory)
    assert texts_of(tiny, prompts, temperature=1.0, seeds=seeds) == wanted


def test_a_gpu_gets_the_rows_that_its_free_memory_holds(monkeypatch):
    """Longer prompts, fewer rows; a stand-in for 7B on a GPU."""
    config = {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32}
    config = SimpleNamespace(to_dict=lambda told=config: told | {"vocab_size": 32000})
    seven = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float16, config=config)
    monkeypatch.setattr(batches, "available_memory", lambda device: 16 * 2**30)
    closed_book, with_passages = (batches.rows_that_fit(seven, length, 200) for length in (128, 900))
    assert closed_book > 32 > with_passages > 8
    cache = 32 * 2 * 4096 * 2 * (900 + 200)
    assert with_passages * cache < 16 * 2**30
    assert batches.rows_that_fit(shared.tiny_llama(100), 900, 200) == plan.CPU_TOKENS // 900


@torch.inference_mode()
def test_a_row_takes_the_cache_that_the_plan_counts():
    model = shared.tiny_llama(100)
    cache = caches.roomy()
    model(torch.randint(0, 100, (1, 40)), past_key_values=cache, use_cache=True)
    kept = sum(room.nbytes for layer in cache.layers for room in layer.room)
    planned, _ = plan.answering_row(shapes_in(model.config.to_dict()), 40, 0, 4)
    assert kept * (1 + 2 / 2) == planned  # and one layer's while they grow, old and new


# --- line ends -------------------------------------------------------------------------------------------------------


def test_stop_at_newline_ends_the_text_and_the_work(model):
    prompt = shared.tokenizer()("Shopping list:\n- milk\n- bread\n- eggs\n-")["input_ids"]
    steps = []
    hook = model.register_forward_hook(lambda *_: steps.append(1))
    try:
        whole = texts_of(model, [prompt], max_new_tokens=12)
        all_steps = len(steps)
        line = texts_of(model, [prompt], max_new_tokens=12, stop_at_newline=True)
        line_steps = len(steps) - all_steps
    finally:
        hook.remove()
    assert "\n" in whole[0]
    assert line == [whole[0].split("\n")[0].strip()]
    assert line_steps < all_steps


def test_newline_ends_one_row_and_not_the_other(model):
    encode = shared.tokenizer()
    prompts = [encode("Shopping list:\n- milk\n- bread\n- eggs\n-")["input_ids"], prompts_of(QUESTIONS[3:4])[0]]
    both = texts_of(model, prompts, max_new_tokens=12, stop_at_newline=True)
    assert both == [texts_of(model, [prompt], max_new_tokens=12, stop_at_newline=True)[0] for prompt in prompts]
    assert len(encode(both[1])["input_ids"]) > len(encode(both[0])["input_ids"])


# --- likelihoods -----------------------------------------------------------------------------------------------------

TEXTS = ["Air scatters blue light most.", "Paris.", "A pear", "Seven, and Monday is the first of them.", "Goethe did."]


def log_likelihoods(model, prompts, texts):
    candidates = [shared.tokenizer()(f" {text}", add_special_tokens=False)["input_ids"] for text in texts]
    return candidate_log_likelihoods(model, prompts, candidates)


@torch.inference_mode()
def plain_likelihood(model, prompt, text):
    """Mean log-probability of the text's tokens, from the logits of one whole forward pass."""
    end = shared.tokenizer()(f" {text}", add_special_tokens=False)["input_ids"]
    logits = model(torch.tensor([prompt + end])).logits[0, len(prompt) - 1 : -1].double()
    return torch.log_softmax(logits, -1)[torch.arange(len(end)), end].mean().item()


@pytest.mark.parametrize("beginning", ["", LONG_BEGINNING], ids=["no shared prefix", "shared prefix"])
def test_likelihoods_equal_the_plain_computation(tiny, beginning, monkeypatch):
    prompts = prompts_of(beginning + question for question in QUESTIONS)
    wanted = [plain_likelihood(tiny, prompt, text) for prompt, text in zip(prompts, TEXTS, strict=True)]
    assert len({round(value, 3) for value in wanted}) == len(wanted)  # so a wrong order would show
    for size in (1000, 40, 1):
        monkeypatch.setattr(likelihood, "PACKED", size)
        assert log_likelihoods(tiny, prompts, TEXTS) == pytest.approx(wanted, abs=1e-4)
    turned = log_likelihoods(tiny, prompts[::-1], TEXTS[::-1])
    assert turned[::-1] == pytest.approx(wanted, abs=1e-4)


def test_likelihoods_of_texts_after_one_prompt(tiny):
    """All of the prompt is shared; its last token must still be there to tell the first of each text."""
    prompt = prompts_of([LONG_BEGINNING + QUESTIONS[1]])[0]
    wanted = [plain_likelihood(tiny, prompt, text) for text in TEXTS[:3]]
    found = log_likelihoods(tiny, [prompt] * 3, TEXTS[:3])
    assert found == pytest.approx(wanted, abs=1e-4)
    twice = log_likelihoods(tiny, [prompt] * 2, TEXTS[:1] * 2)
    assert twice == pytest.approx(wanted[:1] * 2, abs=1e-4)


def test_likelihood_tells_sense_from_nonsense(model):
    prompt = prompts_of(["Which city is the capital of France?"])[0]
    texts = ["Paris.", "Granite.", "Banana."]
    found = log_likelihoods(model, [prompt] * 3, texts)
    assert max(found) == found[0] < 0


def test_no_prompts_no_likelihoods(tiny):
    assert log_likelihoods(tiny, [], []) == []
