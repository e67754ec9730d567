"""What was trained on what: the base, the checkpoints of a variant, and the one that ships, if they belong together.

    base -+- `pretraining`: an adapter on the base, learned from the chunks
          |      |
          |      +- `finetuning`, learned from the pairs. With `stacking: merge` a new adapter on 16-bit weights into
          |         which that of pretraining was merged (`pretraining/merged`); with `continue` the same one goes on
          |
          +- `finetuning_only`: an adapter on the base, learned from the pairs, to compare with

A stage keeps several checkpoints of its adapter. The last one of pretraining is what fine-tuning starts from; of those
of fine-tuning the one ships that evaluation chose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llama_qna import UserError
from llama_qna.models.safety import read_adapter_config
from llama_qna.project.files import read_json, sha256
from llama_qna.project.recipe import EMBEDDED
from llama_qna.project.stage import check_output, outputs_sha256, sha256_once, valid_record
from llama_qna.project.variant import Reader, Variant


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a stage's folder, by step."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


READER = "reader_135m"


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


def start_of_finetuning(variant: Variant) -> tuple[Path | None, Path | None]:
    """What fine-tuning starts from: a folder with weights in place of the base's, and an adapter to go on with.

    Raises:
        UserError: pretraining has not run on this machine, or what it wrote is damaged.
    """
    adapter = _pretrained(variant)
    if variant.recipe.stacking == "continue":
        return None, adapter
    check_output(variant, "pretrain", "merged/model.safetensors")
    return variant.pretraining / "merged", None


def pretrained_sha256(variant: Variant) -> str:
    """The sha256 of all that pretraining made.

    Raises:
        UserError: its record is damaged or missing.
    """
    try:
        return outputs_sha256(variant.pretraining)
    except (OSError, ValueError, KeyError, TypeError):
        raise _without_record(variant, "pretrain") from None


def trained(variant: Variant, name: str) -> tuple[Path | None, Path | None]:
    """The folder of weights (None: the base's own) and the adapter (None: none) of a model of a variant.

    Args:
        name: `base`, `reader`, `pretrained` or `finetuned`.

    Raises:
        UserError: it has not been trained on this machine, or does not belong to the recipe any more.
    """
    if name == "base":
        return None, None
    if name == "reader":
        return None, reader_of(variant).adapter
    if name == "pretrained":
        return None, _pretrained(variant)
    adapter = shipped_checkpoint(variant)
    point = next(point for point in points_of(variant) if point.adapter == adapter)
    return point.weights, adapter


def has_reader(variant: Variant) -> bool:
    """Whether there is a reader for the base of a variant."""
    return variant.recipe.base_model == EMBEDDED


def reader_of(variant: Variant, name: str = READER) -> Reader:
    """The reader of a variant's base.

    Raises:
        UserError: there is none for this base, or its adapter is not the one that was made.
    """
    reader = Reader.load(name)
    if reader.recipe.base_model != variant.recipe.base_model:
        raise UserError(f"there is no reader for {variant.recipe.base_model}; {name} reads for {EMBEDDED}")
    check_reader(reader)
    return reader


def start_of_training(variant: Variant) -> Path | None:
    """The adapter that training begins from where the recipe names one; None for a fresh one.

    Raises:
        UserError: it is damaged, or stands on another base or another quantization than the recipe's.
    """
    if variant.recipe.start is None:
        return None
    reader = reader_of(variant, variant.recipe.start)
    there, here = reader.recipe.quantization, variant.recipe.quantization
    if there != here:
        differ = ", ".join(key for key, value in there if value != getattr(here, key))
        raise UserError(f"start: {reader.name} stands on another quantization than {variant.name} ({differ})")
    return reader.adapter


def check_reader(reader: Reader) -> None:
    """Refuse a reader's adapter that is not there, or not the one that its record names."""
    weights, record = reader.adapter / "adapter_model.safetensors", reader.folder / "run.json"
    if not weights.is_file():
        raise UserError(f"{reader.name} has no adapter: run `make reader` (about an hour), or take the committed one")
    try:
        made = read_json(record)["outputs"]["adapter/adapter_model.safetensors"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{reader.name}/run.json is damaged ({reason}): `git checkout {reader.name}`") from None
    if sha256(weights) != made:
        raise UserError(f"{weights} is damaged (its sha256 is not that of {record.name}): `git checkout {reader.name}`")


def points_of(variant: Variant) -> list[Point]:
    """The base, then the checkpoints of each stage by step.

    Raises:
        UserError: nothing is fine-tuned yet, or a checkpoint is of another base than the recipe's.
    """
    weights, _ = start_of_finetuning(variant)
    points = [Point("base")] + [Point("pretraining", adapter) for adapter in checkpoints(variant.pretraining)]
    points += [Point("finetuning_only", adapter) for adapter in _trained_alone(variant)]
    points += [Point("finetuning", adapter, weights) for adapter in checkpoints(variant.finetuning)]
    if points[-1].stage != "finetuning":
        raise UserError(f"no fine-tuned model yet for {variant.name}: run `{variant.again('finetune')}` first")
    _check_order(variant)
    for point in points[1:]:
        base = read_adapter_config(point.adapter)["base_model_name_or_path"]
        if base != variant.recipe.base_model:
            raise UserError(f"{point.name} was trained on {base}, but the recipe's base is {variant.recipe.base_model}")
        _check_adapter(variant, point.adapter)
    return points


def shipped_checkpoint(variant: Variant) -> Path:
    """The fine-tuning checkpoint that evaluation chose on its dev questions; the last one where it has not seen them.

    Raises:
        UserError: the variant has not been fine-tuned on this machine.
    """
    found = checkpoints(variant.finetuning)
    if not found:
        raise UserError(
            f"{variant.name} has no trained model on this machine: run `llama-qna run {variant.name}` first"
        )
    return chosen_checkpoint(variant) or found[-1]


def chosen_checkpoint(variant: Variant) -> Path | None:
    """The fine-tuning checkpoint that evaluation chose; None where it has not, or not from the weights as they are."""
    record = valid_record(variant.evaluation, "evaluate") or {"results": {}}
    for adapter in checkpoints(variant.finetuning):
        name = Point("finetuning", adapter).name
        if record["results"].get("chosen") == name:
            same = record["inputs"].get(name) == sha256_once(adapter / "adapter_model.safetensors")
            return adapter if same else None
    return None


def _pretrained(variant: Variant) -> Path:
    """The last checkpoint of pretraining, whole."""
    found = checkpoints(variant.pretraining)
    if not found:
        raise UserError(f"no pretrained model yet for {variant.name}: run `{variant.again('pretrain')}` first")
    _check_adapter(variant, found[-1])
    return found[-1]


def _check_adapter(variant: Variant, adapter: Path) -> None:
    """Refuse weights of an adapter that are not those which its stage wrote."""
    stage = next(stage for stage, folder in variant.stage_folders.items() if folder == adapter.parent)
    check_output(variant, stage, f"{adapter.name}/adapter_model.safetensors")


def _trained_alone(variant: Variant) -> list[Path]:
    """The checkpoints of fine-tuning without pretraining, if it was done with this recipe on these pairs."""
    record = valid_record(variant.finetuning_only, "finetune_only")
    if not record or record["inputs"]["qna.csv"] != sha256(variant.qna / "qna.csv"):
        return []
    alike = record["recipe"] == variant.recipe.model_dump(mode="json", include=set(record["recipe"]))
    return checkpoints(variant.finetuning_only) if alike else []


def _check_order(variant: Variant) -> None:
    """Refuse a fine-tuned model that does not belong to the pretrained one: the scores would be of neither."""
    pretrained = pretrained_sha256(variant)
    try:
        record = read_json(variant.finetuning / "run.json")
        begun_on, stacking = record["inputs"]["pretraining"], record["recipe"]["stacking"]
    except (OSError, ValueError, KeyError, TypeError):
        raise _without_record(variant, "finetune") from None
    if begun_on != pretrained or stacking != variant.recipe.stacking:
        raise UserError(
            f"{variant.name}: pretraining or `stacking` has changed since fine-tuning: "
            f"run `{variant.again('finetune')}` first"
        )


def _without_record(variant: Variant, stage: str) -> UserError:
    folder = variant.stage_folders[stage]
    return UserError(f"{folder.name}/run.json is damaged or missing: run `{variant.again(stage)}` again")
