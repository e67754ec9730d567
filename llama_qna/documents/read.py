"""The documents of a corpus are read, each in a child process that may take only so long and so much memory.

A PDF can be damaged, hostile or endless, and no library reads every one of them safely. What happens in the child
(`documents.extract`) therefore cannot hang or exhaust this process: the file is left out with its reason, the others go
on.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from llama_qna import UserError
from llama_qna.documents.clean import Document
from llama_qna.documents.extract import shown_name
from llama_qna.documents.folder import (
    DEFAULT_LIMITS,
    SUFFIXES,
    UNREADABLE,
    content_hash,
    file_name,
    files_not_read,
    named_documents,
    refusal,
)
from llama_qna.documents.halves import OUT_OF_MEMORY
from llama_qna.project.recipe import ReadLimits
from llama_qna.project.variant import REPOSITORY
from llama_qna.text.language import language_of

MOST_REASONS = 5  # that a message names
ANSWER = TypeAdapter(Document | str)  # of the child
T = TypeVar("T")


def read_folder(
    folder: Path, extractor: str = "pypdfium2", limits: ReadLimits = DEFAULT_LIMITS
) -> tuple[list[Document], dict[str, str]]:
    """Read every document of a corpus and its subfolders; one that cannot be read does not stop the others.

    Args:
        extractor: `pypdfium2` or `pdfminer`, for PDFs.
        limits: what one document may cost.

    Returns:
        The documents, each with a name of its own (its path in the folder without suffix, with it where that is
        taken), and by path the reason why a file was left out: it cannot be read, is of another kind, or is a double.

    Raises:
        UserError: no folder, no document in it, or none that can be read.
    """
    documents, left_out = [], {}
    for file, outcome in read_each(folder, extractor, limits):
        if isinstance(outcome, str):
            left_out[file] = outcome
        else:
            documents.append(outcome)
    if not documents:
        left_out = {file: reason for file, reason in left_out.items() if Path(file).suffix.lower() in SUFFIXES}
        reasons = "; ".join(f"{file}: {reason}" for file, reason in list(left_out.items())[:MOST_REASONS])
        count = len(left_out)
        raise UserError(reasons if count == 1 else f"none of the {count} documents can be read: {reasons}")
    return documents, left_out


def read_each(
    path: Path, extractor: str = "pypdfium2", limits: ReadLimits = DEFAULT_LIMITS
) -> Iterator[tuple[str, Document | str]]:
    """Read the documents of a folder, or one file, one after the other.

    Yields:
        The file's path in the folder and its document with a name of its own, or the reason why it is left out.

    Raises:
        UserError: no folder, or no document in it.
    """
    if not named_documents(path):
        where, others = "/".join(path.parts[-3:]), files_not_read(path)
        reasons = "".join(f"; {file}: {reason}" for file, reason in list(others.items())[:MOST_REASONS])
        raise UserError(f"no document (*.pdf, *.txt, *.md) in {where}/: put the documents there and run again{reasons}")
    for file, name, outcome in each_once(path, lambda one, _: read_one(one, extractor, limits), Document.text, limits):
        if isinstance(outcome, Document):
            outcome.name = name
            outcome.report |= {"file": file, "language": language_of(outcome.text())}
        yield file, outcome


def each_once(
    path: Path, read: Callable[[Path, str], T | str], text_of: Callable[[T], str], limits: ReadLimits = DEFAULT_LIMITS
) -> Iterator[tuple[str, str, T | str]]:
    """Read the documents of a folder, or one file; what has the content or the text of another one is left out.

    Args:
        read: gets a file and the hash of its content; returns what was read of it, or why it cannot be read.
        text_of: the text of what was read.

    Yields:
        The file's path in the folder, the name of its document, and what was read or the reason why it is left out;
        then the files that are no documents.
    """
    folder = path if path.is_dir() else path.parent
    doubles: dict[tuple, str] = {}  # by content and kind of a file, why another such one is left out
    texts: dict[str, str] = {}  # by the hash of a text, the file that it was read from
    for name, one in named_documents(path).items():
        file, content = file_name(one, folder), content_hash(one, folder, limits)
        kind = content, one.suffix.lower()
        outcome = doubles.get(kind) or refusal(one, folder, limits) or read(one, content)
        if content != UNREADABLE:
            doubles[kind] = outcome if isinstance(outcome, str) else f"the same content as {file}, which is read"
        if not isinstance(outcome, str):
            text = text_of(outcome).encode("utf-8", "replace")
            same = texts.setdefault(hashlib.sha256(text).hexdigest(), file)
            if same != file:
                outcome = f"the same text as {same}, which is read"
        yield file, name, outcome
    for file, reason in files_not_read(path).items():
        yield file, "", reason


def read_document(path: Path, extractor: str = "pypdfium2", limits: ReadLimits = DEFAULT_LIMITS) -> Document:
    """Read and clean one PDF, text or Markdown file in a child process.

    Args:
        extractor: `pypdfium2` or `pdfminer`, for PDFs.
        limits: what the child may cost.

    Raises:
        UserError: the file's name and why it cannot be read: not what its suffix says, damaged, encrypted, empty,
            without text (scanned pages), or too costly.
    """
    outcome = refusal(path, path.parent, limits) or read_one(path, extractor, limits)
    if isinstance(outcome, str):
        raise UserError(f"{shown_name(path.name)}: {outcome}")
    return outcome


def first_document(
    folder: Path, extractor: str = "pypdfium2", limits: ReadLimits = DEFAULT_LIMITS
) -> tuple[Path, Document]:
    """The first document of a corpus that can be read, and its path: a PDF, where one of them can be.

    Raises:
        UserError: no folder, no document in it, or none that can be read.
    """
    for _, outcome in read_each(folder, extractor, limits):
        if isinstance(outcome, Document):
            return named_documents(folder)[outcome.name], outcome
    raise UserError(f"none of the documents in {'/'.join(folder.parts[-3:])}/ can be read")


def read_one(path: Path, extractor: str = "pypdfium2", limits: ReadLimits = DEFAULT_LIMITS) -> Document | str:
    """The document, or the reason why there is none. However this ends, `subprocess.run` leaves no child behind."""
    command = [sys.executable, "-m", "llama_qna.documents.extract"]
    command += [str(path.absolute()), extractor, str(limits.seconds), str(limits.memory_gb)]
    try:
        child = subprocess.run(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, timeout=limits.seconds
        )
    except subprocess.TimeoutExpired:
        return f"reading it takes more than {limits.seconds:g} seconds (read_limits.seconds in the recipe)"
    too_much = f"more than {limits.memory_gb:g} GB of memory (read_limits.memory_gb in the recipe)"
    if child.returncode == OUT_OF_MEMORY:
        return f"reading it takes {too_much}"
    if child.returncode < 0:  # PDFium aborts where memory is refused, and may crash over a damaged file
        name = signal.Signals(-child.returncode).name
        return f"its reader crashed ({name}): the file is damaged, or reading it takes {too_much}"
    if child.returncode > 0:
        last = (child.stderr.decode(errors="replace").splitlines() or ["no message"])[-1]
        return f"reading it failed ({last})"
    # JSON is passed and not a pickle: what a hostile file can make the child say is never more than text
    return ANSWER.validate_python(json.loads(child.stdout))
