"""Faults that are put into a process before its command runs."""

import errno
import os
import signal


def full_disk(after: int, put=setattr) -> None:
    """Every fsync after the first `after` fails as on a full disk (the real one is tried where a tmpfs can be had)."""
    real, left = os.fsync, [after]

    def fsync(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor)

    put(os, "fsync", fsync)


def put_everywhere(function: str, make) -> None:
    """Replace `package.module.function` by `make(function)`, wherever in the package its name was imported to."""
    import importlib
    import sys

    module, name = function.rsplit(".", 1)
    real = getattr(importlib.import_module(f"llama_qna.{module}"), name)
    new = make(real)
    for loaded in [found for found in sys.modules if found.startswith("llama_qna")]:
        if getattr(sys.modules[loaded], name, None) is real:
            setattr(sys.modules[loaded], name, new)


def kill_at(function: str, call: int = 1) -> None:
    """SIGKILL to this process when `package.module.function` of the package is called for the n-th time."""
    send_at(function, signal.SIGKILL, call)


def send_at(function: str, number: int, call: int = 1) -> None:
    """A signal to this process when `package.module.function` of the package is called for the n-th time."""
    calls = [0]

    def make(real):
        def called(*args, **kwargs):
            calls[0] += 1
            if calls[0] == call:
                os.kill(os.getpid(), number)
            return real(*args, **kwargs)

        return called

    put_everywhere(function, make)


def kill_at_rename(call: int) -> None:
    """SIGKILL to this process before the n-th folder gets another name."""
    from pathlib import Path

    real, calls = Path.rename, [0]

    def rename(path, target):
        calls[0] += path.is_dir()
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path, target)

    Path.rename = rename


def send_at_step(step: int, number: int, put=setattr) -> None:
    """A signal to this process in the middle of a training step."""
    from llama_qna.training import resume

    real = resume._check_loss

    def check(loss, first, words, at):
        real(loss, first, words, at)
        if at == step:
            os.kill(os.getpid(), number)

    put(resume, "_check_loss", check)


def hungry_at(function: str) -> None:
    """`package.module.function` of the package asks PyTorch's allocator for more memory than any machine has."""
    import torch

    put_everywhere(function, lambda real: lambda *args, **kwargs: torch.empty(2**60))


def loss_at_step(step: int, loss: float) -> None:
    """The loss of one step is this number."""
    from llama_qna.training import resume

    real = resume._check_loss
    resume._check_loss = lambda found, first, words, at: real(loss if at == step else found, first, words, at)


def little_memory(rows: int) -> None:
    """A batch of more rows asks PyTorch's allocator for more memory than any machine has."""
    import torch

    def make(real):
        def hungry(model, input_ids, *args, **kwargs):
            if len(input_ids) > rows:
                torch.empty(2**60, dtype=torch.uint8)
            return real(model, input_ids, *args, **kwargs)

        return hungry

    put_everywhere("training.loss.summed_losses", make)


def little_memory_and_kill(rows: int, saves: int) -> None:
    """As `little_memory`, and SIGKILL when one more checkpoint than `saves` is about to be written."""
    little_memory(rows)
    kill_at("training.checkpoints.seal", saves + 1)


def little_disk(free: int) -> None:
    """The disk says that it has this many bytes left."""
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    shutil.disk_usage = lambda path: usage(10**12, 10**12 - free, free)
