"""The documents of a corpus are read, each in a child process that may take only so long and so much memory.

A PDF can be damaged, hostile or endless, and no library reads every one of them safely. What happens in the child
(`documents.extract`) therefore cannot hang or exhaust this process: the file is left out with its reason, the others go
on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from llama_qna import UserError
from llama_qna.documents.clean import Document, Paragraph
from llama_qna.documents.extract import OUT_OF_MEMORY, printable
from llama_qna.project.files import sha256
from llama_qna.project.recipe import ReadLimits
from llama_qna.project.variant import REPOSITORY

SUFFIXES = (".pdf", ".txt", ".md")
DEFAULT_LIMITS = ReadLimits()


def document_paths(folder: Path) -> list[Path]:
    """The documents of a corpus: its PDFs, then its text and Markdown files, each kind in the order of names."""
    paths = [path for path in folder.glob("[!.]*") if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    return sorted(paths, key=lambda path: (path.suffix.lower() != ".pdf", path.name))


def document_hashes(folder: Path, limits: ReadLimits = DEFAULT_LIMITS) -> dict[str, str]:
    """File name and sha256 of every document of a corpus; a file that is not to be opened has the hash "unreadable"."""
    return {printable(path.name): _hash(path, limits) for path in document_paths(folder)}


def _hash(path: Path, limits: ReadLimits) -> str:
    try:
        return "unreadable" if not path.is_file() or _refusal(path, limits) else sha256(path)
    except OSError:
        return "unreadable"


def _refusal(path: Path, limits: ReadLimits) -> str:
    """Why a file is not even opened, or an empty string: a stranger's folder must not name files outside it."""
    if Path(os.path.realpath(path)).parent != Path(os.path.realpath(path.parent)):
        return "a link that leads out of the folder; copy the document into it"
    if path.is_file() and (size := path.stat().st_size) > limits.memory_gb * 2**30:
        return f"the file has {size / 2**30:.1f} GB, more than read_limits.memory_gb in the recipe"
    return ""


def read_folder(
    folder: Path, extractor: str = "pypdfium2", limits: ReadLimits = DEFAULT_LIMITS
) -> tuple[list[Document], dict[str, str]]:
    """Read every document of a corpus; one that cannot be read does not stop the others.

    Args:
        extractor: `pypdfium2` or `pdfminer`, for PDFs.
        limits: what one document may cost.

    Returns:
        The documents, each with a name of its own (the file's name without suffix, with it where that is taken), and
        by file name the reason why a document was left out.

    Raises:
        UserError: no folder, no document in it, or none that can be read.
    """
    shown = "/".join(folder.parts[-3:])
    paths = document_paths(folder)
    if not paths:
        raise UserError(f"no document (*.pdf, *.txt, *.md) in {shown}/: put the documents there and run again")
    documents, left_out, names = [], {}, set()
    for path in paths:
        name = printable(path.stem)
        while name in names:
            name += path.suffix
        names.add(name)
        outcome = _read(path, extractor, limits)
        if isinstance(outcome, str):
            left_out[printable(path.name)] = outcome
        else:
            outcome.name = name
            documents.append(outcome)
    if not documents:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UserError(reasons if len(paths) == 1 else f"none of the {len(paths)} documents can be read: {reasons}")
    return documents, left_out


def read_document(path: Path, extractor: str = "pypdfium2", limits: ReadLimits = DEFAULT_LIMITS) -> Document:
    """Read and clean one PDF, text or Markdown file in a child process.

    Args:
        extractor: `pypdfium2` or `pdfminer`, for PDFs.
        limits: what the child may cost.

    Raises:
        UserError: the file's name and why it cannot be read: not what its suffix says, damaged, encrypted, empty,
            without text (scanned pages), or too costly.
    """
    outcome = _read(path, extractor, limits)
    if isinstance(outcome, str):
        raise UserError(f"{printable(path.name)}: {outcome}")
    return outcome


def _read(path: Path, extractor: str, limits: ReadLimits) -> Document | str:
    """The document, or the reason why there is none. However this ends, `subprocess.run` leaves no child behind."""
    if refusal := _refusal(path, limits):
        return refusal
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
    answer = json.loads(child.stdout)
    return answer["reason"] if "reason" in answer else _document(answer["document"])


def _document(fields: dict) -> Document:
    """JSON is passed and not a pickle: what a hostile file can make the child say is never more than text."""
    paragraphs = [Paragraph(**_tuples(paragraph)) for paragraph in fields["paragraphs"]]
    references = [tuple(entry) for entry in fields["references"]]
    headings = [tuple(heading) for heading in fields["headings"]]
    return Document(**fields | {"paragraphs": paragraphs, "references": references, "headings": headings})


def _tuples(fields: dict) -> dict:
    """Lists back to tuples, which JSON does not know."""
    return {key: tuple(map(tuple, value)) if isinstance(value, list) else value for key, value in fields.items()}
