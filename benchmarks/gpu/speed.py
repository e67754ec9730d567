"""Speed and memory of 7B and 13B at their true shapes with random weights, on one GPU under a cap of its memory."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

from llama_qna.models.device import GIB, compute_dtype, parse_memory
from llama_qna.models.shapes import shapes_of
from llama_qna.project.variant import Variant

WAYS = {
    "planned": "10 steps of 8 x 1,024 tokens as planned, peak against plan, share of the card's measured limit",
    "checkpointing": "the same with gradient checkpointing",
    "answers": "tokens a second, greedy and sampled, at 1, 32 and 128 rows",
    "trl": "the same rows through TRL's defaults",
}
ROWS, LENGTH, STEPS = 8, 1024, 10
NEW_TOKENS = 64


def measure(way: str, name: str, cap: str) -> dict:
    """One way of one variant under a cap such as `22GiB`; medians."""
    import torch

    variant, memory = Variant.load(name), parse_memory(cap)
    torch.cuda.set_per_process_memory_fraction(min(1.0, memory / torch.cuda.mem_get_info()[1]))
    return {"planned": planned, "checkpointing": checkpointed, "answers": answers, "trl": trl}[way](variant, memory)


def planned(variant: Variant, memory: int) -> dict:
    """The rehearsal of `llama-qna plan --rehearse`, with more steps; its speed is that of the median step."""
    from llama_qna.training import rehearsal

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(rehearsal, "STEPS", STEPS):
        found = rehearsal.rehearse(replace(variant, root=Path(folder)), memory, ROWS, LENGTH)
    speed = ROWS * LENGTH / statistics.median(found["seconds_of_steps"][1:])
    share = found["flops_per_step"] / (ROWS * LENGTH) * speed / found["limit"]["matmul"]
    told = {"tokens_per_second": round(speed, 1), "share_of_limit": round(share, 3)}
    told |= {key: found["batch"][key] for key in ("rows", "checkpointing")}
    return told | {key: round(found[key] / GIB, 2) for key in ("peak_training", "planned_peak")}


def checkpointed(variant: Variant, memory: int) -> dict:
    """As `planned`, all rows at once with gradient checkpointing."""
    from llama_qna.models import plan
    from llama_qna.training import rehearsal

    def with_checkpointing(short: Variant, name: str, budget: int, device: str, lengths: list[int]) -> plan.Plan:
        (shapes, _), stage = shapes_of(short.recipe.base_model), short.recipe.pretraining
        batch = plan.Batch(ROWS, LENGTH, 1, True)
        parts = plan.memory(shapes, short.recipe, stage, batch, device)
        flops = plan.step_flops(shapes, short.recipe, stage, batch, device)
        return plan.Plan(name, batch, ROWS, parts, budget, device, flops, STEPS, LENGTH)

    with mock.patch.object(rehearsal, "plan_stage", with_checkpointing):
        return planned(variant, memory)


def answers(variant: Variant, memory: int) -> dict:
    """Tokens a second of `models.generate`, whose rows are fitted to the memory."""
    from llama_qna.models.generate import continue_prompts
    from llama_qna.training.rehearsal import any_tokenizer, random_model

    shapes, _ = shapes_of(variant.recipe.base_model)
    model, tokenizer, found = random_model(shapes, variant.recipe.quantization), any_tokenizer(), {}
    draw = random.Random(0)
    for rows in (1, 32, 128):
        prompts = [draw.choices(range(4, shapes.vocabulary), k=64) for _ in range(rows)]
        for kind, temperature in (("greedy", 0.0), ("sampled", 0.6)):
            options = {"temperature": temperature, "seeds": [str(n) for n in range(rows)], "batch_size": rows}
            started = time.perf_counter()
            continue_prompts(model, tokenizer, prompts, max_new_tokens=NEW_TOKENS, done=lambda count: None, **options)
            found[f"{kind}, {rows} rows"] = round(rows * NEW_TOKENS / (time.perf_counter() - started), 1)
    return found


def trl(variant: Variant, memory: int) -> dict:
    """Steps of `SFTTrainer` on the same model with the recipe's adapters; all its other settings are TRL's own."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from llama_qna.models import adapters
    from llama_qna.training import rehearsal

    recipe, clock = variant.recipe, rehearsal.Clock()
    shapes, _ = shapes_of(recipe.base_model)
    draw = random.Random(recipe.seed)
    ids = [draw.choices(range(3, shapes.vocabulary), k=LENGTH) for _ in range(STEPS * ROWS)]
    half = compute_dtype(recipe.quantization) is torch.float16  # TRL's own is bfloat16, which a T4 has not
    with tempfile.TemporaryDirectory() as folder:
        options = {"max_steps": STEPS, "per_device_train_batch_size": ROWS, "max_length": LENGTH}
        config = SFTConfig(folder, report_to="none", bf16=not half, fp16=half, **options)
        SFTTrainer(
            model=rehearsal.random_model(shapes, recipe.quantization),
            args=config,
            train_dataset=Dataset.from_list([{"input_ids": row, "labels": row} for row in ids]),
            processing_class=rehearsal.any_tokenizer(),
            peft_config=adapters.lora_config(recipe.lora),
            callbacks=[clock],
        ).train()
    speed = ROWS * LENGTH / statistics.median(clock.seconds[1:])
    return {"tokens_per_second": round(speed, 1), "peak_training": round(rehearsal.peak("cuda") / GIB, 2)}
