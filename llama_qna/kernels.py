"""Parts of a training step in fewer passes over memory, for CPUs, where those passes cost more than the products.

Each function computes what the plain one computes, with its gradients; tests hold the two together. `quick_layers` puts
them into a model. What holds a step up is in docs/performance.md.
"""

from __future__ import annotations

from itertools import accumulate, chain

import torch
import torch.nn.functional as F

TILE = 256  # positions whose scores over the vocabulary exist at once: 25 MB in 16 bits for 49,152 tokens
WIDE = 8  # of them in float32: 1.6 MB, which stay in a core's cache
QUERIES = 128  # queries at once in attention
LONGEST = 512  # tokens of a row; for longer ones PyTorch's own attention is quicker, and needs no (T, T) scores


class _FrozenHeadLoss(torch.autograd.Function):
    """Summed loss of hidden states (N, D) under a frozen head (V, D); its gradient is made in the forward pass.

    So a tile of logits is computed once, not again for the backward pass, and never kept: its slopes take its place.
    """

    @staticmethod
    def forward(ctx, hidden, head, targets, expected):
        rows, size = min(TILE, len(hidden)), len(head)
        gradient, loss = torch.empty_like(hidden), hidden.new_zeros((), dtype=torch.float32)
        found, wanted = hidden.new_empty(rows, size), None if expected is None else hidden.new_empty(rows, size)
        wide = hidden.new_empty(1 if expected is None else 3, WIDE, size, dtype=torch.float32)
        for start in range(0, len(hidden), TILE):
            tile = slice(start, min(start + TILE, len(hidden)))
            rows = tile.stop - start
            scores, likely = torch.mm(hidden[tile], head.T, out=found[:rows]), None
            if expected is not None:
                likely = torch.mm(expected[tile], head.T, out=wanted[:rows])
            for first in range(0, rows, WIDE):
                part = slice(first, min(first + WIDE, rows))
                room = wide[:, : part.stop - first]
                if likely is None:
                    loss += _cross_entropy(scores[part], targets[tile][part, None], room)
                else:
                    loss += _divergence(scores[part], likely[part], room)
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
        for part, inner, up, scale in zip(columns, _inner(adapters), adapters[1::2], scales, strict=True):
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
        for part, inner, scale in zip(parts, _inner(adapters), ctx.scales, strict=True):
            to_adapters += [to_down[inner], (part.T @ narrow[:, inner]).mul_(scale)]
        return to_x, None, None, None, *to_adapters


def _inner(adapters) -> list[slice]:
    """The rows that each A has in all of them below one another."""
    ends = list(accumulate(len(down) for down in adapters[::2]))
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


class _Rotate(torch.autograd.Function):
    """See `rotate`."""

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx, upstream):
        return _turn(upstream, *ctx.saved_tensors, -1), None, None


def _turn(x, cos, sin, way=1):
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin, value=way)


def rotate(x, cos, sin):
    """Rotary position embedding (arXiv:2104.09864) of (..., T, D).

    Args:
        cos, sin: (T, D), the same in both halves of D, but for the sign of the first half of `sin`: it is turned round.
    """
    return _Rotate.apply(x, cos, sin)


class _Take(torch.autograd.Function):
    """Rows of a matrix in another order; the way back is told too, where -1 stands for a gradient of zero."""

    @staticmethod
    def forward(ctx, x, order, back):
        ctx.save_for_backward(back)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, upstream):
        (back,) = ctx.saved_tensors
        if back.numel() > len(upstream):  # a row for what was not taken
            upstream = torch.cat([upstream, upstream.new_zeros(1, upstream.shape[1])])
            back = back.where(back >= 0, len(upstream) - 1)
        return upstream.index_select(0, back), None, None


class Rows:
    """Where the rows of a step lie among its tokens, and which of them attention takes at once.

    Rows of like length are one group, in which the shorter ones are padded.

    Args:
        lengths: tokens of each row.
        heads, shared: of queries; of keys and values.
    """

    LIKE = 0.6  # the length of a group's shortest row is at least this share of its longest

    def __init__(self, lengths: list[int], heads: int, shared: int):
        self.heads, self.shared, self.groups, places = heads, shared, [], []
        starts = [0, *accumulate(lengths)]
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            if not self.groups or lengths[row] < self.LIKE * self.groups[-1][1]:
                self.groups.append([0, lengths[row]])
                places.append([])
            self.groups[-1][0] += 1
            place = torch.full((self.groups[-1][1],), -1)
            place[: lengths[row]] = torch.arange(starts[row], starts[row] + lengths[row])
            places[-1].append(place)
        places = [torch.stack(group) for group in places]  # the token at each place, or -1: (B, T)
        kinds = [(0, heads), (heads, shared), (heads + shared, shared)]
        self.inputs = torch.cat([_of_heads(group, *kind, heads + 2 * shared) for group in places for kind in kinds])
        self.outputs = torch.cat([_of_heads(group, 0, heads, heads) for group in places])
        self.from_inputs = _turned_round(self.inputs, starts[-1] * (heads + 2 * shared))
        self.from_outputs = _turned_round(self.outputs, starts[-1] * heads)
        self.inputs.clamp_(min=0)  # anything may stand where nothing is: no other place looks at it


