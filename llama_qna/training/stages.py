"""The two training stages: domain pretraining on chunks, then fine-tuning on question-answer pairs.

Both train a LoRA adapter with TRL's `SFTTrainer`, on a base in NF4 (QLoRA, arXiv:2305.14314) or in its own 16 bits.
With `stacking: merge` the first adapter is merged into the 16-bit base in between, and in NF4 the result is quantized
again, the study's order; with `stacking: continue` the same adapter goes on. What begins with a reader (`start`) tells
in its record what became of the reading: `reading_loss`, before and after.

`pretrain` and `finetune` say what a stage reads, `_stage` is the training: rows, tokenizer, model, train, save. Around
it stand `once` (done before) and `trainer.train` (resume, and fewer rows at once where memory runs out).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llama_qna import UserError
from llama_qna.models.adapters import adapter_from, attach_adapter, merge_adapter
from llama_qna.models.base import load_base, load_tokenizer, model_identity
from llama_qna.models.device import release
from llama_qna.models.lineage import checkpoints, pretrained_sha256, start_of_finetuning, start_of_training
from llama_qna.project import processes
from llama_qna.project.data import REPLAY_TEXT, read_chunks, read_qna
from llama_qna.project.files import sha256
from llama_qna.project.recipe import Pretraining
from llama_qna.project.stage import once
from llama_qna.project.variant import SETTINGS, Variant
from llama_qna.training.passages import passage_rows
from llama_qna.training.reading import LOST, READING_SET, reading_loss, rows_beside
from llama_qna.training.rows import chunk_rows, pair_rows


def pretrain(variant: Variant) -> dict:
    """Stage 3: train an adapter on the text of the chunks, every token a label.

    >>> record = pretrain(Variant.load("paper_135m"))

    Writes `checkpoint-N/` every `save_steps` steps and at the end, `log.json` (one row every `logging_steps`, at least
    one), and with `stacking: merge` also `merged/`, the 16-bit base with the last adapter merged into it.

    Returns:
        The stage's record.

    Raises:
        UserError: no chunks yet, the base model cannot be had, or the loss is no longer a number.
    """
    settings, chunks = variant.recipe.pretraining, read_chunks(variant)
    chunks = chunks[chunks.split == "train"]
    inputs = {"chunks.csv": sha256(variant.chunks / "chunks.csv")} | model_identity(variant.recipe.base_model)

    def rows(tokenizer, what: str) -> list[dict]:
        return chunk_rows(tokenizer, chunks, settings.max_length, what) * settings.rounds

    return _stage(variant, "pretrain", settings, inputs, rows)


def finetune(variant: Variant, only: bool = False) -> dict:
    """Stage 4: train an adapter on the pairs, on top of the pretrained model, with the loss on answers only.

    With `finetuning.passages` the pairs come with passages too (`training.passages`).

    >>> record = finetune(Variant.load("paper_135m"))

    Writes `checkpoint-N/` and `log.json` as `pretrain` does.

    Args:
        only: start from the base without pretraining, in a folder of its own, to measure what pretraining is worth.

    Returns:
        The stage's record.

    Raises:
        UserError: no pairs or no pretraining yet, or the loss is no longer a number.
    """
    settings, pairs = variant.recipe.finetuning, read_qna(variant)
    pairs, chunks = pairs[pairs.split == "train"], read_chunks(variant) if settings.passages else None
    inputs = {"qna.csv": sha256(variant.qna / "qna.csv")}
    if chunks is not None:
        inputs["chunks.csv"] = sha256(variant.chunks / "chunks.csv")

    def rows(tokenizer, what: str) -> list[dict]:
        if chunks is None:
            return pair_rows(tokenizer, pairs, settings.max_length, what) * settings.rounds
        trained = chunks[chunks.split == "train"]
        return passage_rows(tokenizer, pairs, trained, settings, variant.recipe.seed, what)

    if only:
        inputs |= model_identity(variant.recipe.base_model)
        return _stage(variant, "finetune_only", settings, inputs, rows)
    weights, adapter = start_of_finetuning(variant)
    inputs["pretraining"] = pretrained_sha256(variant)
    return _stage(variant, "finetune", settings, inputs, rows, weights, adapter)


def _stage(
    variant: Variant,
    stage: str,
    settings: Pretraining,
    inputs: dict[str, str],
    rows_of: Callable,
    weights: Path | None = None,
    adapter: Path | None = None,
) -> dict:
    """Train an adapter, unless it was done before.

    Args:
        inputs: name and hash of what the rows and the model are made of.
        rows_of: makes the rows of all epochs with a tokenizer, and names the stage in what it says of them.
        weights, adapter: what training begins on; the base and the recipe's start where both are None.
    """
    recipe, what = variant.recipe, f"{variant.name} {settings.folder}"
    _check_processes(variant.name, settings)
    skill = None if weights or adapter else start_of_training(variant)

    def load():
        model = load_base(recipe.base_model, recipe.quantization, weights=weights)
        if adapter:
            return attach_adapter(model, adapter, trainable=True)
        return adapter_from(model, skill, recipe.lora, recipe.seed) if skill else model

    def work(folder: Path) -> dict:
        from llama_qna.training.trainer import train

        # --- tokenizer and rows
        tokenizer = load_tokenizer(recipe.base_model)
        rows = rows_of(tokenizer, what)
        rows += rows_beside(tokenizer, round(settings.reading_rows * len(rows)), settings.max_length, recipe.seed)

        # --- model, trainer, train: again with fewer rows at once where memory runs out
        results = train(variant, stage, load, tokenizer, rows, folder)
        if recipe.start and processes.is_main():
            trained = checkpoints(folder)[-1]
            results |= {"reading_loss": _reading_kept(variant, what, tokenizer, weights, adapter or skill, trained)}

        # --- save what fine-tuning begins on; else the last checkpoint is what is saved
        if stage == "pretrain" and recipe.stacking == "merge" and processes.is_main():
            merge_adapter(recipe.base_model, recipe.quantization, checkpoints(folder)[-1], folder / "merged")
            tokenizer.save_pretrained(folder / "merged")
        return results

    known = {"base_model", "seed", "quantization", "lora", "stacking", SETTINGS[stage]}
    if recipe.start:  # one that is not named is none, as before there was the key
        known.add("start")
    asked = recipe.model_dump(include=known)
    return once(variant, stage, asked, inputs | _read_beside(variant, settings), work, resumes=True)


def _reading_kept(
    variant: Variant, what: str, tokenizer, weights: Path | None, begun: Path | None, trained: Path
) -> dict[str, float]:
    """What a training that began with a reader made of its reading; said where it is worse by much.

    Args:
        what: the variant and the stage, as messages name them.
        weights, begun: what it began on: weights in place of the base's, and an adapter.
        trained: the adapter that it made.
    """

    def loss(adapter: Path | None) -> float:
        release()
        model = load_base(variant.recipe.base_model, variant.recipe.quantization, weights=weights)
        return round(reading_loss(attach_adapter(model, adapter) if adapter else model, tokenizer), 4)

    before, after = loss(begun), loss(trained)
    if after > before + LOST:
        print(f"{what}: the reading is undone, its loss rose from {before:.2f} to {after:.2f} nats (reading_rows)")
    return {"before": before, "after": after}


def _read_beside(variant: Variant, stage: Pretraining) -> dict[str, str]:
    """Name and hash of what training reads beside its rows."""
    start = start_of_training(variant)
    found = {REPLAY_TEXT.name: sha256(REPLAY_TEXT)} if stage.replay_tokens else {}
    if start or stage.reading_rows:
        found |= {path.name: sha256(path) for path in sorted(READING_SET.glob("*.jsonl"))}
    return found | ({variant.recipe.start: sha256(start / "adapter_model.safetensors")} if start else {})


def _check_processes(name: str, stage: Pretraining) -> None:
    """Refuse what several processes cannot share, before anything is loaded."""
    rows = processes.rows_each(stage.batch_size)
    if processes.sharded() and stage.replay_tokens:
        raise UserError(f"{name}: replay_tokens needs the whole model in each process, so no FSDP; or 0")
    if processes.count() > 1 and processes.is_main():
        print(f"{processes.count()} processes share each step of {stage.batch_size} rows, {rows} each")
