"""`models.attention`: what a model computes with plain products is what it computes with PyTorch's attention."""

import pytest
import torch

from llama_qna.models import attention, caches
from tests import fixtures_models as shared


@pytest.fixture
def states():
    """The last hidden states of a small Llama, by the name of the attention that it uses: (B, T, D)."""
    model = shared.tiny_llama(100)
    attention.use_products(model)

    def of(name: str, *args, **options):
        model.set_attn_implementation(name)
        with torch.inference_mode():
            return model.get_decoder()(*args, **options).last_hidden_state

    return of


def both(states, *args, **options):
    return states("sdpa", *args, **options), states(attention.NAME, *args, **options)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_rows_without_padding(states, length):
    wanted, found = both(states, torch.randint(0, 100, (3, length)))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_padding_wherever_it_stands(states, side, monkeypatch):
    monkeypatch.setattr(attention, "SCORES", 1)  # a row at a time
    mask = torch.ones(4, 150, dtype=torch.long)
    first = {"left": 0, "right": 130, "middle": 40}[side]
    for row, hidden in enumerate((0, 3, 11, 20)):
        mask[row, first : first + hidden] = 0
    options = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    wanted, found = both(states, torch.randint(0, 100, (4, 150)), **options)
    torch.testing.assert_close(found[mask == 1], wanted[mask == 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("more", [1, 70])
def test_tokens_after_a_cache(states, more):
    before, after = torch.randint(0, 100, (2, 90)), torch.randint(0, 100, (2, more))
    found = {}
    for name in ("sdpa", attention.NAME):
        cache = caches.roomy()
        states(name, before, past_key_values=cache)
        found[name] = states(name, after, past_key_values=cache)
    torch.testing.assert_close(found[attention.NAME], found["sdpa"], rtol=1e-4, atol=1e-5)


def test_a_base_on_a_cpu_computes_so_and_its_configuration_names_nothing_of_ours():
    base = shared.float32_base()
    assert base.config._attn_implementation == attention.NAME
    assert attention.NAME not in base.config.to_json_string()


def test_gradients_are_those_of_pytorchs_attention():
    model = shared.tiny_llama(100)
    attention.use_products(model)
    input_ids, found = torch.randint(0, 100, (2, 40)), {}
    for name in ("sdpa", attention.NAME):
        model.set_attn_implementation(name)
        model.zero_grad()
        model(input_ids, labels=input_ids).loss.backward()
        found[name] = model.get_input_embeddings().weight.grad.clone()
    torch.testing.assert_close(found[attention.NAME], found["sdpa"])