def _of_heads(places, first: int, count: int, every: int):
    """Of tokens (B, T), each with so many heads, the places of some heads among all: B, count, T of them, flat."""
    found = places[:, None] * every + torch.arange(first, first + count)[:, None]
    return found.where(places[:, None] >= 0, -1).flatten()


def _turned_round(order, size: int):
    """At which place of an order each of so many is."""
    found, told = torch.empty(size, dtype=torch.long), (order >= 0).nonzero().squeeze(1)
    found[order[told]] = told
    return found


def attention(x, cos, sin, rows: Rows, scale: float):
    """Causal attention with rotary positions in rows that lie one after the other: (N, H + 2 K, D) to (N, H, D).

    Args:
        x: queries of H heads, keys and values of K heads, each shared by H / K query heads.
        cos, sin: of the positions of the longest row, (T, D), each the same in both halves of D.
    """
    heads, shared, width = rows.heads, rows.shared, x.shape[-1]
    sin = torch.cat([-sin[:, : width // 2], sin[:, width // 2 :]], -1)
    sizes = [count * length * kind for count, length in rows.groups for kind in (heads, shared, shared)]
    parts = iter(_Take.apply(x.flatten(0, 1), rows.inputs, rows.from_inputs).split(sizes))
    found = []
    for count, length in rows.groups:
        turn, keys = (cos[:length], sin[:length]), (count * shared, length, width)
        query = next(parts).view(count * shared, heads // shared, length, width)
        query = rotate(query, *(part * scale for part in turn))
        key = rotate(next(parts).view(keys), *turn)
        value = next(parts).view(keys).clone()  # a view would keep all parts for the backward pass
        if length <= LONGEST:
            attended = _Attention.apply(query, key, value)
        else:
            states = (query, key[:, None], value[:, None])
            attended = F.scaled_dot_product_attention(*states, is_causal=True, scale=1.0, enable_gqa=True)
        found.append(attended.reshape(-1, width))
    return _Take.apply(torch.cat(found), rows.from_outputs, rows.outputs).view(-1, heads, width)


class _Attention(torch.autograd.Function):
    """Causal attention of scaled queries (B, G, T, D) to keys and values (B, T, D), by plain products.

    Takes a block of queries at a time, without the keys after the block. Keeps what each query takes of each key.
    """

    @staticmethod
    def forward(ctx, query, key, value):
        found, kept = torch.empty_like(query), []
        hidden = query.new_full((QUERIES, QUERIES), -torch.inf).triu_(1)
        for start, end in _blocks(query):
            scores = query[:, :, start:end].flatten(1, 2) @ key[:, :end].transpose(1, 2)
            own = scores.view(-1, end - start, end)[:, :, start:]
            own.add_(hidden[: end - start, : end - start])
            kept.append(scores.softmax(-1))
            found[:, :, start:end] = (kept[-1] @ value[:, :end]).view_as(found[:, :, start:end])
        ctx.save_for_backward(query, key, value, *kept)
        return found

    @staticmethod
    def backward(ctx, upstream):
        query, key, value, *kept = ctx.saved_tensors
        to_query, to_key, to_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for (start, end), shares in zip(_blocks(query), kept, strict=True):
            slopes, block = upstream[:, :, start:end].flatten(1, 2), query[:, :, start:end].flatten(1, 2)
            to_value[:, :end].baddbmm_(shares.transpose(1, 2), slopes)
            to_shares = slopes @ value[:, :end].transpose(1, 2)
            to_scores = torch.ops.aten._softmax_backward_data(to_shares, shares, -1, shares.dtype)
            to_key[:, :end].baddbmm_(to_scores.transpose(1, 2), block)
            to_query[:, :, start:end] = (to_scores @ key[:, :end]).view_as(to_query[:, :, start:end])
        return to_query, to_key, to_value


def _blocks(query) -> list[tuple[int, int]]:
    length = query.shape[2]
    return [(start, min(start + QUERIES, length)) for start in range(0, length, QUERIES)]
