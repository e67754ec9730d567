"""Plans where they are used: before a stage loads its model, before weights are merged or loaded once more."""

from __future__ import annotations

from llama_qna import UserError
from llama_qna.models.device import GIB, available_memory, kind_of_device, main_memory, release
from llama_qna.models.plan import LIBRARIES, Batch, loaded, plan_stage, value_bytes
from llama_qna.models.shapes import shapes_of
from llama_qna.project import processes
from llama_qna.project.recipe import Quantization, Recipe, TrainingStage
from llama_qna.project.variant import Variant


def for_stage(variant: Variant, name: str, rows: list[dict]) -> Batch:
    """Plan a stage that is about to load its model: print the plan and return how rows pass through the model.

    A model that is split over processes, or whose shapes cannot be read without the hub, is not planned: the recipe's
    batch is taken as it is.

    Args:
        rows: `input_ids` of each.

    Raises:
        UserError: it does not fit, nor does the merging after it.
    """
    recipe: Recipe = variant.recipe
    stage: TrainingStage = getattr(recipe, name)
    if unplanned := _unplanned(recipe.base_model):
        print(f"no plan: {unplanned}")
        return Batch(processes.rows_each(stage.batch_size), stage.max_length, 1, stage.gradient_checkpointing)
    kind = kind_of_device()
    release()
    found = plan_stage(variant, name, available_memory(kind), kind, [len(row["input_ids"]) for row in rows])
    print(found.line())
    if name == "pretraining" and (refused := merging_refused(recipe, main_memory(), kind)):
        raise UserError(refused)
    return processes.from_main(found.batch)  # the same in every process, whatever each found free


def _unplanned(base_model: str) -> str:
    """Why the training of a model is not planned; empty where it is."""
    try:
        shapes_of(base_model)
    except UserError as error:
        return str(error)
    return "the model is split over the processes (FSDP)" if processes.sharded() else ""


def fits(base_model: str, quantization: Quantization | None) -> bool:
    """Whether memory here has room for a base, in NF4 or, with None, in 16 bits; unknown shapes are let pass."""
    try:
        shapes, _ = shapes_of(base_model)
    except UserError:
        return True
    kind = kind_of_device()
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
