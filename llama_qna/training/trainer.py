"""A training, from rows to checkpoints: what surrounds it (`train`), and the training itself (`train_once`)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from datasets import Dataset, disable_progress_bars
from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig

from llama_qna.models import planning
from llama_qna.models.adapters import lora_config, name_base_in_adapter
from llama_qna.models.device import (
    compute_dtype,
    device,
    give_back_freed,
    keep_heap,
    lacks_for_compiling,
    map_blocks_from,
    release,
)
from llama_qna.models.lineage import checkpoints, step_of
from llama_qna.models.plan import Batch
from llama_qna.project import processes
from llama_qna.project.files import write_json
from llama_qna.project.recipe import TrainingStage
from llama_qna.project.stage import add_to_note, note
from llama_qna.project.variant import SETTINGS, Reader, Variant
from llama_qna.training import resume
from llama_qna.training.checkpoints import results_of_training, strip
from llama_qna.training.loss import OwnLoss, QuickLoss, Replay

LOGGED = ("step", "epoch", "loss", "learning_rate", "grad_norm")


def train(variant: Variant | Reader, stage: str, load: Callable, tokenizer, rows: list[dict], folder: Path) -> dict:
    """Train an adapter on rows of `input_ids` and `labels` and write its checkpoints and its log into `folder`.

    All that surrounds a training stands here: it is not done again where it came to its end before, its plan is printed
    before the model is loaded, it goes on at the newest valid checkpoint, and where memory runs out fewer rows pass at
    once.

    Args:
        stage: `pretrain`, `finetune` or `finetune_only`; of a reader `read`.
        load: loads the model; if it has an adapter already, training goes on with that.
    """
    results = results_of_training(folder, note(folder)["key"])
    if results is None:
        settings = settings_of(variant, stage)
        _check_gpu()
        batch = planning.for_stage(variant, SETTINGS[stage], rows)

        def attempt(start: Path | None, fitting: Batch) -> dict:
            return train_once(variant, stage, load(), tokenizer, rows, folder, fitting, start)

        results = resume.with_enough_memory(attempt, folder, batch, f"{variant.name} {settings.folder}")
        if processes.is_main():
            add_to_note(folder, trained=results)
    release()  # what follows loads a model of its own
    if processes.is_main():
        for checkpoint in checkpoints(folder):
            strip(checkpoint)
    return results


def train_once(
    variant: Variant | Reader,
    stage: str,
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
    recipe, settings = variant.recipe, settings_of(variant, stage)
    what, closing = f"{variant.name} {settings.folder}", ExitStack()
    torch.manual_seed(recipe.seed)
    disable_progress_bars()  # of preparing the rows: seconds, and lines between the bars that matter

    # --- trainer
    # of an adapter that is trained on, by name: TRL rounds its weights to bfloat16
    loaded = {name: weight.data.clone() for name, weight in model.named_parameters() if weight.requires_grad}
    _set_heap(recipe.quantization.dequantize_once)
    loss = QuickLoss if _alone_on_cpu() else OwnLoss
    trainer = type("Trainer", (resume.Resumable, loss), {})(
        model=model,
        args=sft_config(variant, settings, folder, batch),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=None if hasattr(model, "peft_config") else lora_config(recipe.lora),
        callbacks=[KeepToPlan(batch.peak), Bar(settings.folder, closing), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    replay = Replay(tokenizer, settings.replay_tokens, recipe.seed) if settings.replay_tokens else None
    trainer.prepare(folder, lambda checkpoint: _describe(checkpoint, variant), replay, batch.rows)
    _set_types(trainer.model, compute_dtype(recipe.quantization), loaded)

    # --- train
    trainable, total = trainer.model.get_nb_trainable_parameters()
    merged = total - trainable if stage == "pretrain" and recipe.stacking == "merge" else 0
    steps = math.ceil(settings.passes * len(trainer.train_dataset) / settings.batch_size)
    saves = math.ceil((settings.max_steps if settings.max_steps > 0 else steps) / settings.save_steps)
    processes.first(lambda: resume.check_disk(trainer.model, folder, what, saves, merged))
    with closing:  # the bar ends its line before what is said of an error
        outcome = resume.train(trainer, start, folder, what, variant.again(stage))

    # --- save
    if not processes.is_main():
        return {}
    about = {"trained_parameters": trainable, "all_parameters": total, "resumed_from": start.name if start else None}
    return _saved(trainer, outcome, rows, settings, batch, folder) | about


def _saved(trainer, outcome, rows: list[dict], settings: TrainingStage, batch: Batch, folder: Path) -> dict:
    """Write the log and leave the checkpoints that were planned; what a finished training says of itself."""
    state = trainer.state
    whole = {"step": state.global_step, "epoch": state.epoch, "loss": outcome.training_loss}
    log = log_of(state.log_history) or log_of([whole])  # nothing is logged of fewer steps than logging_steps
    write_json(folder / "log.json", log)
    for checkpoint in checkpoints(folder)[:-1]:
        if step_of(checkpoint) % settings.save_steps:  # made only because the run was stopped
            shutil.rmtree(checkpoint)
    return {
        "rows": len(rows),
        "tokens_per_epoch": round(sum(len(row["input_ids"]) for row in rows) / settings.rounds),
        "steps": state.global_step,
        "final_loss": log[-1]["loss"],
        "seconds_of_steps": round(trainer.seconds(), 1),
        "rows_at_once": batch.rows,
        "checkpoints": [checkpoint.name for checkpoint in checkpoints(folder)],
    }


def _alone_on_cpu() -> bool:
    """Whether the quick loss and layers compute; on GPUs, and for several processes, it is TRL's own loss."""
    return device() == "cpu" and processes.count() == 1


