"""Plans where they are used: before a stage loads its model, and for the terminal, part by part."""

from __future__ import annotations

from llama_qna import UserError
from llama_qna.models.device import GIB, available_memory, main_memory, measure
from llama_qna.models.plan import LIBRARIES, SHARE, Batch, Plan, memory, plan_stage, value_bytes
from llama_qna.models.shapes import shapes_of
from llama_qna.project import processes
from llama_qna.project.recipe import Recipe, TrainingStage
from llama_qna.project.variant import Variant

STAGES = ("pretraining", "finetuning")


def for_stage(variant: Variant, name: str, rows: list[dict]) -> Batch:
    """Plan a stage that is about to load its model: print the plan and return how rows pass through the model.

    A model that is split over processes, or whose shapes cannot be read without the hub, is not planned: the recipe's
    batch is taken as it is.

    Args:
        rows: `input_ids` and `labels` of each.

    Raises:
        UserError: it does not fit, nor does the merging after it.
    """
    from llama_qna.models import device as device_module

    stage: TrainingStage = getattr(variant.recipe, name)
    try:
        shapes_of(variant.recipe.base_model)
        if processes.sharded():
            raise UserError("the model is split over the processes (FSDP)")
    except UserError as error:
        print(f"no plan: {error}")
        return Batch(processes.rows_each(stage.batch_size), stage.max_length, 1, stage.gradient_checkpointing)
    device = device_module.device().split(":")[0]
    lengths = [len(row["input_ids"]) for row in rows]
    labelled = sum(label != -100 for row in rows for label in row["labels"]) / max(1, sum(lengths))
    found = plan_stage(variant, name, available_memory(device), device, lengths, labelled)
    print(found.line())
    if name == "pretraining" and (refused := merging_refused(variant.recipe, main_memory())):
        raise UserError(refused)
    return processes.from_main(found.batch)  # the same in every process, whatever each found free


def merging_refused(recipe: Recipe, there: int) -> str | None:
    """Why the merging after pretraining cannot be done with that many bytes of main memory; None where it can.

    It takes the whole 16-bit base in main memory, also where the training itself is on a GPU.
    """
    if recipe.stacking != "merge":
        return None
    shapes, _ = shapes_of(recipe.base_model)
    need = value_bytes("cpu") * (shapes.linear_weights + shapes.other_weights) + LIBRARIES["cpu"]
    if need <= there:
        return None
    return (
        f"merging the adapter into the 16-bit base takes {need / GIB:.1f} GiB of main memory after pretraining, and "
        f"there are {there / GIB:.1f}: set `stacking: continue` in the recipe"
    )


def report(variant: Variant, budget: int | None = None, device: str | None = None, seconds: float = 1.5) -> str:
    """Plan a variant's training stages and its answering, with the time by the limit that is measured here.

    Args:
        budget: bytes of memory; by default what this machine has free.
        device: `cpu` or `cuda`; by default that of this machine. Another one's speed cannot be measured here.
        seconds: how long to measure.

    Raises:
        UserError: the shapes are not known, or a stage does not fit.
    """
    from llama_qna.models.device import device as found_device

    here = found_device().split(":")[0]
    device = device or here
    if budget is None and device != here:
        raise UserError(f"--device {device}: not this machine, so say its memory with --memory")
    budget = budget or available_memory(device)
    shapes, source = shapes_of(variant.recipe.base_model)
    plans = [plan_stage(variant, name, budget, device, *_rows(variant, name)) for name in STAGES]
    lines = [f"{variant.recipe.base_model}: {_billions(shapes)} weights, {shapes.layers} layers, by {source}", ""]
    lines += _table({each.stage: each.parts for each in plans} | {"answering": _answering(variant, device)})
    lines += ["", *(each.line() for each in plans)]
    if device == here:
        limit = measure(tuple(shapes.linears.values()), min(4096, plans[0].batch.tokens), seconds)
        products, copies = f"{limit['matmul'] / 1e12:.2f} TFLOP/s", f"{limit['copy'] / 1e9:.0f} GB/s"
        lines.append(f"limit measured here: {products} in matrix products, {copies} in copies of memory")
        lines += [_time(each, limit["matmul"]) for each in plans]
    else:
        lines.append(f"no time: the limit of a {device} cannot be measured here")
    if device == here and (note := merging_refused(variant.recipe, main_memory())):
        lines.append(f"note: {note}")
    return "\n".join(lines)


def _rows(variant: Variant, name: str) -> tuple[list[int] | None, float]:
    """Tokens of each row of a stage and the share that is scored, where the rows exist already."""
    import pandas as pd

    stage, path = getattr(variant.recipe, name), variant.chunks / "chunks.csv"
    if name == "pretraining" and path.is_file():
        chunks = pd.read_csv(path)
        return [int(tokens) for tokens in chunks[chunks.split == "train"].tokens.clip(upper=stage.max_length)], 1.0
    return None, 1.0


def _answering(variant: Variant, device: str) -> dict[str, int]:
    """Bytes while questions are answered in batches: each row a whole window and an answer."""
    recipe = variant.recipe
    shapes, _ = shapes_of(recipe.base_model)
    evaluation, wide = recipe.evaluation, value_bytes(device)
    row = recipe.finetuning.max_length + evaluation.max_new_tokens
    pair = 2 * shapes.key_value_heads * shapes.head_dim * wide
    one = Batch(1, 1, 1, False)
    parts = memory(shapes, recipe, recipe.finetuning.model_copy(update={"replay_tokens": 0}), one, device)
    kept = ("Python and libraries", "weights", "kept", "adapters")
    parts = {name: size for name, size in parts.items() if name.startswith(kept)}
    parts["cache of keys and values"] = shapes.layers * pair * row * evaluation.batch_size
    parts["logits and one layer's passing values"] = (wide + 4) * shapes.vocabulary * evaluation.batch_size
    return parts


def _table(columns: dict[str, dict[str, int]]) -> list[str]:
    names = list(dict.fromkeys(name for parts in columns.values() for name in parts))
    lines = [f"{'GiB at the peak':44}" + "".join(f"{column:>14}" for column in columns)]
    for name in names:
        cells = (f"{parts[name] / GIB:>14.2f}" if name in parts else f"{'-':>14}" for parts in columns.values())
        lines.append(f"{name:44}" + "".join(cells))
    return [*lines, f"{'all':44}" + "".join(f"{sum(parts.values()) / GIB:>14.2f}" for parts in columns.values())]


def _time(planned: Plan, limit: float) -> str:
    step = planned.seconds_per_step(limit)
    share = f"at {SHARE[planned.device]:.0%} of the limit"
    if planned.steps is None:
        return f"time: {planned.stage}: {step:.2f} s a step {share}; the number of steps is not known before its rows"
    return f"time: {planned.stage}: {planned.steps} steps of {step:.2f} s {share}, {_duration(planned.steps * step)}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _billions(shapes) -> str:
    weights = shapes.linear_weights + shapes.other_weights
    return f"{weights / 1e9:.1f} billion" if weights > 1e9 else f"{weights / 1e6:.0f} million"
