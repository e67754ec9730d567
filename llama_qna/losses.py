"""What the two training stages minimize."""

from __future__ import annotations

import random

from llama_qna import distributed, prompts
from llama_qna.variants import REPOSITORY

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

    PIECE = 128

    def __init__(self, tokenizer, tokens: int, seed: int):
        text = prompts.encode_document(tokenizer, REPLAY_TEXT.read_text(encoding="utf-8"))
        self.pieces = [text[start : start + self.PIECE] for start in range(0, len(text) - self.PIECE, self.PIECE)]
        self.rows, self.random, self.waiting = max(1, tokens // self.PIECE), random.Random(seed), []
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

    def loss(self, model, accumulation: int = 1):
        """This batch's share of a step's divergence, a scalar; the shares of all batches and processes add up to it.

        Args:
            accumulation: batches of this process in the step.
        """
        import torch

        from llama_qna import kernels

        if not self.due:
            slots = distributed.shares(self.batch(), accumulation * distributed.processes())
            self.due = slots[distributed.rank() :: distributed.processes()]
        pieces = self.due.pop(0)
        if not pieces:
            return 0.0
        input_ids = torch.tensor(pieces, device=model.device)
        decoder = model.get_base_model().base_model
        keys = [tuple(piece) for piece in pieces]
        if not all(key in self.expected for key in keys):
            with torch.no_grad(), model.disable_adapter():
                self.expected |= zip(keys, decoder(input_ids, use_cache=False).last_hidden_state, strict=True)
        expected = torch.cat([self.expected[key] for key in keys])
        found = decoder(input_ids, use_cache=False).last_hidden_state
        nats = kernels.divergence(found.flatten(0, 1), model.get_output_embeddings().weight, expected)
        return nats / (self.rows * self.PIECE)


def trainer_class(on_cpu: bool, replay: Replay | None = None):
    """TRL's trainer; on a CPU with a loss that projects only the positions that have a label; with replay if wanted.

    TRL's own loss does that on GPUs, where it has a Triton kernel. On CPUs it scores every position, with a label or
    not, and computes entropies besides.
    """
    import torch
    from trl import SFTTrainer

    class CpuTrainer(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            def summed(adapted, **inputs):
                return labelled_loss(adapted.get_base_model(), **inputs)

            loss = distributed.within_forward(model, self.accelerator.unwrap_model(model), summed, **inputs)
            count = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"][:, 1:] != -100).sum()
            self._total_train_tokens += int(inputs["attention_mask"].sum())
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
            # the count is that of all processes, whose gradients are averaged
            return loss / torch.as_tensor(count).clamp(min=1) * distributed.processes()

    if on_cpu:
        _keep_freed_memory()
    base = CpuTrainer if on_cpu else SFTTrainer

    class ReplayTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = super().compute_loss(model, inputs, False, num_items_in_batch)
            parts = self.current_gradient_accumulation_steps
            return loss + replay.loss(self.accelerator.unwrap_model(model), parts) * distributed.processes()

    return ReplayTrainer if replay else base


def labelled_loss(model, input_ids, attention_mask, labels):
    """Summed cross-entropy of the labelled positions, with logits in float32, a tile at a time.

    Args:
        model: with a frozen output head.
        input_ids, attention_mask, labels: (B, T); labels are -100 where nothing is scored.
    """
    from llama_qna import kernels

    hidden = model.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    scored = labels[:, 1:] != -100  # (B, T - 1)
    return kernels.cross_entropy(hidden[:, :-1][scored], model.get_output_embeddings().weight, labels[:, 1:][scored])


def _keep_freed_memory() -> None:
    """Let glibc keep freed blocks: returning them to the system after every step costs a tenth of the time."""
    import ctypes

    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):  # another C library: slower, nothing else
        pass
