"""Causal attention while a Llama trains on a CPU, in rows of any length that lie one after the other (`layers`).

Plain products, a block of queries at a time: for rows of a few hundred tokens they are several times as quick as
PyTorch's own attention with its backward pass. Tests hold both together.
"""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from llama_qna.models.shapes import ATTENTION_QUERIES, LONGEST_ROW


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
        self.heads, self.shared, groups = heads, shared, []
        starts = [0, *accumulate(lengths)]
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            if not groups or lengths[row] < self.LIKE * len(groups[-1][0]):
                groups.append([])
            groups[-1].append(torch.arange(starts[row], starts[row + 1]))
        # the token at each place, or -1: (B, T)
        places = [pad_sequence(group, batch_first=True, padding_value=-1) for group in groups]
        self.groups = [tuple(group.shape) for group in places]
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
        if length <= LONGEST_ROW:
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
        hidden = query.new_full((ATTENTION_QUERIES, ATTENTION_QUERIES), -torch.inf).triu_(1)
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
    return [(start, min(start + ATTENTION_QUERIES, length)) for start in range(0, length, ATTENTION_QUERIES)]
