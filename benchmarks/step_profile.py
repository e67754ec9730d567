"""Where the time of a training step goes: the steps of the benchmark `training`, our way, under PyTorch's profiler.

Writes `benchmarks/results/step_profile.json`, of which `benchmarks.report` makes a table. The profiler itself makes
steps a tenth slower.

    python -m benchmarks.step_profile [VARIANT]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import ours
from benchmarks.job import SIZES, Job, limits
from llama_qna.models.shapes import shapes_of
from llama_qna.project import provenance
from llama_qna.project.files import write_json
from llama_qna.project.stage import add_to_note
from llama_qna.project.variant import REPOSITORY, Variant

PROFILED = range(3, 13)  # steps, without the first ones, which take memory from the system
HEAD, MATRICES, ADAPTERS = "output head: products", "layers' matrices: products", "adapters: products"
ATTENTION, WEIGHTS = "attention: products", "attention: softmax"
PASSES, BETWEEN = "passes over memory, element by element", "between the operations (Python, autograd, dispatch)"


def kind(name: str, shapes: list, vocabulary: int, rank: int) -> str | None:
    """Which row of the table an operation belongs to; None: it computes nothing itself."""
    if not name.startswith("aten::"):
        return BETWEEN
    if name in ("aten::bmm", "aten::baddbmm_"):
        return ATTENTION
    if name in ("aten::mm", "aten::addmm_", "aten::addmm"):
        sizes = {size for shape in shapes for size in shape}
        return HEAD if vocabulary in sizes else ADAPTERS if sizes & {rank, 2 * rank} else MATRICES
    return WEIGHTS if "softmax" in name else PASSES


def operations(name: str, shapes: list) -> int:
    """Floating-point operations of a product, 0 of anything else."""
    if name not in ("aten::mm", "aten::addmm_", "aten::addmm", "aten::bmm", "aten::baddbmm_"):
        return 0
    left, right = [shape for shape in shapes if len(shape) > 1][-2:] if "add" in name else shapes[:2]
    batch = left[0] if len(left) == 3 else 1
    return 2 * batch * left[-2] * left[-1] * right[-1]


def profile(variant: Variant) -> dict:
    """Seconds and operations of each kind, the seconds and tokens of the steps in all."""
    import torch
    from transformers import TrainerCallback

    from llama_qna.models import planning, prompts
    from llama_qna.models.base import load_base, load_tokenizer
    from llama_qna.project.data import read_chunks
    from llama_qna.training.trainer import train_once

    class Watch(TrainerCallback):
        """Turns the profiler on and off, and the clock."""

        seconds = 0.0

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == PROFILED.start - 1:
                self.profiler = torch.profiler.profile(
                    activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
                )
                self.profiler.start()
                self.started = time.perf_counter()
            if state.global_step == PROFILED.stop - 1:
                self.seconds = time.perf_counter() - self.started
                self.profiler.stop()

    watch, tokens = Watch(), []
    with tempfile.TemporaryDirectory() as folder:
        changed = ours.to_train(Job(variant, SIZES["full"]), Path(folder))
        recipe, table = changed.recipe, read_chunks(changed)
        tokenizer = load_tokenizer(recipe.base_model)
        model = load_base(recipe.base_model, recipe.quantization)
        model.get_decoder().register_forward_pre_hook(
            lambda module, args, options: tokens.append(options["input_ids"].numel()), with_kwargs=True
        )
        length = recipe.pretraining.max_length
        rows = [row for text in table.text for row in prompts.text_rows(tokenizer, text, length)]
        batch = planning.for_stage(changed, "pretraining", rows)
        attempt = Path(folder) / "attempt"
        attempt.mkdir()
        add_to_note(attempt, key="profile")
        train_once(changed, "pretrain", model, tokenizer, rows, attempt, batch, callbacks=[watch])
    known, found = shapes_of(recipe.base_model)[0], defaultdict(lambda: {"seconds": 0.0, "operations": 0})
    for event in watch.profiler.key_averages(group_by_input_shape=True):
        shapes = [shape for shape in event.input_shapes or [] if isinstance(shape, (list, tuple)) and len(shape) > 1]
        row = found[kind(event.key, shapes, known.vocabulary, recipe.lora.r)]
        row["seconds"] += event.self_cpu_time_total / 1e6
        row["operations"] += event.count * operations(event.key, shapes)
    told = sum(row["seconds"] for row in found.values())
    found[BETWEEN]["seconds"] += max(0.0, watch.seconds - told)
    steps = slice(PROFILED.start - 1, PROFILED.stop - 1)
    return {"seconds": watch.seconds, "tokens": sum(tokens[steps]), "steps": len(PROFILED), "kinds": found}


def main(name: str = "paper_135m") -> None:
    variant = Variant.load(name)
    about = {"variant": name, "limits": limits(variant)} | profile(variant)
    about |= {
        "date": datetime.now(UTC).date().isoformat(),
        "git": provenance.git_state(),
        "machine": provenance.machine(),
    }
    write_json(REPOSITORY / "benchmarks/results/step_profile.json", about | {"versions": provenance.versions()})


if __name__ == "__main__":
    main(*sys.argv[1:])
