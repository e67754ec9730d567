"""What the two training stages minimize."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from trl import SFTTrainer

from llama_qna.models import prompts
from llama_qna.models.shapes import REPLAY_PIECE, replay_pieces
from llama_qna.project import processes
from llama_qna.project.data import REPLAY_TEXT
from llama_qna.training.cpu import kernels, layers


class Replay:
    """General text beside every training step, on which the model is held to the words that its base expects.

    The loss is the divergence of the model from its base (the same weights with the adapter switched off), KL(base ||
    model) in nats per token, as in Learning without Forgetting (Li and Hoiem 2016, arXiv:1606.09282). A few thousand
    words last, since the base's whole distribution is the target: trained on as plain text, they were known by heart
    after some epochs, and the perplexity of other general text rose all the same (docs/experiments.md).

    Args:
        tokens: of general text at each step, as pieces of 128 tokens, at least one; in an order drawn with the seed.
    """

    def __init__(self, tokenizer, tokens: int, seed: int):
        text = prompts.encode_document(tokenizer, REPLAY_TEXT.read_text(encoding="utf-8"))
        self.pieces = [text[start : start + REPLAY_PIECE] for start in range(0, len(text) - REPLAY_PIECE, REPLAY_PIECE)]
        self.rows, self.random = replay_pieces(tokens), random.Random(seed + processes.rank())
        self.waiting = []  # pieces that no batch has had since they were last drawn
        self.due = []  # pieces of the step, a list for each of its batches
        self.expected = {}  # by the tokens of a piece: what its base makes of it, (128, D); the base does not change

    def batch(self) -> list[list[int]]:
        """The next pieces, (rows, 128); none comes again before all others have come as often."""
        while len(self.waiting) < self.rows:
            self.waiting += self.random.sample(self.pieces, len(self.pieces))
        taken, self.waiting = self.waiting[: self.rows], self.waiting[self.rows :]
        return taken

    def state(self) -> dict:
        """What the next batches are drawn from, for a checkpoint; `set_state` takes it back."""
        return {"random": self.random.getstate(), "waiting": [self.pieces.index(piece) for piece in self.waiting]}

    def set_state(self, state: dict) -> None:
        version, numbers, gauss = state["random"]
        self.random.setstate((version, tuple(numbers), gauss))
        self.waiting, self.due = [self.pieces[index] for index in state["waiting"]], []

    def take(self, accumulation: int = 1) -> list[list[int]]:
        """The pieces of the next batch, (rows, 128); of a step's batches, some may have none.

        Args:
            accumulation: batches in the step.
        """
        if not self.due:
            self.due = [part.tolist() for part in np.array_split(np.array(self.batch()), accumulation)]
        return self.due.pop(0)

    def expected_states(self, model, pieces: list[list[int]]):
        """What the base makes of pieces, (tokens, D), computed once for each.

        Args:
            model: with an adapter, which is switched off here.
        """
        keys = [tuple(piece) for piece in pieces]
        if not all(key in self.expected for key in keys):
            with torch.no_grad(), model.disable_adapter():
                input_ids = torch.tensor(pieces, device=model.device)
                found = model.get_base_model().base_model(input_ids, use_cache=False).last_hidden_state
            self.expected |= zip(keys, found, strict=True)
        return torch.cat([self.expected[key] for key in keys])

    def share(self, nats):
        """A batch's share of a step's divergence; the shares of all its batches add up to it."""
        return nats / (self.rows * REPLAY_PIECE)


class OwnLoss(SFTTrainer):
    """TRL's trainer with its own loss, and replay beside it if `replay` is set; for GPUs and for several processes.

    Of several processes each replays pieces of its own; their gradients are averaged.
    """

    replay: Replay | None = None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, general = super().compute_loss(model, inputs, False, num_items_in_batch), self.replayed(model)
        if not general:
            return loss
        adapted = self.accelerator.unwrap_model(model)
        return loss + self.replay.share(divergence(adapted.get_base_model(), *general))

    def replayed(self, model) -> tuple:
        """The pieces of a batch, (P, 128), and what the base makes of them, (P 128, D); nothing without replay."""
        pieces = self.replay.take(self.current_gradient_accumulation_steps) if self.replay else []
        if not pieces:
            return ()
        adapted = self.accelerator.unwrap_model(model)
        return torch.tensor(pieces, device=adapted.device), self.replay.expected_states(adapted, pieces)


class QuickLoss(OwnLoss):
    """A loss that projects only the positions that have a label, for one process on a CPU.

    TRL's own loss does that on GPUs, where it has a Triton kernel. On CPUs it scores every position, with a label or
    not, and computes entropies besides.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        general, adapted = self.replayed(model), self.accelerator.unwrap_model(model)
        loss, nats = summed_losses(adapted.get_base_model(), **inputs, replayed=general)
        count = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"][:, 1:] != -100).sum()
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        loss = loss / torch.as_tensor(count).clamp(min=1)
        return loss + self.replay.share(nats) if general else loss


def summed_losses(model, input_ids, attention_mask, labels, replayed: tuple = ()) -> tuple:
    """Summed cross-entropy of the labelled positions and summed divergence of replayed text, in nats, in one pass.

    Args:
        model: with a frozen output head.
        input_ids, attention_mask, labels: (B, T); labels are -100 where nothing is scored.
        replayed: `input_ids` of general text, (P, 128), and what the base makes of it, (P 128, D); or nothing.

    Returns:
        Two scalars; the second is 0 if nothing is replayed.
    """
    parts = [(input_ids, attention_mask)] + ([(replayed[0], None)] if replayed else [])
    hidden, *general = layers.hidden_states(model, *parts)
    head = model.get_output_embeddings().weight
    following = F.pad(labels[:, 1:], (0, 1), value=-100)[attention_mask.bool()]  # (tokens,)
    scored = following != -100
    loss = kernels.cross_entropy(hidden[scored], head, following[scored])
    return loss, kernels.divergence(general[0], head, replayed[1]) if replayed else loss.new_zeros(())


def divergence(model, input_ids, expected):
    """Summed KL(base || model) of general text, in nats; arguments as `replayed` of `summed_losses`."""
    (found,) = layers.hidden_states(model, (input_ids, None))
    return kernels.divergence(found, model.get_output_embeddings().weight, expected)
