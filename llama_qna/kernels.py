"""The same training step in fewer passes over memory, for CPUs, where those passes cost more than the products.

Each function computes what the plain one computes, with its gradients; tests hold the two together. What a profile of
the plain step showed (two cores, 8 rows of 73 tokens) stands in docs/performance.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

TILE = 128  # positions whose scores over the vocabulary exist at once: 25 MB in float32 for 49,152 tokens
QUERIES = 128  # queries at once in attention: later keys of a causal mask are then left out, not computed and hidden
LONGEST = 512  # rows up to here; for longer ones PyTorch's own attention is quicker, and needs no (T, T) scores


class _FrozenHeadLoss(torch.autograd.Function):
    """Summed loss of hidden states (N, D) under a frozen head (V, D); its gradient is made in the forward pass.

    So a tile of logits is computed once, not again for the backward pass, and never kept.
    """

    @staticmethod
    def forward(ctx, hidden, head, targets, expected):
        gradient, loss = torch.empty_like(hidden), hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden), TILE):
            tile = slice(start, start + TILE)
            found = F.log_softmax(F.linear(hidden[tile], head).float(), -1)  # (tile, V)
            if targets is not None:
                wanted = targets[tile, None]
                loss -= found.gather(1, wanted).sum()
                slope = found.exp_().scatter_add_(1, wanted, found.new_full(wanted.shape, -1.0))
            else:
                wanted = F.log_softmax(F.linear(expected[tile], head).float(), -1)
                likely = wanted.exp()
                loss += (likely * wanted.sub_(found)).sum()
                slope = found.exp_().sub_(likely)
            torch.mm(slope.to(hidden.dtype), head, out=gradient[tile])
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None


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


class _LoraLinear(torch.autograd.Function):
    """x Wᵀ + s (x Aᵀ) Bᵀ with W frozen; the products are added up in place, without a pass of their own."""

    @staticmethod
    def forward(ctx, x, weight, down, up, scale):  # (N, I), (O, I), (R, I), (O, R)
        narrow = x @ down.T
        ctx.save_for_backward(x, narrow, weight, down, up)
        ctx.scale = scale
        return (x @ weight.T).addmm_(narrow, up.T, alpha=scale)

    @staticmethod
    def backward(ctx, upstream):
        x, narrow, weight, down, up = ctx.saved_tensors
        narrow_upstream = (upstream @ up).mul_(ctx.scale)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (upstream @ weight).addmm_(narrow_upstream, down)
        return to_x, None, narrow_upstream.T @ x, (upstream.T @ narrow).mul_(ctx.scale), None


def fuse_lora(model) -> None:
    """Let every LoRA layer over a kept 16-bit copy of its weights compute base and adapter in one go while it trains.

    A layer with dropout or several adapters, or without that copy, stays peft's.
    """
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or not hasattr(layer.base_layer, "dequantized"):
            continue
        plain = all(isinstance(drop, torch.nn.Identity) for drop in layer.lora_dropout.values())
        if plain and layer.base_layer.bias is None:
            layer.plain_forward = layer.forward
            layer.forward = _lora_forward.__get__(layer)


def _lora_forward(self, x, *args, **kwargs):
    names = self.active_adapters
    if self.disable_adapters or self.merged or len(names) != 1 or not self.training:
        return self.plain_forward(x, *args, **kwargs)
    down, up, weight = self.lora_A[names[0]].weight, self.lora_B[names[0]].weight, self.base_layer.dequantized
    if not x.dtype == down.dtype == weight.dtype:
        return self.plain_forward(x, *args, **kwargs)
    flat = x.reshape(-1, x.shape[-1])
    return _LoraLinear.apply(flat, weight, down, up, self.scaling[names[0]]).view(*x.shape[:-1], -1)


def use_short_attention(model) -> None:
    """Let a model compute attention of short rows by plain products while it trains.

    PyTorch's attention for CPUs spends most of its backward pass on work that a row of a hundred tokens does not need.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("short_rows", _attention)
    AttentionMaskInterface.register("short_rows", sdpa_mask)
    model.set_attn_implementation("short_rows")


def _attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **kwargs):
    """Attention as transformers calls it: (B, H, T, D) and keys and values of (B, K, T, D) to (B, T, H, D)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    length = query.shape[2]
    if not torch.is_grad_enabled() or dropout or length != key.shape[2] or length > LONGEST:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    mask = attention_mask  # (B, 1, T, T), true where a query may look; none where no row is padded
    if mask is None:
        mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=query.device).tril_()
    hidden = torch.finfo(query.dtype).min  # not -inf: a padded query that sees nothing would turn into NaN
    bias = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill_(~mask, hidden)
    return short_attention(query, key, value, bias, scaling or query.shape[-1] ** -0.5).transpose(1, 2), None


def short_attention(query, key, value, bias, scale: float):
    """Causal attention by plain products, a block of queries at a time, without the keys that come after the block.

    Args:
        query: (B, H, T, D). key, value: (B, K, T, D), each shared by H / K query heads. bias: (B or 1, 1, T, T), added
            to the scores.
    """
    rows, heads, length, width = query.shape
    shared = key.shape[1]
    query = (query * scale).view(rows, shared, heads // shared, length, width)
    blocks = []
    for start in range(0, length, QUERIES):
        end = min(start + QUERIES, length)
        block = query[:, :, :, start:end].reshape(rows, shared, -1, width)
        scores = (block @ key[:, :, :end].transpose(-1, -2)).view(rows, heads, end - start, end)
        weights = (scores + bias[:, :, start:end, :end]).softmax(-1).view(rows, shared, -1, end)
        blocks.append((weights @ value[:, :, :end]).view(rows, heads, end - start, width))
    return torch.cat(blocks, 2)
