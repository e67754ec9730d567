"""Which files of a corpus are documents, and why the others are not read: nothing is passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from llama_qna.documents.extract import shown_name
from llama_qna.project.files import sha256
from llama_qna.project.recipe import ReadLimits

SUFFIXES = (".pdf", ".txt", ".md", ".markdown")
DEFAULT_LIMITS = ReadLimits()
UNREADABLE = "unreadable"  # in place of the hash of a file that is not to be opened
ADVICE = {  # how a file of another kind becomes a document
    "convert it to Markdown, such as with pandoc, or save it as PDF": (
        ".docx .odt .rtf .epub .html .htm .xhtml .rst .tex .org .ipynb .fb2 .docbook .mediawiki"
    ),
    "save it as PDF": ".doc .ppt .pptx .odp .key .pages .xps .wpd",
    "save its tables as PDF or in Markdown": ".xlsx .xls .ods .numbers .csv .tsv",
    "convert it to PDF": ".djvu .mobi .azw .azw3 .ps .eps .chm",
    "a picture: make it a PDF with text by OCR": ".png .jpg .jpeg .tif .tiff .gif .bmp .webp .heic",
    "unpack it here": ".zip .gz .tgz .bz2 .xz .7z .rar .tar",
}
ADVICE_BY_SUFFIX = {suffix: advice for advice, suffixes in ADVICE.items() for suffix in suffixes.split()}
HIDDEN = (".", "~$", "Thumbs.db", "desktop.ini", "__MACOSX")  # what office programs, Windows and macOS leave


def file_name(path: Path, folder: Path) -> str:
    """A file's name as messages and records give it: its path inside the corpus."""
    return shown_name(path.relative_to(folder).as_posix())


def document_paths(folder: Path) -> list[Path]:
    """The documents of a corpus and its subfolders: its PDFs, then its text and Markdown files, by their paths."""
    paths = [path for path in _files(folder) if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    return sorted(paths, key=lambda path: (path.suffix.lower() != ".pdf", path.relative_to(folder).as_posix()))


def named_documents(path: Path) -> dict[str, Path]:
    """The documents of a folder, or one file, by names of their own: the path without suffix, with it where taken.

    A document's name does not depend on whether another one can be read.
    """
    folder, paths, names = path.parent, [], {}
    if path.is_dir():
        folder, paths = path, document_paths(path)
    elif path.is_file():
        paths = [path]
    for one in paths:
        file = file_name(one, folder)
        suffix = Path(file).suffix
        name = file.removesuffix(suffix)
        while name in names:
            name += suffix
        names[name] = one
    return names


def files_not_read(folder: Path) -> dict[str, str]:
    """By name the reason for every other file, for links to folders, which are not followed, and for closed folders."""
    reasons = {}
    for path in _files(folder):
        if path.is_dir():
            link = "a link to a folder; copy the folder itself"
            reasons[file_name(path, folder)] = link if path.is_symlink() else "a folder that cannot be read"
        elif (reason := _other_kind(path)) and not _is_record(path):
            reasons[file_name(path, folder)] = reason
    return reasons


def document_hashes(folder: Path, limits: ReadLimits = DEFAULT_LIMITS) -> dict[str, str]:
    """Name and sha256 of every document of a corpus; of other files the name alone counts."""
    documents = {file_name(path, folder): content_hash(path, folder, limits) for path in document_paths(folder)}
    return documents | dict.fromkeys(files_not_read(folder), "not read")


def content_hash(path: Path, folder: Path, limits: ReadLimits) -> str:
    """The sha256 of a document, or "unreadable"."""
    try:
        return UNREADABLE if not path.is_file() or refusal(path, folder, limits) else sha256(path)
    except OSError:
        return UNREADABLE


def refusal(path: Path, folder: Path, limits: ReadLimits) -> str:
    """Why a file is not even opened, or an empty string: a stranger's folder must not name files outside it."""
    if reason := _other_kind(path):
        return reason
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        return "a link that leads out of the folder; copy the document into it"
    if path.is_file() and (size := path.stat().st_size) > limits.memory_gb * 2**30:
        return f"the file has {size / 2**30:.1f} GB, more than read_limits.memory_gb in the recipe"
    return ""


def _other_kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return ""
    advice = ADVICE_BY_SUFFIX.get(suffix, "save it as PDF, text (.txt) or Markdown (.md)")
    return f"{shown_name(suffix) or 'a file without a suffix'} is not read: {advice}"


def _files(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden, every link to a folder, and every folder that cannot be read."""
    closed: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in links + sorted(files) if not name.startswith(HIDDEN))
    yield from (
        Path(error.filename) for error in closed if not isinstance(error, (FileNotFoundError, NotADirectoryError))
    )


def _is_record(path: Path) -> bool:
    """Whether it is what `documents.arxiv` writes beside a paper."""
    return path.suffix == ".json" and path.with_suffix(".pdf").is_file()
