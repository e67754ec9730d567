"""Parts of a training step in fewer passes over memory, for CPUs, where those passes cost more than the products.

Each function computes what the plain one computes, with its gradients; tests hold the two together. `layers` puts
them into a model. What holds a step up is in docs/performance.md.
"""

from __future__ import annotations

from itertools import accumulate, chain

import torch
import torch.nn.functional as F

from llama_qna.models.shapes import HEAD_TILE

WIDE = 8  # of them in float32: 1.6 MB, which stay in a core's cache


class _FrozenHeadLoss(torch.autograd.Function):
    """Summed loss of hidden states (N, D) under a frozen head (V, D); its gradient is made in the forward pass.

    So a tile of logits is computed once, not again for the backward pass, and never kept: its slopes take its place.
    """

    @staticmethod
    def forward(ctx, hidden, head, targets, expected):
        rows, size = min(HEAD_TILE, len(hidden)), len(head)
        gradient, loss = torch.empty_like(hidden), hidden.new_zeros((), dtype=torch.float32)
        found, wanted = hidden.new_empty(rows, size), None if expected is None else hidden.new_empty(rows, size)
        wide = hidden.new_empty(1 if expected is None else 3, WIDE, size, dtype=torch.float32)
        loss_of = _cross_entropy if expected is None else _divergence
        for start in range(0, len(hidden), HEAD_TILE):
            tile = slice(start, min(start + HEAD_TILE, len(hidden)))
            rows = tile.stop - start
            scores = torch.mm(hidden[tile], head.T, out=found[:rows])
            aims = targets[tile, None] if expected is None else torch.mm(expected[tile], head.T, out=wanted[:rows])
            for first in range(0, rows, WIDE):
                part = slice(first, min(first + WIDE, rows))
                loss += loss_of(scores[part], aims[part], wide[:, : part.stop - first])
            torch.mm(scores, head, out=gradient[tile])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None


def _cross_entropy(scores, targets, wide):
    """The summed loss of scores, (N, V), whose slopes take their place.

    Args:
        targets: (N, 1). wide: room, (1, N, V).
    """
    reached = scores.gather(1, targets)
    normal = _softmax(wide[0].copy_(scores))
    scores.copy_(wide[0].scatter_add_(1, targets, wide.new_full(targets.shape, -1.0)))
    return (normal - reached).sum()


def _divergence(scores, expected, wide):
    """As `_cross_entropy`, of the divergence from the scores that are expected, (N, V); wide is (3, N, V)."""
    found, likely, further = wide
    normals = _softmax(found.copy_(scores)), _softmax(likely.copy_(expected))
    further.copy_(expected).sub_(scores)
    scores.copy_(found.sub_(likely))
    return further.mul_(likely).sum() + (normals[0] - normals[1]).sum()


def _softmax(scores):
    """Turn scores, (N, V) in float32, into shares in place; the logarithm of what they were divided by, (N, 1)."""
    top = scores.amax(-1, keepdim=True)
    total = scores.sub_(top).exp_().sum(-1, keepdim=True)
    scores.div_(total)
    return top.add_(total.log_())


def cross_entropy(hidden, head, targets):
    """Cross-entropy, in nats, summed, of hidden states under a frozen output head.

    Args:
        hidden: (N, D), with gradient. head: (V, D), without. targets: (N,).
    """
    return _FrozenHeadLoss.apply(hidden, head, targets, None)


def divergence(hidden, head, expected):
    """KL(expected || found), in nats, summed, of the words that two hidden states expect under a frozen head.

    Args:
        hidden: (N, D), with gradient. head: (V, D). expected: (N, D), hidden states without gradient.
    """
    return _FrozenHeadLoss.apply(hidden, head, None, expected)


