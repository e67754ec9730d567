"""Plans where they are used: before a stage loads its model, and for the terminal, part by part."""

from __future__ import annotations

from llama_qna import UserError
from llama_qna.models.cards import parts_table
from llama_qna.models.device import GIB, available_memory, device, main_memory, measure, release
from llama_qna.models.plan import LIBRARIES, SHARE, Batch, Plan, answering, loaded, plan_stage, value_bytes
from llama_qna.models.prompts import CONTEXT_TOKENS
from llama_qna.models.shapes import shapes_of
from llama_qna.project import processes
from llama_qna.project.recipe import Quantization, Recipe, TrainingStage
from llama_qna.project.variant import Variant

STAGES = ("pretraining", "finetuning")
READING_ROW = 300  # tokens of a row of the reading set, about


def for_stage(variant: Variant, name: str, rows: list[dict]) -> Batch:
    """Plan a stage that is about to load its model: print the plan and return how rows pass through the model.

    A model that is split over processes, or whose shapes cannot be read without the hub, is not planned: the recipe's
    batch is taken as it is.

    Args:
        rows: `input_ids` and `labels` of each.

    Raises:
        UserError: it does not fit, nor does the merging after it.
    """
    recipe: Recipe = variant.recipe
    stage: TrainingStage = getattr(recipe, name)
    try:
        shapes_of(recipe.base_model)
        if processes.sharded():
            raise UserError("the model is split over the processes (FSDP)")
    except UserError as error:
        print(f"no plan: {error}")
        return Batch(processes.rows_each(stage.batch_size), stage.max_length, 1, stage.gradient_checkpointing)
    kind = _kind_of_device()
    release()
    lengths = [len(row["input_ids"]) for row in rows]
    labelled = sum(len(row["labels"]) - row["labels"].count(-100) for row in rows) / max(1, sum(lengths))
    found = plan_stage(variant, name, available_memory(kind), kind, lengths, labelled)
    print(found.line())
    refused = merging_refused(recipe, main_memory(), kind)
    if name == "pretraining" and refused:
        raise UserError(refused)
    return processes.from_main(found.batch)  # the same in every process, whatever each found free


def _kind_of_device() -> str:
    """`cpu` or `cuda`."""
    return device().split(":")[0]


def fits(base_model: str, quantization: Quantization | None) -> bool:
    """Whether memory here has room for a base, in NF4 or, with None, in 16 bits; unknown shapes are let pass."""
    try:
        shapes, _ = shapes_of(base_model)
    except UserError:
        return True
    kind = _kind_of_device()
    release()
    return sum(loaded(shapes, quantization, kind).values()) <= available_memory(kind)


def merging_refused(recipe: Recipe, there: int, on: str) -> str | None:
    """Why the merging after pretraining cannot be done with that many bytes of main memory; None where it can.

    It takes the whole base in main memory, in the type that the training computes in, also where that is on a GPU.
    """
    if recipe.stacking != "merge":
        return None
    shapes, _ = shapes_of(recipe.base_model)
    need = value_bytes(on) * (shapes.linear_weights + shapes.other_weights) + LIBRARIES["cpu"]
    if need <= there:
        return None
    return (
        f"merging the adapter into the 16-bit base takes {need / GIB:.1f} GiB of main memory after pretraining, and "
        f"there are {there / GIB:.1f}: set `stacking: continue` in the recipe"
    )


def report(variant: Variant, budget: int | None = None, on: str | None = None, seconds: float = 1.5) -> str:
    """Plan a variant's training stages and its answering, with the time by the limit that is measured here.

    Args:
        budget: bytes of memory; by default what this machine has free.
        on: `cpu` or `cuda`; by default that of this machine. Another one's speed cannot be measured here.
        seconds: how long to measure.

    Raises:
        UserError: the shapes are not known, or a stage does not fit.
    """
    on = on or _kind_of_device()
    here = on == _kind_of_device()
    if budget is None and not here:
        raise UserError(f"--device {on}: not this machine, so say its memory with --memory")
    budget = budget or available_memory(on)
    shapes, source = shapes_of(variant.recipe.base_model)
    plans = [plan_stage(variant, name, budget, on, _rows(variant, name)) for name in STAGES]
    rows, answered = answering(shapes, variant.recipe, CONTEXT_TOKENS, on, budget)
    columns = {plan.stage: plan.parts for plan in plans} | {"answering": answered}
    weights = _count(shapes.linear_weights + shapes.other_weights)
    lines = [f"{variant.recipe.base_model}: {weights} weights, {shapes.layers} layers, by {source}", ""]
    lines += [parts_table(columns), "", *(plan.line() for plan in plans)]
    lines.append(f"plan: answering: {rows} questions with their passages at once")
    if not here:
        return "\n".join([*lines, f"no time: the limit of a {on} cannot be measured here"])
    limit = measure(tuple(shapes.linears.values()), min(4096, plans[0].batch.tokens), seconds)
    products, copies = f"{limit['matmul'] / 1e12:.2f} TFLOP/s", f"{limit['copy'] / 1e9:.0f} GB/s"
    lines.append(f"limit measured here: {products} in matrix products, {copies} in copies of memory")
    lines += [_time(plan, limit["matmul"]) for plan in plans]
    refused = merging_refused(variant.recipe, main_memory(), on)
    if refused:
        lines.append(f"note: {refused}")
    return "\n".join(lines)


def _rows(variant: Variant, name: str) -> list[int] | None:
    """Tokens of each row of a stage, where the rows exist already."""
    import pandas as pd

    stage, path = getattr(variant.recipe, name), variant.chunks / "chunks.csv"
    if name != "pretraining" or not path.is_file():
        return None
    chunks = pd.read_csv(path)
    counts, longest = chunks[chunks.split == "train"].tokens, stage.max_length
    # as `prompts.text_rows` cuts them
    rows = [min(longest, count - place) for count in counts for place in range(0, count - 1, longest - 1)]
    rows *= stage.rounds
    return rows + [min(longest, READING_ROW)] * round(stage.reading_rows * len(rows))


def _time(plan: Plan, limit: float) -> str:
    step = plan.seconds_per_step(limit)
    share = f"at {SHARE[plan.device]:.0%} of the limit"
    if plan.steps is None:
        return f"time: {plan.stage}: {step:.2f} s a step {share}; the number of steps is not known before its rows"
    seconds = plan.steps * step
    duration = f"{seconds / 60:.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
    return f"time: {plan.stage}: {plan.steps} steps of {step:.2f} s {share}, {duration}"


def _count(weights: int) -> str:
    return f"{weights / 1e9:.1f} billion" if weights > 1e9 else f"{weights / 1e6:.0f} million"
