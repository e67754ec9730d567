"""How long each stage of a variant will take here, from the size of its documents, before anything is loaded.

Training is counted in operations (`models.plan`). The other stages are set beside it, in tokens of pretraining that
take as long; these were fitted to the published runs of paper_135m and physics_books_135m, which they meet within a
factor of about two.
"""

from __future__ import annotations

import math

from llama_qna import UserError
from llama_qna.models.device import available_memory, device, measure
from llama_qna.models.plan import plan_stage
from llama_qna.models.shapes import shapes_of
from llama_qna.project.variant import Variant

START = 8.0  # seconds until Python has its libraries and the base model, once a stage
CHUNK = 120  # tokens of pretraining: what `two_step` asks and checks about one chunk
WRITTEN = 8  # likewise, a token that the model writes itself, alone; it reads all weights for each
PAIR = 75  # tokens of a question with its answer
READ = 0.4  # a token whose likelihood is measured
ASKED = 50  # a question that is answered in a batch
GENERAL = 30_000  # tokens of other text that are measured
TEXTS = 3  # that are measured, of which the sample is drawn
WHOLE = 4  # points that are measured by everything: the base, the last of each stage, the one that ships


def stage_times(variant: Variant, chunks: int, tokens: int, pairs: int, reading: float) -> dict[str, float]:
    """Seconds of each stage, in the order of the data.

    Args:
        chunks, tokens, pairs: what the documents are expected to give.
        reading: seconds that it took to read them.

    Raises:
        UserError: the shapes of the base model are not known, or a stage does not fit the memory.
    """
    recipe, kind = variant.recipe, device().split(":")[0]
    budget = available_memory(kind)
    lengths = {"pretraining": [tokens // max(1, chunks)] * chunks, "finetuning": [PAIR] * pairs}
    lengths = {
        name: [min(length, getattr(recipe, name).max_length) for length in rows] for name, rows in lengths.items()
    }
    plans = {name: plan_stage(variant, name, budget, kind, rows) for name, rows in lengths.items() if rows}
    shapes, _ = shapes_of(recipe.base_model)
    limit = measure(tuple(shapes.linears.values()), 4096, 1.5)["matmul"]
    trained = {name: plan.steps * plan.seconds_per_step(limit) for name, plan in plans.items()}
    plan = plans["pretraining"]
    token = trained["pretraining"] / (plan.steps * plan.batch_size * lengths["pretraining"][0])
    saved = sum(math.ceil(plan.steps / getattr(recipe, name).save_steps) for name, plan in plans.items())
    asked = min(pairs, recipe.evaluation.max_questions or pairs)
    times = {"load": START + reading}
    if not recipe.generation.endpoint and not recipe.generation.qna_file:
        times["generate"] = START + chunks * _chunk_cost(variant) * token
    times |= {"pretrain": START + trained["pretraining"], "finetune": START + trained.get("finetuning", 0.0)}
    settings = recipe.evaluation
    whole = READ * (tokens + GENERAL) + ASKED * asked
    sample = READ * TEXTS * settings.sample_windows * settings.stride + ASKED * min(asked, settings.sample)
    return times | {"evaluate": START + (WHOLE * whole + saved * min(sample, whole)) * token}


def _chunk_cost(variant: Variant) -> float:
    """What writing the pairs of one chunk takes, in tokens of pretraining."""
    generation = variant.recipe.generation
    if generation.method == "two_step":
        return CHUNK
    return WRITTEN * min(generation.max_new_tokens, 2 * PAIR * generation.pairs_per_chunk)


def report(variant: Variant, chunks: int, tokens: int, pairs: int, reading: float) -> str:
    """One line for the terminal; a server's time, and that of an unknown model, cannot be told."""
    try:
        times = stage_times(variant, chunks, tokens, pairs, reading)
    except UserError as error:
        return f"no times of the stages: {error}"
    parts = [f"{stage} {duration(seconds)}" for stage, seconds in times.items()]
    return f"all stages on this machine, about: {', '.join(parts)}; {duration(sum(times.values()))} in all"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
