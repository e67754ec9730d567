"""The two training stages: domain pretraining on chunks, then fine-tuning on question-answer pairs.

Both train a LoRA adapter on a base in NF4 (QLoRA, arXiv:2305.14314) with TRL's `SFTTrainer`. With `stacking: merge` the
first adapter is merged into the 16-bit base in between and the result is quantized again, the study's order; with
`stacking: continue` the same adapter goes on. A stage that was killed or stopped goes on at its newest valid checkpoint
(`checkpoints`, `resuming`).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from llama_qna.models import planning, prompts
from llama_qna.models.device import give_back_freed, keep_heap, map_blocks_from
from llama_qna.models.lineage import checkpoints, start_of_finetuning, step_of
from llama_qna.models.plan import Batch
from llama_qna.project import processes
from llama_qna.project.data import read_chunks, read_qna
from llama_qna.project.files import sha256, write_json
from llama_qna.project.recipe import TrainingStage
from llama_qna.project.stage import add_to_note, note, once, outputs_sha256
from llama_qna.project.variant import Variant
from llama_qna.training import loss, resume
from llama_qna.training.checkpoints import results_of_training, strip


def pretrain(variant: Variant) -> dict:
    """Stage 3: train an adapter on the text of the chunks, every token a label.

    Writes `checkpoint-N/` every `save_steps` steps and at the end, `log.json` (one row every `logging_steps`), and with
    `stacking: merge` also `merged/`, the 16-bit base with the last adapter merged into it.

    Returns:
        The stage's record.

    Raises:
        UserError: no chunks yet, the base model cannot be had, or the loss is no longer a number.
    """
    recipe = variant.recipe
    chunks = read_chunks(variant)
    chunks = chunks[chunks.split == "train"]
    processes.announce(recipe.pretraining.batch_size)

    def work(folder: Path) -> dict:
        from llama_qna.models import adapters
        from llama_qna.models.base import load_base, load_tokenizer

        tokenizer = load_tokenizer(recipe.base_model)
        rows = [prompts.text_row(tokenizer, text, recipe.pretraining.max_length) for text in chunks.text]

        def load():
            return load_base(recipe.base_model, recipe.quantization)

        results = _train(variant, "pretrain", load, tokenizer, rows, folder)
        if recipe.stacking == "merge" and processes.is_main():
            adapters.merge_adapter(recipe.base_model, checkpoints(folder)[-1], folder / "merged")
            tokenizer.save_pretrained(folder / "merged")
        return results

    from llama_qna.models.base import model_identity

    inputs = {"chunks.csv": sha256(variant.chunks / "chunks.csv")} | model_identity(recipe.base_model)
    asked = _recipe(variant, "pretraining")
    return once(variant, "pretrain", asked, inputs | _replayed(recipe.pretraining), work, resumes=True)


def finetune(variant: Variant, only: bool = False) -> dict:
    """Stage 4: train an adapter on the pairs, on top of the pretrained model, with the loss on answers only.

    Writes `checkpoint-N/` and `log.json` as `pretrain` does.

    Args:
        only: start from the base without pretraining, in a folder of its own, to measure what pretraining is worth.

    Returns:
        The stage's record.

    Raises:
        UserError: no pairs or no pretraining yet, or the loss is no longer a number.
    """
    recipe = variant.recipe
    pairs = read_qna(variant)
    pairs = pairs[pairs.split == "train"]
    weights, adapter = (None, None) if only else start_of_finetuning(variant)
    processes.announce(recipe.finetuning.batch_size)
    stage = "finetune_only" if only else "finetune"

    def work(folder: Path) -> dict:
        from llama_qna.models import adapters
        from llama_qna.models.base import load_base, load_tokenizer

        tokenizer = load_tokenizer(recipe.base_model)
        length = recipe.finetuning.max_length
        rows = [
            prompts.training_row(tokenizer, q, a, length) for q, a in zip(pairs.Question, pairs.Answer, strict=True)
        ]

        def load():
            model = load_base(recipe.base_model, recipe.quantization, weights=weights)
            return adapters.adapter_to_train(model, adapter) if adapter else model

        return _train(variant, stage, load, tokenizer, rows, folder)

    inputs = {"qna.csv": sha256(variant.qna / "qna.csv")}
    if only:
        from llama_qna.models.base import model_identity

        inputs |= model_identity(recipe.base_model)
    else:
        inputs |= {"pretraining": outputs_sha256(variant.pretraining)}
    asked = _recipe(variant, "finetuning")
    return once(variant, stage, asked, inputs | _replayed(recipe.finetuning), work, resumes=True)


def _recipe(variant: Variant, stage: str) -> dict:
    return variant.recipe.model_dump(include={"base_model", "seed", "quantization", "lora", "stacking", stage})


def _replayed(stage: TrainingStage) -> dict[str, str]:
    return {loss.REPLAY_TEXT.name: sha256(loss.REPLAY_TEXT)} if stage.replay_tokens else {}


def _train(variant: Variant, stage: str, load: Callable, tokenizer, rows: list[dict], folder: Path) -> dict:
    """Train an adapter on rows of `input_ids` and `labels` and write its checkpoints and its log into `folder`.

    The plan is printed before the model is loaded; where it was wrong and memory runs out, fewer rows pass at once.

    Args:
        load: loads the model; if it has an adapter already, training goes on with that.
    """
    results = results_of_training(folder, note(folder)["key"])
    if results is None:
        settings = _settings(variant, stage)
        what = f"{variant.name} {settings.folder}"
        batch = planning.for_stage(variant, "pretraining" if stage == "pretrain" else "finetuning", rows)
        each = batch.rows * batch.accumulation

        def attempt(start: Path | None, rows_at_once: int) -> dict:
            fitting = replace(batch, rows=rows_at_once, accumulation=each // rows_at_once)
            return _attempt(variant, stage, load(), tokenizer, rows, folder, fitting, start)

        results = resume.with_enough_memory(attempt, folder, each, batch.rows, what)
        if processes.is_main():
            add_to_note(folder, trained=results)
    if processes.is_main():
        for checkpoint in checkpoints(folder):
            strip(checkpoint)
    return results


def _settings(variant: Variant, stage: str) -> TrainingStage:
    return variant.recipe.pretraining if stage == "pretrain" else variant.recipe.finetuning


def _attempt(
    variant: Variant,
    name: str,
    model,
    tokenizer,
    rows: list[dict],
    folder: Path,
    batch: Batch,
    start: Path | None = None,
    callbacks: Sequence = (),
) -> dict:
    """Train once, from a checkpoint or from the first step.

    Args:
        batch: how the rows of a step pass through the model, as planned.
        callbacks: more of the trainer's, to watch the steps.
    """
    import torch
    from datasets import Dataset, disable_progress_bars
    from tqdm import tqdm
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig

    from llama_qna.models import adapters
    from llama_qna.models.device import compute_dtype, device
    from llama_qna.training.cpu import layers
    from llama_qna.training.shared_steps import shared_trainer

    stage, closing = _settings(variant, name), ExitStack()

    class KeepToPlan(TrainerCallback):
        """Holes in the heap, left by steps of many lengths, may not add up to much more than was planned.

        A little more is left to them: to take all memory anew costs a step of paper_135m a sixth of its time.
        """

        def on_step_end(self, args, state, control, **kwargs):
            if on_cpu and batch.peak:
                give_back_freed(int(1.05 * batch.peak))

    class Bar(TrainerCallback):
        """One line with the loss and the time left, in a terminal as in a notebook."""

        def on_train_begin(self, args, state, control, **kwargs):
            self.bar = closing.enter_context(
                tqdm(total=state.max_steps, initial=state.global_step, desc=stage.folder, unit="step", mininterval=1)
            )

        def on_step_end(self, args, state, control, **kwargs):
            self.bar.update()

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in (logs or {}):
                self.bar.set_postfix(loss=f"{float(logs['loss']):.2f}", refresh=False)

    replay = loss.Replay(tokenizer, stage.replay_tokens, variant.recipe.seed) if stage.replay_tokens else None
    disable_progress_bars()  # of preparing the rows: seconds, and lines between the bars that matter
    torch.manual_seed(variant.recipe.seed)
    on_cpu = device() == "cpu"
    dtype = compute_dtype(variant.recipe.quantization)
    config = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=stage.epochs,
        max_steps=stage.max_steps,
        per_device_train_batch_size=batch.rows,
        gradient_accumulation_steps=batch.accumulation,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # they are the base's dequantized weights, the same everywhere
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.scheduler,
        warmup_steps=stage.warmup_steps,
        weight_decay=stage.weight_decay,
        max_length=stage.max_length,
        packing=stage.packing,
        packing_strategy="wrapped",  # the study's: rows are joined and cut every max_length tokens, nothing is dropped
        # rows of like length share a batch, or else padding is computed too
        train_sampling_strategy="random" if stage.packing else "group_by_length",
        gradient_checkpointing=batch.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if batch.checkpointing else None,
        use_cpu=on_cpu,
        bf16=False,  # weights and adapters are bfloat16 themselves; autocast would only add casts
        fp16=dtype is torch.float16,
        logging_steps=stage.logging_steps,
        logging_nan_inf_filter=False,  # it would show the last good loss in place of NaN
        save_steps=stage.save_steps,
        save_only_model=processes.count() > 1,  # several do not go on from a checkpoint (`resuming`)
        seed=variant.recipe.seed,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        disable_tqdm=True,
    )
    base = shared_trainer(loss.trainer_class(on_cpu, replay), stage.batch_size)
    if on_cpu and variant.recipe.quantization.dequantize_once:
        keep_heap()
    elif on_cpu:
        map_blocks_from(2**24)
    trainer = resume.resumable(base, folder, lambda path: _describe(path, variant), replay, batch.rows)(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=None if hasattr(model, "peft_config") else adapters.lora_config(variant.recipe.lora),
        callbacks=[KeepToPlan(), Bar(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    if dtype is not torch.bfloat16:  # the scaler of float16 needs float32 adapters, and so does a float32 base
        for parameter in trainer.model.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    if on_cpu:
        layers.quicken(trainer.model)
    trainable, total = trainer.model.get_nb_trainable_parameters()
    merged = total - trainable if name == "pretrain" and variant.recipe.stacking == "merge" else 0
    what, command = f"{variant.name} {stage.folder}", f"llama-qna {_command(name)} {variant.name}"
    steps = math.ceil(stage.epochs * len(trainer.train_dataset) / stage.batch_size)
    saves = math.ceil((stage.max_steps if stage.max_steps > 0 else steps) / stage.save_steps)
    processes.first(lambda: resume.check_disk(trainer.model, folder, what, saves, merged))
    with closing:  # the bar ends its line before what is said of an error
        outcome = resume.train(trainer, start, folder, what, command)
    if not processes.is_main():
        return {}
    keys = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    log = [{key: row[key] for key in keys if key in row} for row in trainer.state.log_history if "loss" in row]
    write_json(folder / "log.json", log)
    for checkpoint in checkpoints(folder)[:-1]:
        if step_of(checkpoint) % stage.save_steps:  # made because the run was stopped
            shutil.rmtree(checkpoint)
    return {
        "rows": len(rows),
        "tokens_per_epoch": sum(len(row["input_ids"]) for row in rows),
        "steps": trainer.state.global_step,
        "trained_parameters": trainable,
        "all_parameters": total,
        "final_loss": log[-1]["loss"] if log else outcome.training_loss,
        "seconds_of_steps": round(trainer.seconds(), 1),
        "rows_at_once": batch.rows,
        "resumed_from": start.name if start else None,
        "checkpoints": [checkpoint.name for checkpoint in checkpoints(folder)],
    }


def _command(stage: str) -> str:
    return stage.replace("finetune_only", "finetune --without-pretraining")


def _describe(checkpoint: Path, variant: Variant) -> None:
    """Write into a checkpoint what it is an adapter of, and the recipe that made it."""
    from llama_qna.models.adapters import name_base_in_adapter

    name_base_in_adapter(checkpoint, variant.recipe.base_model)
    write_json(checkpoint / "recipe.json", variant.recipe.model_dump())