def log_of(history: list[dict]) -> list[dict]:
    """The rows of a trainer's history that tell a loss; null for what is no number.

    A step whose float16 gradients overflowed has an infinite norm: the scaler leaves it out, and training goes on.
    """
    rows = [{key: row[key] for key in LOGGED if key in row} for row in history if "loss" in row]
    return [{key: value if math.isfinite(value) else None for key, value in row.items()} for row in rows]


def _check_gpu() -> None:
    """Say, before anything is loaded, what of a machine with GPUs is not used, and why."""
    if device() == "cpu":
        return
    found = torch.cuda.device_count()
    if found > 1 and processes.count() == 1:
        print(f"{found} GPUs are visible; this process uses the first (torchrun uses several: docs/scaling.md)")
    if missing := lacks_for_compiling():
        from trl.kernels import chunked_logprob

        chunked_logprob._TRITON_AVAILABLE = False  # TRL's loss then takes plain operations: the same numbers
        packages = "`apt-get install gcc python3-dev` or `dnf install gcc python3-devel`"
        print(f"no {' and no '.join(missing)}: the loss is computed uncompiled, more slowly; mend it with {packages}")


def settings_of(variant: Variant | Reader, stage: str) -> TrainingStage:
    return getattr(variant.recipe, SETTINGS[stage])


def sft_config(variant: Variant, settings: TrainingStage, folder: Path, batch: Batch) -> SFTConfig:
    """The settings of TRL's trainer, from the recipe of a stage and how its rows pass through the model."""
    on_cpu, dtype = device() == "cpu", compute_dtype(variant.recipe.quantization)
    config = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=settings.passes,
        max_steps=settings.max_steps,
        per_device_train_batch_size=batch.rows,
        gradient_accumulation_steps=batch.accumulation,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # they are the base's dequantized weights, the same everywhere
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_length=settings.max_length,
        packing=settings.packing,
        packing_strategy="wrapped",  # the study's: rows are joined and cut every max_length tokens, nothing is dropped
        train_sampling_strategy=("group_by_length" if settings.group_by_length and not settings.packing else "random"),
        gradient_checkpointing=batch.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if batch.checkpointing else None,
        use_cpu=on_cpu,
        bf16=dtype is torch.bfloat16 and not _all_in_bfloat16(dtype),  # there autocast would only add casts
        fp16=not on_cpu and dtype is torch.float16,
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,  # it would show the last good loss in place of NaN
        save_steps=settings.save_steps,
        save_only_model=processes.count() > 1,  # several do not go on from a checkpoint (`resume`)
        seed=variant.recipe.seed,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        disable_tqdm=True,
    )
    # with several GPUs in sight the library would wrap the model in DataParallel, which TRL refuses
    config._n_gpu = min(1, config.n_gpu)
    return config


def _set_heap(dequantized: bool) -> None:
    """On a CPU keep freed blocks, or map large ones where weights are dequantized at each use."""
    if device() != "cpu":
        return
    if dequantized:
        keep_heap()
    else:
        map_blocks_from(2**24)


def _all_in_bfloat16(dtype: torch.dtype) -> bool:
    """Whether adapters train in bfloat16 as the weights are: on a CPU, and where FSDP wants tensors of one type.

    In bfloat16 AdamW's second moment loses small updates after some hundred steps. A GPU has the room for float32 and
    computes in 16 bits all the same, by autocast; the published runs on a CPU are those of bfloat16.
    """
    return dtype is torch.bfloat16 and (device() == "cpu" or processes.sharded())


def _set_types(model, dtype: torch.dtype, loaded: dict[str, torch.Tensor]) -> None:
    """Adapters in float32 where they are not all in bfloat16; quick layers where they are used.

    Args:
        loaded: the weights of an adapter that is trained on, by name, as they were loaded; they are taken out.
    """
    adapters = torch.bfloat16 if _all_in_bfloat16(dtype) else torch.float32
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = loaded.pop(name, parameter.data).to(adapters)
    if _alone_on_cpu():
        from llama_qna.training.cpu.layers import quicken

        quicken(model)


def _describe(checkpoint: Path, variant: Variant) -> None:
    """Write into a checkpoint what it is an adapter of, and the recipe that made it."""
    name_base_in_adapter(checkpoint, variant.recipe.base_model)
    write_json(checkpoint / "recipe.json", variant.recipe.model_dump())


class KeepToPlan(TrainerCallback):
    """Return freed memory to the system once this process holds 5% more than the planned peak; on a CPU alone.

    Steps of many lengths leave holes in the heap, which add up. Not after every step: to take all memory anew costs a
    step of paper_135m a sixth of its time.
    """

    def __init__(self, peak: int | None):
        self.peak = peak

    def on_step_end(self, args, state, control, **kwargs):
        if self.peak and device() == "cpu":
            give_back_freed(int(1.05 * self.peak))


class Bar(TrainerCallback):
    """One line with the loss and the time left, in a terminal as in a notebook."""

    def __init__(self, name: str, closing: ExitStack):
        self.name, self.closing = name, closing

    def on_train_begin(self, args, state, control, **kwargs):
        bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.name, unit="step", mininterval=1)
        self.bar = self.closing.enter_context(bar)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self.bar.set_postfix(loss=f"{float(logs['loss']):.2f}", refresh=False)
