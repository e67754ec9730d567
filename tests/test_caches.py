"""`models.caches`: the cache with room holds what transformers' own holds, whatever is written and which rows leave."""

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from llama_qna.models import caches


def states(rows, tokens):
    return torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, tokens, 4)


@pytest.mark.parametrize("room", [1, 3, 64])
def test_roomy_layer_holds_what_the_plain_one_holds(room, monkeypatch):
    monkeypatch.setattr(caches.RoomyLayer, "MORE", room)
    torch.manual_seed(0)
    plain, roomy, rows = DynamicLayer(), caches.RoomyLayer(), 5
    for tokens in (7, 1, 1, 2, 1, 1):
        new = states(rows, tokens)
        for found, wanted in zip(roomy.update(*new), plain.update(*new), strict=True):
            assert torch.equal(found, wanted)
        left = torch.arange(rows)[tokens % 2 :]
        plain.batch_select_indices(left), roomy.batch_select_indices(left)
        rows = len(left)
        assert torch.equal(roomy.keys, plain.keys) and torch.equal(roomy.values, plain.values)
        assert roomy.get_seq_length() == plain.get_seq_length()


def test_expanded_cache_leaves_its_source_alone():
    one = caches.roomy()
    new = states(1, 3)
    one.update(*new, 0)
    many = caches.expanded(one, 4)
    many.update(*states(4, 2), 0)
    assert many.layers[0].keys.shape == (4, 2, 5, 4) and torch.equal(many.layers[0].keys[3, :, :3], new[0][0])
    assert torch.equal(one.layers[0].keys, new[0])
