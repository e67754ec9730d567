"""`models.attention`: what a model computes with plain products is what it computes with PyTorch's attention."""

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

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


# --- what layers of other models ask ----------------------------------------------------------------------------------


class Layer:
    """As much of an attention layer as is looked at."""

    num_key_value_groups = 2

    def __init__(self, is_causal: bool = True):
        self.is_causal = is_causal


def window(length, seen, before, after):
    """Which of `seen` keys each of `length` queries at their end sees, by its distance: (1, 1, T, K)."""
    distance = torch.arange(seen) - torch.arange(seen - length, seen)[:, None]
    return ((distance >= -before) & (distance <= after))[None, None]


CAUSAL = window(150, 150, 150, 0)
ASKED = {
    "a sliding window": (150, 150, window(150, 150, 20, 0), {}),
    "a mask of one row for all": (90, 150, window(90, 150, 150, 0), {}),
    "a mask for each head": (150, 150, CAUSAL.repeat(3, 4, 1, 1), {}),
    "numbers to add": (150, 150, torch.where(CAUSAL, 0.5, -1e9) * torch.rand(150), {}),
    "an encoder by its mask": (150, 150, torch.ones(3, 1, 150, 150, dtype=torch.bool), {}),
    "a few queries that see later keys": (150, 150, CAUSAL | window(150, 150, 0, 40) & (torch.arange(150) < 90), {}),
    "an encoder by its layer": (150, 150, None, {"layer": Layer(is_causal=False)}),
    "an encoder by its call": (150, 150, None, {"is_causal": False}),
    "fewer queries than keys, and no mask": (70, 150, None, {}),
    "more queries than keys": (150, 40, torch.ones(1, 1, 150, 40, dtype=torch.bool), {}),
    "one query, and no mask": (1, 150, None, {"is_causal": False}),
    "a bias": (150, 150, CAUSAL, {"position_bias": torch.rand(1, 4, 150, 150)}),
    "values of another width": (150, 150, CAUSAL, {"width": 24}),
    "a scale": (150, 150, CAUSAL, {"scaling": 0.3}),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_layer_gets_what_pytorchs_attention_gives_it(asked):
    length, seen, mask, options = ASKED[asked]
    width, layer = options.get("width", 16), options.get("layer", Layer())
    options = {name: value for name, value in options.items() if name not in ("width", "layer")}
    torch.manual_seed(0)
    states = torch.randn(3, 4, length, 16), torch.randn(3, 2, seen, 16), torch.randn(3, 2, seen, width)
    with torch.inference_mode():
        wanted, _ = sdpa_attention_forward(layer, *states, mask, **options)
        found, _ = attention.products(layer, *states, mask, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_pytorchs_attention_refuses_is_refused():
    states = torch.randn(3, 4, 9, 16), torch.randn(3, 2, 9, 16), torch.randn(3, 2, 9, 16)
    with torch.inference_mode(), pytest.raises(ValueError, match="softcap"):
        attention.products(Layer(), *states, None, softcap=30.0)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        attention.products(Layer(), *states, torch.ones(2, 1, 9, 9, dtype=torch.bool))
