"""The loss against plain cross-entropy, and replay against the divergence that it is."""

import pytest
import torch
import torch.nn.functional as F

from llama_qna.training.cpu import kernels
from llama_qna.training.loss import Replay, divergence, summed_losses
from tests import fixtures_models as shared

# --- the loss --------------------------------------------------------------------------------------------------------


def padded_batch(side):
    """Three rows of random words with some labels masked; shorter rows are padded on a side: three tensors (3, 12)."""
    torch.manual_seed(1)
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for length in (12, 7, 9):
        row, pad = torch.randint(5, 100, (length,)), 12 - length
        labels = row.masked_fill(torch.rand(length) < 0.3, -100)
        labels[0], labels[-1] = -100, row[-1]  # no token comes before the first, whichever side is padded
        where = (pad, 0) if side == "left" else (0, pad)
        batch["input_ids"].append(F.pad(row, where))
        batch["attention_mask"].append(F.pad(torch.ones_like(row), where))
        batch["labels"].append(F.pad(labels, where, value=-100))
    return {name: torch.stack(rows) for name, rows in batch.items()}


def labelled_loss(model, **batch):
    return summed_losses(model, **batch)[0]


def plain_loss(model, input_ids, attention_mask, labels):
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")


def loss_and_gradients(loss, model, batch):
    model.zero_grad()
    value = loss(model, **batch)
    value.backward()
    return value.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tile", [1, 4, 256])
def test_loss_is_plain_cross_entropy(side, tile, monkeypatch):
    monkeypatch.setattr(kernels, "HEAD_TILE", tile)
    model, batch = shared.tiny_llama(vocabulary=100), padded_batch(side)
    model.get_output_embeddings().requires_grad_(False)
    wanted, wanted_gradients = loss_and_gradients(plain_loss, model, batch)
    value, gradients = loss_and_gradients(labelled_loss, model, batch)
    torch.testing.assert_close(value, wanted, rtol=1e-5, atol=0)
    for name, gradient in wanted_gradients.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-4 * gradient.abs().max().item())


def test_padding_adds_nothing_to_the_loss():
    model, batch = shared.tiny_llama(vocabulary=100), padded_batch("right")
    lengths = batch["attention_mask"].sum(1)
    rows = [{name: tensor[i : i + 1, : lengths[i]] for name, tensor in batch.items()} for i in range(3)]
    alone = sum(labelled_loss(model, **row) for row in rows)
    torch.testing.assert_close(labelled_loss(model, **batch), alone, rtol=1e-5, atol=0)


def test_masked_words_are_not_learnt():
    model, batch = shared.tiny_llama(vocabulary=100), padded_batch("right")
    label = batch["labels"][0, -1].item()
    whole = labelled_loss(model, **batch)
    batch["labels"][0, -1] = -100
    assert labelled_loss(model, **batch) < whole
    batch["labels"][0, -1] = label
    assert labelled_loss(model, **batch) == whole


def test_batch_without_labels_is_harmless():
    model, batch = shared.tiny_llama(vocabulary=100), padded_batch("right")
    batch["labels"].fill_(-100)
    value = labelled_loss(model, **batch)
    value.backward()
    assert value == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


# --- replay ----------------------------------------------------------------------------------------------------------


def adapted():
    """A small Llama with an adapter that has learnt something."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(shared.tiny_llama(), LoraConfig(r=4, target_modules="all-linear"))
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def replayed(model, replay, accumulation=1):
    """A batch's share of the divergence, as the trainers add it."""
    pieces = replay.take(accumulation)
    if not pieces:
        return torch.zeros(())
    nats = divergence(model.get_base_model(), torch.tensor(pieces), replay.expected_states(model, pieces))
    return replay.share(nats)


def test_replay_takes_every_piece_once_before_any_twice():
    replay = Replay(shared.tokenizer(), tokens=256, seed=1)
    batches = [replay.batch() for _ in range(len(replay.pieces) // 2)]
    assert {len(batch) for batch in batches} == {2} and {len(piece) for batch in batches for piece in batch} == {128}
    taken = {tuple(piece) for batch in batches for piece in batch}
    assert len(taken) == 2 * len(batches)
    odd = len(replay.pieces) % 2  # the last piece of a pass alone goes into the first batch of the next
    assert [piece in replay.pieces and tuple(piece) not in taken for piece in replay.batch()].count(True) == odd
    assert Replay(shared.tokenizer(), tokens=256, seed=1).batch() == batches[0]
    assert Replay(shared.tokenizer(), tokens=256, seed=2).batch() != batches[0]


def test_replay_is_the_divergence_from_the_base():
    """KL(base || model) a token, zero for an adapter that changes nothing, with gradients on the adapter alone."""
    model, replay = adapted(), Replay(shared.tokenizer(), tokens=128, seed=1)
    input_ids = torch.tensor(Replay(shared.tokenizer(), tokens=128, seed=1).batch())
    with torch.no_grad():
        found = model(input_ids).logits.double().log_softmax(-1)
        with model.disable_adapter():
            expected = model(input_ids).logits.double().log_softmax(-1)
    wanted = (expected.exp() * (expected - found)).sum(-1).mean()
    loss = replayed(model, replay)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-3) and loss > 0.01
    loss.backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert any(gradient.abs().max() > 0 for gradient in trained.values()) and all("lora" in name for name in trained)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    assert replayed(model, replay).item() == pytest.approx(0, abs=1e-6)
