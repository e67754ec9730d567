"""Attention in rows side by side against PyTorch's and transformers'."""

import pytest
import torch
import torch.nn.functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llama_qna.training.cpu import attention
from tests.test_kernels import same, states


@pytest.mark.parametrize("longest", [attention.LONGEST_ROW, 8], ids=["short", "long"])
@pytest.mark.parametrize("length", [5, attention.ATTENTION_QUERIES, 2 * attention.ATTENTION_QUERIES + 7])
def test_attention_keeps_to_each_row_and_shares_heads(length, longest, monkeypatch):
    monkeypatch.setattr(attention, "LONGEST_ROW", longest)
    lengths = [3, length, 9, length - 1]
    x, angles = states(sum(lengths), 6 + 2 * 2, 4).requires_grad_(), states(max(lengths), 2, seed=1).repeat(1, 2)
    cos, sin, wanted = angles.cos(), angles.sin(), []
    for row in x.split(lengths):
        query, key, value = row.transpose(0, 1)[None].split([6, 2, 2], 1)
        query, key = apply_rotary_pos_emb(query, key, cos[None, : len(row)], sin[None, : len(row)])
        wanted.append(F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3, enable_gqa=True)[0])
    wanted = torch.cat(wanted, 1).transpose(0, 1)
    found = attention.attention(x, cos, sin, attention.Rows(lengths, 6, 2), 0.3)
    weights = states(*wanted.shape, seed=3)
    torch.testing.assert_close(found, wanted)
    plain, quick = (torch.autograd.grad((each * weights).sum(), x)[0] for each in (wanted, found))
    torch.testing.assert_close(quick, plain)


def test_rotation_is_that_of_transformers():
    heads = states(3, 7, 8).requires_grad_()  # two of queries, one of keys
    angles = states(7, 4, seed=3).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    turned = attention.rotate(heads, cos, torch.cat([-sin[:, :4], sin[:, 4:]], 1))
    plain = apply_rotary_pos_emb(heads[None, :2], heads[None, 2:], cos[None], sin[None])
    same(turned, torch.cat(plain, 1)[0], [heads])
