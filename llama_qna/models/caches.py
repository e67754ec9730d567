"""Keys and values of what a model has read, kept so that a new token costs little memory traffic."""

from __future__ import annotations

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from llama_qna.models.plan import ROOM


class RoomyLayer(DynamicLayer):
    """A layer's keys and values with room behind them: a new token is written there, the old ones are not copied.

    transformers' own layer copies all of them for each token, a seventh of the time where prompts hold passages.
    """

    MORE = ROOM

    def update(self, key_states, value_states, *args, **kwargs):  # (B, H, T, D) each
        before, new = self.get_seq_length(), (key_states, value_states)
        length = before + key_states.shape[-2]
        if not before or length > self.room[0].shape[-2]:
            shape = (*key_states.shape[:2], length + self.MORE, key_states.shape[-1])
            larger = [states.new_empty(shape) for states in new]
            if before:
                for room, old in zip(larger, self.room, strict=True):
                    room[..., :before, :] = old[..., :before, :]
            else:
                self.lazy_initialization(*new)
            self.room = larger
        for room, states in zip(self.room, new, strict=True):
            room[..., before:length, :] = states
        self.keys, self.values = (room[..., :length, :] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        length = self.get_seq_length()
        self.room = [room[indices] for room in self.room]
        self.keys, self.values = (room[..., :length, :] for room in self.room)


def roomy() -> DynamicCache:
    """An empty cache of `RoomyLayer`s."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = RoomyLayer
    return cache


def expanded(cache: DynamicCache, rows: int) -> DynamicCache:
    """A copy of a cache of one row for a batch of rows."""
    copy = roomy()
    for index, layer in enumerate(cache.layers):
        copy.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index)
    return copy
