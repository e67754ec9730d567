"""Attention while a model answers on a CPU: plain products, a block at a time.

With PyTorch's own, answers from passages take nearly twice as long (docs/performance.md).
"""

from __future__ import annotations

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

NAME = "products"
QUERIES = 64  # of a block; of 64, 128 and 256 the quickest
NOT_COVERED = ("softcap", "position_bias", "cache")  # of what transformers may ask
SCORES = 2**20  # of a block: 2 MB in 16 bits, which stay in a cache


def use_products(model) -> None:
    """Let the layers of a model call `products`, in place of PyTorch's attention."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, products)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def products(module, query, key, value, attention_mask=None, scaling=None, **options):
    """Causal attention as transformers calls it: queries (B, H, T, D), keys and values (B, S, K, D), to (B, T, H, D).

    The T queries are those of the last of the K keys. PyTorch's attention still computes what is asked with gradients,
    in training without `training.cpu.attention`, and what is not of this form (`_is_covered`).

    Args:
        attention_mask: whether a query sees a key, (B, 1, T, K); None: each sees all keys before it and its own.

    Returns:
        What transformers wants: the attended values, and None in place of the weights.
    """
    if torch.is_grad_enabled() or not _is_covered(module, query, key, attention_mask, options):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    (batch, heads, length, width), (shared, seen) = query.shape, key.shape[1:3]
    query = (query * (scaling or width**-0.5)).view(batch, shared, -1, length, width)  # the heads of one key together
    if attention_mask is None:
        attention_mask = torch.ones(1, 1, length, seen, dtype=torch.bool, device=key.device).tril(seen - length)
    hidden = (~attention_mask).expand(batch, -1, -1, -1)
    attended = query.new_empty(batch, length, heads, value.shape[-1])
    at_once = max(1, SCORES // (heads * min(length, QUERIES) * seen))
    for first in range(0, batch, at_once):
        rows = slice(first, first + at_once)
        keys, values = key[rows].flatten(0, 1), value[rows].flatten(0, 1)  # (B S, K, D)
        for start in range(0, length, QUERIES):
            end = min(start + QUERIES, length)
            until = seen - length + end  # no query of the block sees a later key
            block = query[rows, :, :, start:end].reshape(len(keys), -1, width)  # (B S, H / S queries, D)
            scores = (block @ keys[:, :until].mT).view(-1, heads, end - start, until)
            scores.masked_fill_(hidden[rows, :, start:end, :until], torch.finfo(scores.dtype).min)
            shares = scores.softmax(-1).view(len(keys), -1, until)
            found = (shares @ values[:, :until]).view(-1, heads, end - start, value.shape[-1])
            attended[rows, start:end] = found.transpose(1, 2)
    return attended, None


def _is_covered(module, query, key, mask, options: dict) -> bool:
    """Whether `products` computes what is asked: causal, with no more than a mask that says who sees whom.

    Not the attention of encoders, nor a mask of numbers to add, of another shape, or in which a query sees a later key
    than its block does.
    """
    if options.get("dropout") or any(options.get(name) is not None for name in NOT_COVERED):
        return False
    (batch, heads, length, _), seen = query.shape, key.shape[2]
    if mask is None:
        is_causal = options.get("is_causal")
        is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        return length == 1 or (bool(is_causal) and length == seen)
    fits = mask.shape[0] in (1, batch) and mask.shape[1] in (1, heads) and mask.shape[2:] == (length, seen)
    if mask.dtype != torch.bool or not fits or length > seen:
        return False
    ends = range(QUERIES, length, QUERIES)  # of the blocks but the last, which sees all keys
    return not any(mask[:, :, end - QUERIES : end, seen - length + end :].any() for end in ends)