class _Linears(torch.autograd.Function):
    """See `linears`; the products of the adapters are added in place, without a pass of their own."""

    @staticmethod
    def forward(ctx, x, weight, columns, scales, *adapters):
        down = torch.cat(adapters[::2])
        narrow, found = x @ down.T, x @ weight.T
        ranks = side_by_side(map(len, adapters[::2]))  # the rows that each A has in `down`
        for part, inner, up, scale in zip(columns, ranks, adapters[1::2], scales, strict=True):
            found[:, part].addmm_(narrow[:, inner], up.T, alpha=scale)
        ctx.save_for_backward(x, narrow, weight, *adapters)
        ctx.columns, ctx.scales = columns, scales
        return found

    @staticmethod
    def backward(ctx, upstream):
        x, narrow, weight, *adapters = ctx.saved_tensors
        parts, ups = [upstream[:, part] for part in ctx.columns], adapters[1::2]
        down = torch.cat(adapters[::2])
        slopes = [(part @ up).mul_(scale) for part, up, scale in zip(parts, ups, ctx.scales, strict=True)]
        to_narrow = torch.cat(slopes, 1)
        to_x = (upstream @ weight).addmm_(to_narrow, down) if ctx.needs_input_grad[0] else None
        to_down, to_adapters = to_narrow.T @ x, []
        for part, inner, scale in zip(parts, side_by_side(map(len, adapters[::2])), ctx.scales, strict=True):
            to_adapters += [to_down[inner], (part.T @ narrow[:, inner]).mul_(scale)]
        return to_x, None, None, None, *to_adapters


def side_by_side(sizes) -> list[slice]:
    """The place of each of several parts that lie one after the other."""
    ends = list(accumulate(sizes))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def linears(x, weight, adapters):
    """Several frozen matrices of one input, with LoRA adapters on some: x Wᵀ + s (x Aᵀ) Bᵀ, side by side.

    Args:
        x: (N, I). weight: (sum of O, I), the matrices below one another.
        adapters: for each adapted matrix the slice of its columns in the output, A (R, I), B (O, R), and s.

    Returns:
        (N, sum of O).
    """
    if not adapters:
        return F.linear(x, weight)
    columns, downs, ups, scales = zip(*adapters, strict=True)
    return _Linears.apply(x, weight, columns, scales, *chain(*zip(downs, ups, strict=True)))


class _Norm(torch.autograd.Function):
    """See `norm`; its input is kept in 16 bits, once."""

    @staticmethod
    def forward(ctx, x, weight, epsilon):
        wide = x.to(torch.float32, copy=True)
        factor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        factor = factor.add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, factor)
        return wide.mul_(factor).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx, upstream):
        x, weight, factor = ctx.saved_tensors
        wide, normed = (upstream * weight).float(), x.to(torch.float32, copy=True).mul_(factor)
        along = (wide * normed).mean(-1, keepdim=True)
        return wide.addcmul_(normed, along, value=-1).mul_(factor).to(x.dtype), None, None


def norm(x, weight, epsilon: float):
    """Root mean square norm (arXiv:1910.07467) with a frozen weight, in float32 within: (..., D)."""
    return _Norm.apply(x, weight, epsilon)


class _Gate(torch.autograd.Function):
    """See `gate`; keeps nothing but its input."""

    @staticmethod
    def forward(ctx, both):
        ctx.save_for_backward(both)
        opened, up = both.chunk(2, -1)
        return F.silu(opened).mul_(up)

    @staticmethod
    def backward(ctx, upstream):
        (both,) = ctx.saved_tensors
        gradient = torch.empty_like(both)
        (opened, up), (to_opened, to_up) = both.chunk(2, -1), gradient.chunk(2, -1)
        torch.ops.aten.silu_backward.grad_input(upstream * up, opened, grad_input=to_opened)
        torch.mul(F.silu(opened), upstream, out=to_up)
        return gradient


def gate(both):
    """silu(first half) times second half of the last dimension: (N, 2 I) to (N, I)."""
    return _Gate.apply(both)
