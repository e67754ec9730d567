"""What a variant will take on this machine, for the terminal, before anything is loaded.

Training is counted in operations (`models.plan`). The other stages are set beside it, in tokens of pretraining that
take as long; these were fitted to the published runs of paper_135m and physics_books_135m, which they meet within a
factor of about two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llama_qna import UserError
from llama_qna.models.device import GIB, available_memory, kind_of_device, main_memory, measure
from llama_qna.models.plan import SHARE, Plan, answering, plan_stage
from llama_qna.models.planning import merging_refused
from llama_qna.models.prompts import CONTEXT_TOKENS
from llama_qna.models.shapes import shapes_of
from llama_qna.project.recipe import Recipe
from llama_qna.project.variant import Variant
from llama_qna.text.tables import aligned

STAGES = ("pretraining", "finetuning")

PAIR = 75  # tokens of a question with its answer
READING_ROW = 300  # tokens of a row of the reading set, or of a pair with passages, about
START = 8.0  # seconds until Python has its libraries and the base model, once a stage
CHUNK = 800  # tokens of pretraining: what the reader asks and answers about one chunk
WRITTEN = 8  # likewise, a token that the model writes itself, alone; it reads all weights for each
READ = 0.4  # a token whose likelihood is measured
ASKED = 50  # a question that is answered in a batch
GENERAL = 30_000  # tokens of other text that are measured
TEXTS = 3  # that are measured, of which the sample is drawn
WHOLE = 4  # points that are measured by everything: the base, the last of each stage, the one that ships


def report(variant: Variant, budget: int | None = None, on: str | None = None, seconds: float = 1.5, size=None) -> str:
    """The memory of a variant's training stages and of its answering, and the time by the limit that is measured here.

    Args:
        budget: bytes of memory; by default what this machine has free.
        on: `cpu` or `cuda`; by default that of this machine. Another one's speed cannot be measured here.
        seconds: how long to measure.
        size: of the documents (`documents.own.Size`); None where there are none yet, so that nobody knows how many rows
            they make.

    Raises:
        UserError: the shapes are not known, or a stage does not fit.
    """
    on = on or kind_of_device()
    here = on == kind_of_device()
    if budget is None and not here:
        raise UserError(f"--device {on}: not this machine, so say its memory with --memory")
    budget = budget or available_memory(on)
    recipe, (shapes, source) = variant.recipe, shapes_of(variant.recipe.base_model)
    plans = [plan_stage(variant, name, budget, on) for name in STAGES]
    rows, answered = answering(shapes, recipe, CONTEXT_TOKENS, on, budget)
    weights = shapes.linear_weights + shapes.other_weights
    weights = f"{weights / 1e9:.1f} billion" if weights > 1e9 else f"{weights / 1e6:.0f} million"
    lines = [f"{recipe.base_model}: {weights} weights, {shapes.layers} layers, by {source}", ""]
    lines += [parts_table(plans, answered), "", *(plan.line() for plan in plans)]
    lines.append(f"plan: answering: {rows} questions with their passages at once")
    if not here:
        return "\n".join([*lines, f"no time: the limit of a {on} cannot be measured here"])
    limit = measure(tuple(shapes.linears.values()), min(4096, plans[0].batch.tokens), seconds)
    products, copies = f"{limit['matmul'] / 1e12:.2f} TFLOP/s", f"{limit['copy'] / 1e9:.0f} GB/s"
    lines.append(f"limit measured here: {products} in matrix products, {copies} in copies of memory")
    if size:
        plans = [plan_stage(variant, name, budget, on, rows) for name, rows in expected_rows(recipe, size).items()]
    lines += [_time_here(plan, limit["matmul"]) for plan in plans]
    if refused := merging_refused(recipe, main_memory(), on):
        lines.append(f"note: {refused}")
    if size:
        times = stage_times(recipe, size, plans, limit["matmul"])
        each = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in times.items())
        whole = duration(sum(times.values()))
        lines += [f"documents: {size}", f"all stages on this machine, about: {each}; {whole} in all"]
    return "\n".join(lines)


def expected_rows(recipe: Recipe, size) -> dict[str, list[int]]:
    """Tokens of each row of the training stages that documents of a size (`documents.own.Size`) will make, about."""
    chunks, pairs, passages = max(1, size.chunks), max(1, size.pairs), recipe.finetuning.passages
    closed_book = round(pairs * passages.closed_book) if passages else pairs
    found = {
        "pretraining": [size.tokens // chunks] * chunks,
        "finetuning": [PAIR] * closed_book + [READING_ROW] * (pairs - closed_book),
    }
    for name, rows in found.items():
        stage = getattr(recipe, name)
        rows = rows * stage.rounds
        rows += [READING_ROW] * round(stage.reading_rows * len(rows))
        found[name] = [min(length, stage.max_length) for length in rows]
    return found


def stage_times(recipe: Recipe, size, plans: list[Plan], limit: float) -> dict[str, float]:
    """Seconds of each stage here, in the order of the data.

    Args:
        size: of the documents (`documents.own.Size`).
        plans: of the two training stages, with their `expected_rows`.
        limit: FLOP/s that were measured.
    """
    pretraining, finetuning = plans
    token = pretraining.seconds_per_step(limit) / (pretraining.batch_size * pretraining.mean)
    times = {"load": START + size.seconds}
    generation, settings = recipe.generation, recipe.evaluation
    if not generation.endpoint and not generation.qna_file:
        chunk = CHUNK
        if generation.method != "reader":
            chunk = WRITTEN * min(generation.max_new_tokens, 2 * PAIR * generation.pairs_per_chunk)
        times["generate"] = START + size.chunks * chunk * token
    for verb, plan in (("pretrain", pretraining), ("finetune", finetuning)):
        times[verb] = START + plan.steps * plan.seconds_per_step(limit)
    asked = min(size.pairs, settings.max_questions or size.pairs)
    whole = READ * (size.tokens + GENERAL) + ASKED * asked
    sample = READ * TEXTS * settings.sample_windows * settings.stride + ASKED * min(asked, settings.sample)
    saved = sum(math.ceil(plan.steps / getattr(recipe, plan.stage).save_steps) for plan in plans)
    times["evaluate"] = START + (WHOLE * whole + saved * min(sample, whole)) * token
    return times | {"figures": START}


def _time_here(plan: Plan, limit: float) -> str:
    step, share = plan.seconds_per_step(limit), f"at {SHARE[plan.device]:.0%} of the limit"
    if plan.steps is None:
        return (
            f"time: {plan.stage}: {step:.2f} s {share} for a step of rows of full length, {plan.mean} tokens; how many "
            "steps, and how long their rows are, is not known before there are documents"
        )
    steps = f"{plan.steps} steps of {step:.2f} s, their rows of {plan.mean} tokens on average"
    return f"time: {plan.stage}: {steps}, {share}: {duration(plan.steps * step)}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def parts_table(plans: Sequence[Plan], answered: dict[str, int]) -> str:
    """GiB of each part of the memory, a column a training stage and one for answering."""
    columns = {plan.stage: plan.parts for plan in plans} | {"answering": answered}
    rows = [["GiB at the peak", *columns]]
    for name in dict.fromkeys(name for parts in columns.values() for name in parts):
        rows.append([name, *(f"{parts[name] / GIB:.2f}" if name in parts else "-" for parts in columns.values())])
    rows.append(["all", *(f"{sum(parts.values()) / GIB:.2f}" for parts in columns.values())])
    return aligned(rows, right=True)
