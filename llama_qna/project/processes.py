"""Several processes that train together, as `torchrun` starts them. In one process all of this is nothing.

The launcher says in the environment who a process is, so nothing here imports torch before processes have something to
tell each other. What they tell is small; rows and gradients are the trainer's business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta

from llama_qna import UserError

PATIENCE = timedelta(days=7)  # one process may read documents or merge weights for hours while the others wait


def count() -> int:
    """How many processes do this stage; 1 unless a launcher such as torchrun said otherwise."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local_rank() -> int:
    """Which of those on this machine it is, from 0, and with it the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0)) if count() > 1 else 0


def here() -> int:
    """How many of them are on this machine; all of them unless the launcher said otherwise."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def sharded() -> bool:
    """Whether accelerate was told to split the model itself over the processes (FSDP)."""
    return count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def start() -> None:
    """Quiet all processes but the first, and check that each has a GPU where there are any.

    Raises:
        UserError: more processes on this machine than GPUs.
    """
    if count() == 1:
        return
    if not is_main():
        os.environ["TQDM_DISABLE"] = "1"
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import torch

    gpus = torch.cuda.device_count()
    if gpus and here() > gpus:
        raise UserError(f"{here()} processes on a machine with {gpus} GPUs: start at most {gpus} (--nproc_per_node)")
    if gpus:
        torch.cuda.set_device(local_rank())


def stop() -> None:
    """Leave the group, if it was ever joined."""
    if count() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def gather(value) -> list:
    """What every process gives, by rank, in every process; all wait until the last has given."""
    if count() == 1:
        return [value]
    dist, found = _group(), [None] * count()
    dist.all_gather_object(found, value)
    return found


def from_main(value):
    """What the first process gives, in every process."""
    if count() == 1:
        return value
    dist, found = _group(), [value]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def first(function: Callable):
    """What the first process gets from a function that it alone calls, in every process; its failure, too, is theirs.

    Raises:
        UserError: in the other processes, whatever the function raised in the first one.
    """
    found = error = said = None
    if is_main():
        try:
            found = function()
        except Exception as raised:
            error, said = raised, str(raised) or type(raised).__name__
    found, said = from_main((found, said))
    if said:
        raise error or UserError(said)
    return found


@contextmanager
def entered_by_first(manager: AbstractContextManager) -> Iterator[None]:
    """Hold in the first process, for all of them, what a context manager holds; it is entered as by `first`."""
    with ExitStack() as held:
        first(lambda: held.enter_context(manager))
        yield


def barrier() -> None:
    """Wait until every process is here."""
    gather(None)


def _group():
    """`torch.distributed`, its group joined: gloo between CPUs, and NCCL beside it for tensors on GPUs."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return dist


def rows_each(batch_size: int) -> int:
    """The rows of a step that each process gets.

    Raises:
        UserError: the processes cannot share the rows evenly.
    """
    each, left = divmod(batch_size, count())
    if left or not each:
        raise UserError(
            f"{count()} processes cannot share steps of {batch_size} rows evenly: start another number of them, or "
            "change batch_size in the recipe"
        )
    return each
