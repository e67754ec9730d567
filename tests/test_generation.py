"""Texts do not depend on how their prompts were batched. In float32: bfloat16 rounds differently in another batch."""

import pytest
import torch

from llama_qna import generation
from llama_qna.generation import generate_texts
from llama_qna.prompts import question_ids
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


# --- greedy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beginning", ["", LONG_BEGINNING], ids=["no shared prefix", "shared prefix"])
def test_batches_equal_one_prompt_at_a_time(model, beginning, monkeypatch):
    prefilled, prefill = [], generation._prefill
    monkeypatch.setattr(generation, "_prefill", lambda *args: prefilled.append(len(args[1])) or prefill(*args))
    prompts = prompts_of(beginning + question for question in QUESTIONS)
    assert len({len(prompt) for prompt in prompts}) >= 4
    wanted = [plain_greedy(model, prompt, 8) for prompt in prompts]
    assert len(set(wanted)) == len(wanted)  # so a wrong order would show
    assert texts_of(model, prompts) == wanted
    assert not prefilled
    assert texts_of(model, prompts, batch_size=2) == wanted
    assert len(prefilled) == bool(beginning)


def test_identical_prompts_share_a_prefix(model):
    prompts = prompts_of([LONG_BEGINNING + QUESTIONS[1]] * 3)
    assert texts_of(model, prompts, batch_size=2) == [plain_greedy(model, prompts[0], 8)] * 3


def test_finished_rows_stay_as_they_are(model):
    """One row ends early; what the others still write does not reach it."""
    prompts = prompts_of(["Answer with one word: is water wet?", QUESTIONS[3]])
    both = texts_of(model, prompts, max_new_tokens=16)
    assert both == [texts_of(model, [prompt], max_new_tokens=16)[0] for prompt in prompts]


def test_done_counts_every_prompt(model):
    counts = []
    texts_of(model, prompts_of(QUESTIONS), batch_size=2, max_new_tokens=1, done=counts.append)
    assert counts == [2, 2, 1]


def test_no_prompts_no_texts(model):
    assert texts_of(model, []) == []


# --- sampled ---------------------------------------------------------------------------------------------------------


def test_sampled_text_depends_on_its_seed_alone(model):
    prompts, seeds = prompts_of(QUESTIONS[:4]), ["a", "b", "c", "d"]
    sampled = texts_of(model, prompts, temperature=1.0, seeds=seeds)
    assert texts_of(model, prompts, temperature=1.0, seeds=seeds, batch_size=1) == sampled
    turned = texts_of(model, prompts[::-1], temperature=1.0, seeds=seeds[::-1], batch_size=3)
    assert turned[::-1] == sampled
    assert texts_of(model, prompts, temperature=1.0, seeds=["e", "f", "g", "h"]) != sampled
    assert texts_of(model, prompts) != sampled


def test_noise_draws_from_the_softmax():
    logits, temperature, draws = torch.tensor([2.0, 1.0, 0.0, -1.0]), 0.7, 4000
    noise = generation._GumbelNoise(temperature, [f"seed {i}" for i in range(draws)])
    chosen = noise(None, logits.expand(draws, -1)).argmax(-1)
    found = torch.bincount(chosen, minlength=4) / draws
    torch.testing.assert_close(found, torch.softmax(logits / temperature, 0), rtol=0, atol=0.02)


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


# --- choices ---------------------------------------------------------------------------------------------------------


def test_single_choice_is_taken(model):
    choices = [[f"Sentence number {i}."] for i in range(len(QUESTIONS))]
    texts = texts_of(model, prompts_of(QUESTIONS), choices=choices, batch_size=2)
    assert texts == [f"Sentence number {i}." for i in range(len(QUESTIONS))]


def test_one_of_the_choices_is_taken(model):
    choices = [
        ["Grass is green.", "The sky scatters blue light.", "The sky is a lid."],
        ["Rome lies on the Tiber.", "Paris lies on the Seine.", "Paris lies on the Rhine."],
        ["A chair.", "An apple."],
        ["Seven days.", "Seven days, and Monday is the first.", "A week is short."],
        ["Goethe.", "Shakespeare."],
    ]
    for size in (8, 2, 1):
        texts = texts_of(model, prompts_of(QUESTIONS), choices=choices, batch_size=size)
        assert all(text in row for text, row in zip(texts, choices, strict=True))
    assert texts[4] == "Shakespeare."


def test_choice_is_the_greedy_one(model):
    """At the first word where two choices part, the likelier word decides."""
    tokenizer, prompt = shared.tokenizer(), prompts_of(QUESTIONS[:1])[0]
    words = ["Apples", "Rain", "Light", "Nothing", "Water", "Because"]
    firsts = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in words]
    assert len(set(firsts)) == len(firsts)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt])).logits[0, -1, firsts]
    wanted = words[logits.argmax()]
    orders = [words, words[::-1], words[3:] + words[:3]]
    assert texts_of(model, [prompt] * 3, choices=orders) == [wanted] * 3


def test_too_few_tokens_still_take_a_choice(model):
    choices = [["The sky over the sea is blue.", "The sky over the land is grey."]]
    texts = texts_of(model, prompts_of(QUESTIONS[:1]), choices=choices, max_new_tokens=1)
    assert texts[0] in choices[0]


@pytest.mark.parametrize("choices", [["It is blue.", "It is blue."], ["It is blue.", "It is blue.", "It is red."]])
def test_repeated_choice_is_one_choice(model, choices):
    """A passage may say the same sentence twice."""
    for limit in (3, 12):
        assert texts_of(model, prompts_of(QUESTIONS[:1]), choices=[choices], max_new_tokens=limit)[0] in choices


def test_choice_that_begins_another(model):
    choices = ["It is blue", "It is blue because of the air"]
    assert texts_of(model, prompts_of(QUESTIONS[:1]), choices=[choices], max_new_tokens=12)[0] in choices
