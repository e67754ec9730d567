"""The two training stages: domain pretraining on chunks, then fine-tuning on question-answer pairs.

Both train a LoRA adapter on a base in NF4 (QLoRA, arXiv:2305.14314) with TRL's `SFTTrainer`. With `stacking: merge` the
first adapter is merged into the 16-bit base in between and the result is quantized again, the study's order; with
`stacking: continue` the same adapter goes on. What begins with a reader (`start`) tells in its record what became of
the reading: `reading_loss`, before and after. Each stage reads: rows, tokenizer, model, train, save; `trainer` has the
trainer, and all that surrounds a training stands in `trainer.train`.
"""

from __future__ import annotations

from pathlib import Path

from llama_qna import UserError
from llama_qna.models.adapters import adapter_from, attach_adapter, merge_adapter
from llama_qna.models.base import load_base, load_tokenizer, model_identity
from llama_qna.models.device import release
from llama_qna.models.lineage import checkpoints, start_of_finetuning, start_of_training
from llama_qna.project import processes
from llama_qna.project.data import REPLAY_TEXT, read_chunks, read_qna
from llama_qna.project.files import sha256
from llama_qna.project.recipe import Pretraining
from llama_qna.project.stage import once, outputs_sha256
from llama_qna.project.variant import Variant
from llama_qna.training.passages import passage_rows
from llama_qna.training.reading import LOST, READING_SET, reading_loss, rows_beside
from llama_qna.training.rows import chunk_rows, pair_rows


def pretrain(variant: Variant) -> dict:
    """Stage 3: train an adapter on the text of the chunks, every token a label.

    >>> record = pretrain(Variant.load("paper_135m"))

    Writes `checkpoint-N/` every `save_steps` steps and at the end, `log.json` (one row every `logging_steps`), and with
    `stacking: merge` also `merged/`, the 16-bit base with the last adapter merged into it.

    Returns:
        The stage's record.

    Raises:
        UserError: no chunks yet, the base model cannot be had, or the loss is no longer a number.
    """
    recipe, chunks = variant.recipe, read_chunks(variant)
    chunks = chunks[chunks.split == "train"]
    _check_processes(variant.name, recipe.pretraining)
    inputs = {"chunks.csv": sha256(variant.chunks / "chunks.csv")} | model_identity(recipe.base_model)
    inputs |= _read(variant, recipe.pretraining)

    def work(folder: Path) -> dict:
        return _pretrain(variant, chunks, folder)

    return once(variant, "pretrain", _recipe(variant, "pretraining"), inputs, work, resumes=True)


def _pretrain(variant: Variant, chunks, folder: Path) -> dict:
    from llama_qna.training.trainer import train

    recipe = variant.recipe

    # --- tokenizer and rows
    tokenizer, settings = load_tokenizer(recipe.base_model), recipe.pretraining
    rows = chunk_rows(tokenizer, chunks, settings.max_length, f"{variant.name} {settings.folder}") * settings.rounds
    rows += _reading_rows(tokenizer, settings, len(rows), recipe.seed)

    # --- model: loaded again where memory runs out
    def load():
        return _begun(variant)

    # --- train
    results = train(variant, "pretrain", load, tokenizer, rows, folder)
    results |= _reading_kept(variant, (None, None), folder)

    # --- save what fine-tuning begins on
    if recipe.stacking == "merge" and processes.is_main():
        merge_adapter(recipe.base_model, checkpoints(folder)[-1], folder / "merged")
        tokenizer.save_pretrained(folder / "merged")
    return results


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
    recipe, pairs = variant.recipe, read_qna(variant)
    pairs, chunks = pairs[pairs.split == "train"], read_chunks(variant) if recipe.finetuning.passages else None
    stage = "finetune_only" if only else "finetune"
    start = (None, None) if only else start_of_finetuning(variant)
    _check_processes(variant.name, recipe.finetuning)
    inputs = {"qna.csv": sha256(variant.qna / "qna.csv")}
    inputs |= {"chunks.csv": sha256(variant.chunks / "chunks.csv")} if chunks is not None else {}
    inputs |= model_identity(recipe.base_model) if only else {"pretraining": outputs_sha256(variant.pretraining)}
    inputs |= _read(variant, recipe.finetuning)

    def work(folder: Path) -> dict:
        return _finetune(variant, stage, pairs, chunks, start, folder)

    return once(variant, stage, _recipe(variant, "finetuning"), inputs, work, resumes=True)


