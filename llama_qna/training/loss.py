"""What the two training stages minimize."""

from __future__ import annotations

import random

from llama_qna.models import prompts
from llama_qna.models.shapes import REPLAY_PIECE
from llama_qna.project import processes
from llama_qna.project.variant import REPOSITORY

REPLAY_TEXT = REPOSITORY / "data" / "general" / "replay.txt"


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
        self.rows, self.random, self.waiting = max(1, tokens // REPLAY_PIECE), random.Random(seed), []
        self.due = []  # this process's pieces of the step, a list for each of its batches
        self.expected = {}  # by the tokens of a piece: what its base makes of it, (128, D); the base does not change

    def batch(self) -> list[list[int]]:
        """The next pieces, (rows, 128); none comes again before all others have come as often."""
        while len(self.waiting) < self.rows:
            self.waiting += self.random.sample(self.pieces, len(self.pieces))
        taken, self.waiting = self.waiting[: self.rows], self.waiting[self.rows :]
        return taken

    def state(self) -> dict:
        """What the next batches are drawn from, for a checkpoint; `set_state` takes it back."""
        version, numbers, gauss = self.random.getstate()
        return {"random": [version, list(numbers), gauss], "waiting": [self.pieces.index(p) for p in self.waiting]}

    def set_state(self, state: dict) -> None:
        version, numbers, gauss = state["random"]
        self.random.setstate((version, tuple(numbers), gauss))
        self.waiting, self.due = [self.pieces[index] for index in state["waiting"]], []

    def take(self, accumulation: int = 1) -> list[list[int]]:
        """The pieces of this process's next batch, (rows, 128); of a step's batches, some may have none.

        Args:
            accumulation: batches of this process in the step.
        """
        if not self.due:
            slots = processes.shares(self.batch(), accumulation * processes.count())
            self.due = slots[processes.rank() :: processes.count()]
        return self.due.pop(0)

    def expected_states(self, model, pieces: list[list[int]]):
        """What the base makes of pieces, (tokens, D), computed once for each.

        Args:
            model: with an adapter, which is switched off here.
        """
        import torch

        keys = [tuple(piece) for piece in pieces]
        if not all(key in self.expected for key in keys):
            with torch.no_grad(), model.disable_adapter():
                input_ids = torch.tensor(pieces, device=model.device)
                found = model.get_base_model().base_model(input_ids, use_cache=False).last_hidden_state
            self.expected |= zip(keys, found, strict=True)
        return torch.cat([self.expected[key] for key in keys])

    def share(self, nats):
        """A batch's share of a step's divergence; the shares of all batches and processes add up to it."""
        return nats / (self.rows * REPLAY_PIECE)


def trainer_class(on_cpu: bool, replay: Replay | None = None):
    """TRL's trainer with replay if wanted; on a CPU with a loss that projects only the positions that have a label.

    TRL's own loss does that on GPUs, where it has a Triton kernel. On CPUs it scores every position, with a label or
    not, and computes entropies besides.
    """
    import torch
    from trl import SFTTrainer

    def replayed(trainer, model) -> tuple:
        """The pieces of a batch and what the base makes of them."""
        pieces = replay.take(trainer.current_gradient_accumulation_steps) if replay else []
        if not pieces:
            return ()
        adapted = trainer.accelerator.unwrap_model(model)
        return torch.tensor(pieces, device=adapted.device), replay.expected_states(adapted, pieces)

    class CpuTrainer(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            general = replayed(self, model)

            def summed(adapted, **inputs):
                return summed_losses(adapted.get_base_model(), **inputs, replayed=general)

            inner = self.accelerator.unwrap_model(model)
            loss, nats = processes.within_forward(model, inner, summed, **inputs)
            count = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"][:, 1:] != -100).sum()
            self._total_train_tokens += int(inputs["attention_mask"].sum())
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
            loss = loss / torch.as_tensor(count).clamp(min=1)
            # the count is that of all processes, whose gradients are averaged
            return (loss + replay.share(nats) if general else loss) * processes.count()

    class ReplayTrainer(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss, general = super().compute_loss(model, inputs, False, num_items_in_batch), replayed(self, model)
            if not general:
                return loss
            nats = divergence(self.accelerator.unwrap_model(model).get_base_model(), *general)
            return loss + replay.share(nats) * processes.count()

    if on_cpu:
        return CpuTrainer
    return ReplayTrainer if replay else SFTTrainer


def summed_losses(model, input_ids, attention_mask, labels, replayed: tuple = ()) -> tuple:
    """Summed cross-entropy of the labelled positions and summed divergence of replayed text, in nats, in one pass.

    Args:
        model: with a frozen output head.
        input_ids, attention_mask, labels: (B, T); labels are -100 where nothing is scored.
        replayed: `input_ids` of general text, (P, 128), and what the base makes of it, (P 128, D); or nothing.

    Returns:
        Two scalars; the second is 0 if nothing is replayed.
    """
    import torch.nn.functional as F

    from llama_qna.training.cpu import kernels, layers

    parts = [(input_ids, attention_mask)] + ([(replayed[0], None)] if replayed else [])
    hidden, *general = layers.hidden_states(model, *parts)
    head = model.get_output_embeddings().weight
    following = F.pad(labels[:, 1:], (0, 1), value=-100)[attention_mask.bool()]  # (tokens,)
    scored = following != -100
    loss = kernels.cross_entropy(hidden[scored], head, following[scored])
    return loss, kernels.divergence(general[0], head, replayed[1]) if replayed else loss.new_zeros(())


def divergence(model, input_ids, expected):
    """Summed KL(base || model) of general text, in nats; arguments as `replayed` of `summed_losses`."""
    from llama_qna.training.cpu import kernels, layers

    (found,) = layers.hidden_states(model, (input_ids, None))
    return kernels.divergence(found, model.get_output_embeddings().weight, expected)
