"""The models of a variant that are measured: the base and its checkpoints, if they belong together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llama_qna import UserError, records
from llama_qna.checkpoints import checkpoints, step_of
from llama_qna.training import start_of_finetuning
from llama_qna.variants import Variant

# of the terminal, to make the checkpoints of a stage again
VERBS = {"pretraining": "pretrain", "finetuning": "finetune", "finetuning_only": "finetune --without-pretraining"}


@dataclass(frozen=True)
class Point:
    """A model to measure: the base, or a checkpoint on the weights that it was trained on."""

    stage: str
    adapter: Path | None = None
    weights: Path | None = None

    @property
    def step(self) -> int:
        return step_of(self.adapter) if self.adapter else 0

    @property
    def name(self) -> str:
        return f"{self.stage} {self.adapter.name}" if self.adapter else self.stage


def points_of(variant: Variant) -> list[Point]:
    """The base, then the checkpoints of each stage by step; of fine-tuning without pretraining the last alone.

    Raises:
        UserError: nothing is fine-tuned yet, or a checkpoint is of another base than the recipe's.
    """
    weights, _ = start_of_finetuning(variant)
    points = [Point("base")] + [Point("pretraining", adapter) for adapter in checkpoints(variant.pretraining)]
    points += [Point("finetuning_only", adapter) for adapter in _trained_alone(variant)[-1:]]
    points += [Point("finetuning", adapter, weights) for adapter in checkpoints(variant.finetuning)]
    if points[-1].stage != "finetuning":
        raise UserError(f"no fine-tuned model yet for {variant.name}: run `llama-qna finetune {variant.name}` first")
    _check_order(variant)
    for point in points[1:]:
        base = json.loads((point.adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
        if base != variant.recipe.base_model:
            raise UserError(f"{point.name} was trained on {base}, but the recipe's base is {variant.recipe.base_model}")
        records.check_output(
            point.adapter.parent, VERBS[point.stage], f"{point.adapter.name}/adapter_model.safetensors"
        )
    return points


def _trained_alone(variant: Variant) -> list[Path]:
    """The checkpoints of fine-tuning without pretraining, if it was done with this recipe on these pairs."""
    record = records.valid_record(variant.finetuning_only, "finetune_only")
    if not record or record["inputs"]["qna.csv"] != records.sha256(variant.qna / "qna.csv"):
        return []
    alike = record["stage"] == "finetune_only" and record["recipe"] == variant.recipe.model_dump(
        mode="json", include=set(record["recipe"])
    )
    return checkpoints(variant.finetuning_only) if alike else []


def _check_order(variant: Variant) -> None:
    """Refuse a fine-tuned model that does not belong to the pretrained one: the scores would be of neither."""
    record = json.loads((variant.finetuning / "run.json").read_text(encoding="utf-8"))
    stale = record["inputs"]["pretraining"] != records.outputs_sha256(variant.pretraining)
    if stale or record["recipe"]["stacking"] != variant.recipe.stacking:
        raise UserError(
            f"{variant.name}: pretraining or `stacking` has changed since fine-tuning: "
            f"run `llama-qna finetune {variant.name}` first"
        )