def _finetune(
    variant: Variant, stage: str, pairs, chunks, start: tuple[Path | None, Path | None], folder: Path
) -> dict:
    from llama_qna.training.trainer import train

    recipe, (weights, adapter) = variant.recipe, start

    # --- tokenizer and rows
    tokenizer, settings = load_tokenizer(recipe.base_model), recipe.finetuning
    rows = _pair_rows(tokenizer, variant, pairs, chunks)
    rows += _reading_rows(tokenizer, settings, len(rows), recipe.seed)

    # --- model: on the merged base, or with the adapter that goes on
    def load():
        if weights is None and adapter is None:
            return _begun(variant)
        model = load_base(recipe.base_model, recipe.quantization, weights=weights)
        return attach_adapter(model, adapter, trainable=True) if adapter else model

    # --- train; the last checkpoint is what is saved
    results = train(variant, stage, load, tokenizer, rows, folder)
    return results | _reading_kept(variant, start, folder)


def _pair_rows(tokenizer, variant: Variant, pairs, chunks) -> list[dict]:
    """The rows of the pairs, of all epochs where these differ; with passages where there are chunks."""
    settings, what = variant.recipe.finetuning, f"{variant.name} {variant.recipe.finetuning.folder}"
    if chunks is None:
        return pair_rows(tokenizer, pairs, settings.max_length, what) * settings.rounds
    return passage_rows(tokenizer, pairs, chunks[chunks.split == "train"], settings, variant.recipe.seed, what)


def _reading_rows(tokenizer, settings: Pretraining, rows: int, seed: int) -> list[dict]:
    return rows_beside(tokenizer, round(settings.reading_rows * rows), settings.max_length, seed)


def _reading_kept(variant: Variant, start: tuple[Path | None, Path | None], folder: Path) -> dict:
    """What a training that began with a reader made of its reading; said where it is worse by much.

    Args:
        start: the weights and the adapter that it began with; the base and the recipe's start where they are None.
    """
    if not (variant.recipe.start and processes.is_main()):
        return {}
    recipe, (weights, adapter) = variant.recipe, start
    if weights is None and adapter is None:
        adapter = start_of_training(variant)
    tokenizer = load_tokenizer(recipe.base_model)

    def loss(of: Path | None) -> float:
        release()
        model = load_base(recipe.base_model, recipe.quantization, weights=weights)
        return round(reading_loss(attach_adapter(model, of) if of else model, tokenizer), 4)

    before, after = loss(adapter), loss(checkpoints(folder)[-1])
    if after > before + LOST:
        what = f"{variant.name} {folder.name.removesuffix('.partial')}"
        print(f"{what}: the reading is undone, its loss rose from {before:.2f} to {after:.2f} nats (reading_rows)")
    return {"reading_loss": {"before": before, "after": after}}


def _begun(variant: Variant):
    """The base, with the adapter that the recipe starts from."""
    recipe, start = variant.recipe, start_of_training(variant)
    model = load_base(recipe.base_model, recipe.quantization)
    return adapter_from(model, start, recipe.lora, recipe.seed) if start else model


def _recipe(variant: Variant, stage: str) -> dict:
    """What of a recipe a training stage depends on; a start that is not named is none, as before there was the key."""
    named = {"base_model", "seed", "quantization", "lora", "stacking", stage}
    return variant.recipe.model_dump(include=named | ({"start"} if variant.recipe.start else set()))


def _read(variant: Variant, stage: Pretraining) -> dict[str, str]:
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
