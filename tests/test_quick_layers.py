"""A Llama whose rows pass side by side in few passes, against transformers and peft: same states, same gradients."""

import pytest
import torch

from llama_qna.training.cpu import attention, kernels, layers
from tests import fixtures_models as shared


def with_adapters(dropout=0.0, targets="all-linear", copies=True):
    """A tiny float32 Llama with adapters that have learnt something; each base layer may keep a copy of its weights."""
    from peft import LoraConfig, get_peft_model

    model = shared.tiny_llama(vocabulary=100).requires_grad_(False)
    linear = [module for name, module in model.named_modules() if name.endswith("_proj")]
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=targets, lora_dropout=dropout))
    torch.manual_seed(3)
    for module in linear if copies else []:
        module.register_buffer("dequantized", module.weight.detach().clone(), persistent=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.train()


def parts(side="right"):
    """Three rows of which one is padded, and two others of another length."""
    torch.manual_seed(4)
    mask = torch.ones(3, 12, dtype=torch.long)
    mask[1, slice(0, 4) if side == "left" else slice(8, 12)] = 0
    return (torch.randint(5, 100, (3, 12)), mask), (torch.randint(5, 100, (2, 7)), None)


def loss_and_gradients(model, batches):
    model.zero_grad()
    loss, chance = 0.0, torch.Generator().manual_seed(5)
    for hidden in layers.hidden_states(model.get_base_model(), *batches):
        weights = torch.randn(hidden.shape, generator=chance)  # not their squares: a norm keeps those constant
        loss = loss + (hidden * weights).sum()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def hold_together(model, batches):
    wanted, gradients = loss_and_gradients(model, batches)
    layers.quicken(model)
    found, quick = loss_and_gradients(model, batches)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(quick[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_rows_side_by_side_keep_their_loss_and_gradients(side, targets):
    hold_together(with_adapters(targets=targets), parts(side))


def test_layers_without_a_kept_copy_stay_peft_s(monkeypatch):
    monkeypatch.setattr(kernels, "linears", None)
    hold_together(with_adapters(copies=False), parts())


def test_rows_longer_than_the_short_ones(monkeypatch):
    monkeypatch.setattr(attention, "LONGEST_ROW", 8)
    hold_together(with_adapters(), parts())


def test_gradient_checkpointing_keeps_loss_and_gradients():
    model = with_adapters()
    layers.quicken(model)
    wanted, gradients = loss_and_gradients(model, parts())
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    found, again = loss_and_gradients(model, parts())
    torch.testing.assert_close(found, wanted)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())


def test_what_is_not_trained_stays_as_it_was():
    """Generation, scores, and the base beneath: the same with quickened layers, which share one kept copy."""
    model, input_ids = with_adapters(), torch.arange(5, 15)[None]

    def outputs():
        with torch.no_grad(), model.disable_adapter():
            below = model(input_ids).logits
        with torch.no_grad():
            return below, model(input_ids).logits, model.eval().generate(input_ids, max_new_tokens=5, do_sample=False)

    wanted = outputs()
    layers.quicken(model.train())
    for found, known in zip(outputs(), wanted, strict=True):
        torch.testing.assert_close(found, known)


def test_dropout_stays_peft_s(monkeypatch):
    model = with_adapters(dropout=0.5)
    layers.quicken(model)
    monkeypatch.setattr(kernels, "linears", None)
    batches = parts()
    first, second = (loss_and_gradients(model, batches)[0] for _ in range(2))
    assert first != second
