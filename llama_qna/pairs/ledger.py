"""The ledger of finished model calls: what a stage that was killed need not do again.

A JSONL file that only grows. Each line holds an entry and the checksum of its bytes, so that a line that was torn by a
crash or damaged on the disk is recognised and its call is made again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import zlib
from pathlib import Path

from llama_qna import UserError

_LINE = re.compile(rb'\{"crc32": "([0-9a-f]{8})", "entry": (\{.*\})\}')


class Ledger(dict):
    """Entries by their key, in memory and in the file; one writer at a time.

    Attributes:
        damaged: the numbers, from 1, of the lines whose checksum is wrong; their entries are left out.
    """

    def __init__(self, path: Path):
        """Open the ledger, which is made if it is not there, and read what earlier runs finished.

        A last line that was torn by a crash is cut off; damaged lines are named on stderr and stay in the file.

        Raises:
            UserError: another process, or another `Ledger` of this one, has it open.
        """
        super().__init__()
        self.path, self.damaged = path, []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b", buffering=0)  # without a buffer that a failed write would leave half full
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(
                f"{path.name} is in use: the same stage runs already; wait for its end, or stop it"
            ) from None
        self._read()

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.readall()
        *lines, torn = content.split(b"\n")
        self._file.truncate(len(content) - len(torn))
        for number, line in enumerate(lines, start=1):
            found = _LINE.fullmatch(line)
            if found and int(found[1], 16) == zlib.crc32(found[2]):
                entry = json.loads(found[2])
                self[entry["key"]] = entry
            else:
                self.damaged.append(number)
        if self.damaged:
            numbers = ", ".join(map(str, self.damaged))
            print(f"{self.path.name}: damaged, and left out: line {numbers}", file=sys.stderr)

    def add(self, entries: list[dict]) -> None:
        """Append entries, each with a `"key"`; when this returns they are on the disk.

        An entry whose key is there already takes its place.

        Raises:
            UserError: they cannot be written, as on a full disk; the file is then as it was before.
        """
        payloads = [json.dumps(entry, allow_nan=False).encode() for entry in entries]
        kept = [json.loads(payload) for payload in payloads]  # as a later process will read them
        lines = b"".join(b'{"crc32": "%08x", "entry": %b}\n' % (zlib.crc32(p), p) for p in payloads)
        start, left = self._file.seek(0, os.SEEK_END), memoryview(lines)
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except BaseException as error:  # also when it is stopped: half a line would be damage
            self._file.truncate(start)
            if not isinstance(error, OSError):
                raise
            raise UserError(
                f"{self.path.name} cannot be written ({error.strerror}); what is in it is kept: make room, and start "
                "again"
            ) from None
        self.update({entry["key"]: entry for entry in kept})

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error) -> None:
        self._file.close()  # which gives up its lock
