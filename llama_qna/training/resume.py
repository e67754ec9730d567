"""Training that can be stopped at any moment: what is saved beside the weights, and how a run goes on from there.

The resumed run does what the undisturbed one does, step for step: dropout, the order of the rows, replay, and the sum
of losses between two lines of the log go on where they were.

Only one process goes on so. Several keep adapters in their checkpoints and no state, end at once at a signal, and begin
anew (`project.stage`): a launcher such as torchrun kills them together, at a step that differs from one to the other.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer_utils import TrainOutput

from llama_qna import Stopped, UserError, first_line
from llama_qna.models import lineage
from llama_qna.models.device import is_out_of_memory, release
from llama_qna.models.plan import Batch
from llama_qna.project import processes
from llama_qna.project.files import need, read_json, write_json
from llama_qna.project.stage import note
from llama_qna.training import checkpoints

PROGRESS = "progress.json"


class Signals:
    """Notes Ctrl-C and SIGTERM, so that a step comes to its end; a second one acts at once.

    Attributes:
        number: of the signal that has come, or None.
    """

    def __init__(self, what: str):
        self.what, self.number, self._before = what, None, {}

    def __enter__(self) -> Signals:
        # Python allows handlers nowhere else; several processes would stop at different steps, and wait for ever
        if threading.current_thread() is threading.main_thread() and processes.count() == 1:
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        os.write(2, f"\n{self.what}: stopping after this step, with a checkpoint\n".encode())  # print may be busy
        self.__exit__()

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Resumable(TrainerCallback):
    """Put before TRL's trainer as a base class: checkpoints are valid or not there, and training goes on from one as if
    nothing had happened. Call `prepare` before `go`. The trainer hears its own events (`on_...`).
    """

    def prepare(self, folder: Path, finish: Callable[[Path], None], replay, rows_at_once: int) -> None:
        """Tell the trainer what it works on.

        Args:
            folder: of the stage; its note holds the key.
            finish: gets each checkpoint before it is sealed, to add what readers of the adapter need.
            replay: the `loss.Replay` of the run, or None.
            rows_at_once: the micro-batch.
        """
        self.folder, self.key, self.finish = folder, note(folder)["key"], finish
        self.replay, self.rows_at_once = replay, rows_at_once
        self.first_loss = self.epoch_rng = None
        self.seconds_before = 0.0
        self.add_callback(self)

    def go(self, start: Path | None, signals: Signals):
        """Train from a checkpoint, or from the first step, and return what the library's `train` does."""
        self.resumed_from, self.signals, self.begun = start, signals, time.perf_counter()
        if start and (state := read_json(start / "trainer_state.json"))["global_step"] >= state["max_steps"]:
            return self._finished(start)
        return self.train(resume_from_checkpoint=str(start) if start else None)

    def _finished(self, start: Path) -> TrainOutput:
        """What `train` returned when this checkpoint, the last one, was made."""
        self.state, kept = self.state.load_from_json(str(start / "trainer_state.json")), read_json(start / PROGRESS)
        self.seconds_before = kept["seconds"]
        mean = (kept["loss_logged"] + kept["loss_since_log"]) / self.state.global_step
        return TrainOutput(self.state.global_step, mean, {})

    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.begun

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.step_loss = self.step_loss + loss  # on the device: a number of it would wait for every micro-batch
        return loss

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self.step_loss = 0.0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Refuse a loss that has exploded before anything of it is saved; stop if a signal has come."""
        # the mean over the processes, so that all of them refuse at the same step
        self.step_loss = sum(processes.gather(float(self.step_loss))) / processes.count()
        _check_loss(self.step_loss, self.first_loss, self.model.config.vocab_size, self.state.global_step)
        if self.first_loss is None:
            self.first_loss = self.step_loss
        if self.signals.number:
            control.should_save = control.should_training_stop = True

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        """Keep what the order of an epoch's rows is drawn from; in the epoch that a run goes on in, restore it."""
        if self.resumed_from and self.epoch_rng is not None:
            torch.set_rng_state(self.epoch_rng)
            self.resumed_from = None
        self.epoch_rng = torch.get_rng_state()

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Take up `progress`, as it was when the checkpoint was made."""
        if not self.resumed_from:
            return
        kept = read_json(self.resumed_from / PROGRESS)
        self._tr_loss += kept["loss_since_log"]
        self._total_loss_scalar, self._globalstep_last_logged = kept["loss_logged"], kept["last_log"]
        self._initial_global_step = 0  # the mean loss is that of all steps
        self.first_loss, self.seconds_before = kept["first_loss"], kept["seconds"]
        self.epoch_rng = torch.frombuffer(bytearray.fromhex(kept["epoch_rng"]), dtype=torch.uint8)
        if self.replay:
            self.replay.set_state(kept["replay"])

    def _save_checkpoint(self, model, trial):
        """Let the library write into a folder of no name, and give it its name when it is whole."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not all(processes.gather(all(bool(parameter.isfinite().all()) for parameter in trained))):
            raise Exploded(f"a weight became no number at step {self.state.global_step}")
        checkpoint = self.folder / f"checkpoint-{self.state.global_step}"
        scratch = checkpoint.with_name(checkpoint.name + ".partial")
        try:
            self.args.output_dir = str(scratch)
            super()._save_checkpoint(model, trial)
            processes.barrier()  # the folder is whole only when every process has written its part
            processes.first(lambda: self._seal(scratch / checkpoint.name, checkpoint))
        finally:
            self.args.output_dir = str(self.folder)
            if processes.is_main():
                shutil.rmtree(scratch, ignore_errors=True)

    def _seal(self, written: Path, checkpoint: Path) -> None:
        write_json(written / PROGRESS, self.progress())
        self.finish(written)
        checkpoints.seal(written, checkpoint, self.key)

    def progress(self) -> dict:
        """Our own place in the run, beside the library's; `on_train_begin` takes it up."""
        at_its_end = float(self.state.epoch).is_integer()
        epoch_rng = torch.get_rng_state() if at_its_end else self.epoch_rng  # of the next step's epoch
        return {
            "loss_since_log": self._tr_loss.item(),
            "loss_logged": self._total_loss_scalar,
            "last_log": self._globalstep_last_logged,
            "first_loss": self.first_loss,
            "seconds": self.seconds(),
            "epoch_rng": epoch_rng.numpy().tobytes().hex(),
            "replay": self.replay.state() if self.replay else None,
            "rows_at_once": self.rows_at_once,
        }

    def _load_scaler(self, checkpoint):
        """Leave out what was kept of a scaler where there is none: only float16 on a GPU has one."""
        if self.accelerator.scaler is not None:
            super()._load_scaler(checkpoint)

    def _load_from_checkpoint(self, checkpoint, model=None):
        """The adapter as it is, in the type that it trains in; the library would make it float32."""
        weights = load_file(Path(checkpoint) / "adapter_model.safetensors")
        set_peft_model_state_dict(self.model, weights)


