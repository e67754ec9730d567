"""The quick training step against the plain one: same loss, same gradients."""

import pytest
import torch
import torch.nn.functional as F

from llama_qna import kernels
from tests import fixtures_models as shared


def states(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("tile", [3, 128])
def test_cross_entropy_under_a_frozen_head(tile, monkeypatch):
    monkeypatch.setattr(kernels, "TILE", tile)
    hidden, head = states(10, 8).requires_grad_(), states(50, 8, seed=1)
    targets = torch.arange(10) * 4
    wanted = F.cross_entropy(hidden @ head.T, targets, reduction="sum")
    (gradient,) = torch.autograd.grad(wanted, hidden)
    found = kernels.cross_entropy(hidden, head, targets)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)
    (3 * found).backward()
    torch.testing.assert_close(hidden.grad, 3 * gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tile", [3, 128])
def test_divergence_under_a_frozen_head(tile, monkeypatch):
    monkeypatch.setattr(kernels, "TILE", tile)
    hidden, head, expected = states(10, 8).requires_grad_(), states(50, 8, seed=1), states(10, 8, seed=2)
    found, wanted = (F.log_softmax(x @ head.T, -1) for x in (hidden, expected))
    plain = F.kl_div(found, wanted, reduction="sum", log_target=True)
    (gradient,) = torch.autograd.grad(plain, hidden)
    quick = kernels.divergence(hidden, head, expected)
    torch.testing.assert_close(quick.double(), plain, rtol=1e-6, atol=0)
    quick.backward()
    torch.testing.assert_close(hidden.grad, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [5, kernels.QUERIES, kernels.QUERIES + 7])
def test_short_attention_is_attention_with_shared_heads(length):
    query = states(2, 6, length, 4).requires_grad_()
    key, value = (states(2, 2, length, 4, seed=seed).requires_grad_() for seed in (1, 2))
    mask = torch.ones(2, 1, length, length, dtype=torch.bool).tril()
    mask[1, :, :, -2:] = False  # the second row is padded
    mask[1, :, -2:, :2] = True
    bias = torch.zeros(mask.shape, dtype=torch.float64).masked_fill_(~mask, torch.finfo(torch.float64).min)
    wanted = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True)
    found = kernels.short_attention(query, key, value, bias, 0.3)
    torch.testing.assert_close(found, wanted)
    weights = states(*wanted.shape, seed=3)
    inputs = (query, key, value)
    for plain, quick in zip(
        torch.autograd.grad((wanted * weights).sum(), inputs), torch.autograd.grad((found * weights).sum(), inputs),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(quick, plain)


def with_adapters(dropout=0.0):
    """A tiny float32 Llama with adapters that have learnt something, each base layer keeping a copy of its weights."""
    from peft import LoraConfig, get_peft_model

    model = shared.tiny_llama(vocabulary=100).requires_grad_(False)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", lora_dropout=dropout))
    torch.manual_seed(3)
    for name, module in model.named_modules():
        if name.endswith("base_layer"):
            module.register_buffer("dequantized", module.weight.detach().clone(), persistent=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.train()


def loss_and_gradients(model, side):
    torch.manual_seed(4)
    input_ids, mask = torch.randint(5, 100, (3, 12)), torch.ones(3, 12, dtype=torch.long)
    mask[1, slice(0, 4) if side == "left" else slice(8, 12)] = 0
    model.zero_grad()
    hidden = model.get_base_model().model(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
    loss = (hidden * torch.randn_like(hidden))[mask.bool()].sum()  # not their squares: a norm keeps those constant
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_training_step_keeps_its_loss_and_gradients(side):
    model = with_adapters()
    wanted, gradients = loss_and_gradients(model, side)
    kernels.use_short_attention(model.get_base_model())
    kernels.fuse_lora(model)
    found, quick = loss_and_gradients(model, side)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(quick[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())


def test_disabled_and_dropped_out_adapters_stay_peft_s():
    model = with_adapters()
    input_ids = torch.arange(5, 15)[None]
    with torch.no_grad(), model.disable_adapter():
        wanted = model(input_ids).logits
    kernels.fuse_lora(model)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(model(input_ids).logits, wanted)
    dropping = with_adapters(dropout=0.5)
    kernels.fuse_lora(dropping)
    assert not any(hasattr(module, "plain_forward") for module in dropping.modules())
