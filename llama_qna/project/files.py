"""Files and folders that are whole or not there, one process at a time, a full disk named."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from llama_qna import UserError

LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never half of one."""
    beside = path.with_name(path.name + ".tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sync(folder: Path) -> None:
    """Return when every file and folder below `folder`, and its own name, are on the disk."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(whole: Path, folder: Path) -> None:
    """Give a folder that is whole and synced its name; an earlier one of that name goes when the new one is there."""
    old = _old(folder)
    if folder.exists():
        folder.rename(old)
    whole.rename(folder)
    _sync_one(folder.parent)
    mend(folder)


def half_in_place(folder: Path) -> bool:
    """Whether a kill inside `put_in_place` left something for `mend`."""
    return _old(folder).exists()


def mend(folder: Path) -> None:
    """Finish what a kill inside `put_in_place` left: the earlier folder comes back if no new one took its name."""
    old = _old(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(folder)


def _old(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


_PARTIAL = set()  # folders that this process is writing


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder to write into; when it is whole it takes the name `folder`, in place of what stood there.

    Of two processes that make what was not there at once, the second leaves what the first one made. What a process
    that was killed has left goes.
    """
    stands = folder.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.iterdir():
        name, _, process = left.name.rpartition(".partial-")
        if name == folder.name and process.isdecimal() and left not in _PARTIAL:
            is_own = int(process) == os.getpid()  # of an earlier process of that number: in a container each may be 1
            if is_own or not psutil.pid_exists(int(process)):
                shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    new = partial / folder.name
    _PARTIAL.add(partial)
    try:
        new.mkdir(parents=True)
        yield new
        if stands:
            with suppress(FileNotFoundError):  # another process has taken it away already
                folder.rename(partial / "before")
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _PARTIAL.discard(partial)


@contextmanager
def locked(folder: Path, name: str, root: Path, lock: str = LOCK) -> Iterator[None]:
    """Hold the lock of a folder, which is made if need be; the kernel frees it when the process ends, however it ends.

    Inside one process the lock may be taken again. An empty folder, and those above it up to `root`, go at the end.

    Raises:
        UserError: another process holds it.
    """
    path = folder / lock
    held = FileLock(path, timeout=0, is_singleton=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held.acquire()
    except Timeout:
        holder = path.read_text().strip()
        by = f" (process {holder})" if holder else ""
        raise UserError(f"{name} is in use by another llama-qna{by}; wait for its end, or stop it") from None
    with suppress(OSError):  # a full disk; the lock holds all the same
        path.write_text(str(os.getpid()))
    try:
        yield
    finally:
        is_last = held.lock_counter == 1
        if is_last:
            path.unlink(missing_ok=True)
        held.release()
        with suppress(OSError):  # not empty
            while is_last and folder != root:
                folder.rmdir()
                folder = folder.parent


@contextmanager
def said_when_full(folder: Path) -> Iterator[None]:
    """Turn the errors that libraries raise on a full disk into one line.

    Raises:
        UserError: the disk of `folder` is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not is_full(error):
            raise
        raise UserError(
            f"the disk is full: {folder.name} could not be written to its end, and nothing there is taken as finished; "
            "make room, and start again"
        ) from None


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL or "No space left" in str(error):
            return True
        # PyTorch's writer says only that a write came out short
        if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def need(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        needed: bytes.
        what: needs them, as the message says it.

    Raises:
        UserError: with both figures.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{what} needs {_size(needed)} of disk, and {_size(free)} are free: make room, and start again")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path):
    """The content of a JSON file; ValueError where it is damaged."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_lines(path: Path) -> list:
    """The rows of JSON Lines; ValueError where one is damaged."""
    with open(path, encoding="utf-8") as file:  # unlike `splitlines`, a file parts no text at U+2028 or U+0085
        return [json.loads(line) for line in file]


def write_lines(path: Path, rows: list[dict]) -> None:
    """Write JSON Lines, a row a line, so that a reader sees the old file or the new one, never half of one."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