class Exploded(Exception):
    """The loss or a weight is no number, or far from any that training gives."""


def _check_loss(loss: float, first: float | None, words: int, step: int) -> None:
    """Guessing costs ln(words) nats a token; ten times that, and ten times the first loss, is no training any more."""
    if not math.isfinite(loss) or first is not None and loss > 10 * max(math.log(words), first):
        raise Exploded(f"the loss became {loss:.4g} at step {step}")


def train(trainer, start: Path | None, folder: Path, what: str, command: str):
    """Train to the end; every way not to get there is one line that says what is kept and how to go on.

    Args:
        start: the checkpoint to go on from, or None.
        what: the variant and the stage, as messages name them.
        command: goes on, when it is given again.

    Raises:
        Stopped: Ctrl-C or SIGTERM; a checkpoint of the last step is there.
        UserError: the loss exploded; the last checkpoint before is kept.
        OutOfMemory: a step did not fit.
    """
    with Signals(what) as signals:
        try:
            outcome = trainer.go(start, signals)
        except Exploded as error:
            found = lineage.checkpoints(folder)
            kept = f" ({found[-1].name} from before is kept in {folder.name})" if found else ""
            raise UserError(f"{what}: {error}; try a lower learning_rate{kept}") from None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(first_line(error)) from None
    if signals.number:
        step = f"step {trainer.state.global_step} of {trainer.state.max_steps}"
        raise Stopped(f"{what}: stopped at {step}; its checkpoint is kept: `{command}` goes on there", signals.number)
    return outcome


class OutOfMemory(Exception):
    """A training step did not fit into memory."""


def with_enough_memory(attempt: Callable[[Path | None, Batch], dict], folder: Path, batch: Batch, what: str) -> dict:
    """Train with fewer rows at once each time that memory runs out, then with checkpointing; the steps stay the same.

    Args:
        attempt: trains from a checkpoint, or None, with such batches.
        batch: how rows pass at first, as planned.

    Raises:
        UserError: one row at a time does not fit, or one of several processes ran out of memory.
    """
    while True:
        alone = processes.count() == 1
        start = checkpoints.newest(folder, note(folder)["key"]) if alone else None
        if start:
            print(f"{what}: going on from {start.name}")
            batch = batch.with_rows(min(batch.rows, read_json(start / PROGRESS)["rows_at_once"]))
        try:
            return attempt(start, batch)
        except OutOfMemory as error:
            said = str(error)
        if not alone:  # the others did not run out, and wait for this one
            raise UserError(
                f"{what}: one of {processes.count()} processes ran out of memory with {batch.rows} rows at once "
                f"({said}); start fewer on each machine, or lower batch_size"
            )
        smaller = batch.smaller()
        if smaller is None:
            raise UserError(
                f"{what}: out of memory with one row at a time ({said}), with gradient checkpointing too; "
                "lower max_length"
            )
        batch, each = smaller, smaller.rows * smaller.accumulation
        how = f"{batch.rows} of {each} rows at once{', gradient checkpointing' if batch.checkpointing else ''}"
        print(f"{what}: out of memory ({said}); on with {how}, their gradients added up", file=sys.stderr)
        release()


def check_disk(model, folder: Path, what: str, saves: int, merged: int) -> None:
    """Refuse to begin a run whose checkpoints the disk has no room for.

    Counted are an adapter for every checkpoint, the optimizer's two moments a weight (AdamW) for those that keep their
    state and the one being written, and the merged 16-bit base; what an earlier run left in `folder` is there already.

    Args:
        saves: checkpoints of the whole run.
        merged: weights of the merged model that follows, or 0.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adapter = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    needed = saves * adapter + (checkpoints.RESUMABLE + 1) * 2 * adapter + 2 * merged + 10**6
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    need(folder, needed - there, f"{what}: its {saves} checkpoints{' and the merged model' if merged else ''}")
