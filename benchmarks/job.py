"""One stage, done once in one way, in a process of its own: `python -m benchmarks.job STAGE WAY VARIANT SIZE`.

A process of its own, so that its peak of memory is that of this way alone. Its last line of output is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from llama_qna.documents.chunks import load
from llama_qna.models import shapes
from llama_qna.models.device import measure
from llama_qna.project.variant import Variant

# how much is done: pages extracted; chunks asked about; steps, rows and tokens a row of training; tokens of text;
# checkpoints of the sweep and questions to each; questions of asking
SIZES = {
    "full": dict(pages=300, chunks=64, steps=2, rows=8, length=1024, text=8192, checkpoints=6, swept=12, asked=32),
    "small": dict(pages=8, chunks=3, steps=1, rows=2, length=128, text=600, checkpoints=2, swept=1, asked=2),
}


class Job:
    """What a way of doing a stage is given, and what it says of itself.

    Attributes:
        variant: whose recipe, model and documents are used.
        size: how much is done, an entry of `SIZES`.
        items, tokens: pages, pairs, checkpoints or answers made, and useful tokens, none of them padding.
        computed, calls: tokens that passed through the layers of the model, padding included, and its forward passes.
    """

    def __init__(self, variant: Variant, size: dict[str, int]):
        self.variant, self.size = variant, size
        self.items = self.tokens = self.computed = self.calls = 0
        self.seconds = 0.0

    @contextmanager
    def timed(self):
        """What is measured; what comes before and after, such as loading the model, is not."""
        _finish()
        started = time.perf_counter()
        yield
        _finish()
        self.seconds += time.perf_counter() - started

    def watch(self, model):
        """Count what passes through the layers of a model; the model."""

        def count(module, args, options):
            given = options.get("input_ids", args[0] if args else options.get("inputs_embeds"))
            self.computed += given.shape[0] * given.shape[1]
            self.calls += 1

        model.get_decoder().register_forward_pre_hook(count, with_kwargs=True)
        return model

    def chunks(self):
        """The chunks of the variant's documents that are body text, as many as wanted, drawn with its seed."""
        table = load(self.variant)
        body = table[table.kind == "body"]
        return body.sample(min(self.size["chunks"], len(body)), random_state=self.variant.recipe.seed)

    def text(self, tokenizer) -> str:
        """The first part of the text of the variant's documents."""
        load(self.variant)
        ids = tokenizer((self.variant.chunks / "text.txt").read_text(), add_special_tokens=False)["input_ids"]
        return tokenizer.decode(ids[: self.size["text"]])

    def pairs(self, count: int) -> list[tuple[str, str]]:
        """The first training pairs of the variant's run."""
        from llama_qna.project.data import read_qna

        pairs = read_qna(self.variant)
        pairs = pairs[pairs.split == "train"].head(count)
        return list(zip(pairs.Question, pairs.Answer, strict=True))

    def points(self) -> list:
        """The last checkpoints of the variant's run, as many as wanted."""
        from llama_qna.models.lineage import points_of

        trained = [point for point in points_of(self.variant) if point.stage in ("pretraining", "finetuning")]
        return trained[-self.size["checkpoints"] :]

    def report(self) -> dict:
        facts = {"seconds": self.seconds, "items": self.items, "tokens": self.tokens}
        return facts | {"computed": self.computed, "calls": self.calls, "peak_gib": peak_gib()}


def _finish() -> None:
    """Wait for the GPU, if there is one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_gib() -> float:
    """The most memory that this process held, GiB; on a machine with a GPU that used, the GPU's."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def limits(variant: Variant) -> dict[str, float]:
    """FLOP/s of 16-bit matrix products at the shapes of the variant's model, and bytes/s of a copy of memory."""
    known, _ = shapes.shapes_of(variant.recipe.base_model)
    return measure(tuple(known.linears.values()), rows=2048, seconds=6)


def main(stage: str, way: str, variant: str, size: str) -> None:
    if stage == "limits":
        outcome = limits(Variant.load(variant))
    else:
        from benchmarks import ours, study

        job = Job(Variant.load(variant), SIZES[size])
        getattr({"study": study, "ours": ours}[way], stage)(job)
        outcome = job.report()
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
