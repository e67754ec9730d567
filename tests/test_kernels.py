"""The quick training step against the plain one: same loss, same gradients."""

import pytest
import torch
import torch.nn.functional as F

from llama_qna.training.cpu import kernels


def states(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("tile", [3, 128])
def test_cross_entropy_under_a_frozen_head(tile, monkeypatch):
    monkeypatch.setattr(kernels, "HEAD_TILE", tile)
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
    monkeypatch.setattr(kernels, "HEAD_TILE", tile)
    hidden, head, expected = states(10, 8).requires_grad_(), states(50, 8, seed=1), states(10, 8, seed=2)
    found, wanted = (F.log_softmax(x @ head.T, -1) for x in (hidden, expected))
    plain = F.kl_div(found, wanted, reduction="sum", log_target=True)
    (gradient,) = torch.autograd.grad(plain, hidden)
    quick = kernels.divergence(hidden, head, expected)
    torch.testing.assert_close(quick.double(), plain, rtol=1e-6, atol=0)
    quick.backward()
    torch.testing.assert_close(hidden.grad, gradient, rtol=1e-5, atol=1e-6)


def same(found, wanted, inputs):
    """Two results and their gradients."""
    torch.testing.assert_close(found, wanted)
    weights = states(*wanted.shape, seed=9)
    for plain, quick in zip(
        torch.autograd.grad((wanted * weights).sum(), inputs), torch.autograd.grad((found * weights).sum(), inputs),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(quick, plain)


@pytest.mark.parametrize("adapted", [(0, 1, 2), (0, 2), (1,), ()])
def test_linears_are_matrices_side_by_side_with_their_adapters(adapted):
    x, sizes = states(7, 6).requires_grad_(), (8, 3, 5)
    weights = [states(size, 6, seed=seed) for seed, size in enumerate(sizes)]
    starts, adapters, wanted = (0, 8, 11), [], [x @ weight.T for weight in weights]
    for number in adapted:
        down, up = states(4, 6, seed=20 + number).requires_grad_(), states(sizes[number], 4, seed=30).requires_grad_()
        adapters.append((slice(starts[number], starts[number] + sizes[number]), down, up, 1.5 + number))
        wanted[number] = wanted[number] + (1.5 + number) * (x @ down.T @ up.T)
    found = kernels.linears(x, torch.cat(weights), adapters)
    same(found, torch.cat(wanted, 1), [x, *(tensor for _, down, up, _ in adapters for tensor in (down, up))])


def test_norm_and_gate_are_those_of_transformers():
    from transformers.models.llama import modeling_llama as llama

    x = states(2, 5, 8).requires_grad_()
    norm = llama.LlamaRMSNorm(8).double().requires_grad_(False)
    norm.weight.copy_(states(8, seed=1))
    before = x.detach().clone()
    found, wanted = kernels.norm(x, norm.weight, norm.variance_epsilon), norm(x)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad((result * states(2, 5, 8, seed=2)).sum(), x)[0] for result in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    narrow = before.float().requires_grad_()
    kernels.norm(narrow, norm.weight.float(), 1e-6)
    assert torch.equal(narrow, before.float())  # its input stays as it is, in float32 too
    both = states(7, 12).requires_grad_()
    same(kernels.gate(both), F.silu(both[:, :6]) * both[:, 6:], [both])
