"""Somebody's own documents, asked at once: a file or a folder is read, searched and answered from, nothing is trained.

What was read of a file is kept by its content, so that the next question finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llama_qna import UserError
from llama_qna.answering.reader import ReadingAnswerer
from llama_qna.answering.retrieval import Answer, Evidence, Source
from llama_qna.documents.chunks import split
from llama_qna.documents.pages import Place, find, picture
from llama_qna.documents.read import document_paths, read_document
from llama_qna.models.lineage import READER, check_reader
from llama_qna.project.code import code_hash
from llama_qna.project.data import CHUNK_COLUMNS
from llama_qna.project.files import digest, read_json, sha256, write_json
from llama_qna.project.recipe import Chunking
from llama_qna.project.variant import Reader, root_in_use

SYSTEM = "reader"  # the only one: the others are trained on a variant's documents


def is_path(name: str) -> bool:
    """Whether somebody means documents and not a variant: what is named has a path's signs, or is a file."""
    path = Path(name).expanduser()
    return "/" in name.rstrip("/") or name.startswith((".", "~")) or path.is_absolute() or path.is_file()


class Library:
    """The documents of a file or a folder, and a reader that answers about them.

    >>> library = Library("~/papers")
    >>> print(library.answer(["How large is the bridge?"])[0].text)

    Args:
        path: a PDF, text or Markdown file, or a folder of such.

    Raises:
        UserError: there is no such file, no document in the folder, or none that can be read.
    """

    computed_by = "transformers"
    batch_size = 32

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        self.name = self.path.name or str(self.path)
        self.files: dict[str, Path] = {}  # by the name of the document
        self.left_out: dict[str, str] = {}  # by the name of the file: why
        self.reader = Reader.load(READER)
        check_reader(self.reader)
        self._answerer = ReadingAnswerer(self._chunks(), self.reader)

    def answer(
        self, questions: list[str], system: str = SYSTEM, done: Callable[[int], None] = lambda count: None
    ) -> list[Answer]:
        """See `answering.reader.ReadingAnswerer.answer`."""
        _only(system)
        return self._answerer.answer(questions, done)

    def stream(self, question: str, system: str = SYSTEM) -> Iterator[str]:
        """The answer in one piece: it begins when the quote before it has come to an end."""
        return iter([self.answer([question], system)[0].text])

    def sources(self, question: str) -> list[Source]:
        """The passages that a question is answered from."""
        return self._answerer.passages(question)

    def prompt_ids(self, question: str) -> list[int]:
        """See `answering.reader.ReadingAnswerer.prompt_ids`."""
        return self._answerer.prompt_ids(question, self.sources(question))

    def label(self, system: str) -> str:
        """What answers, with the hash of its adapter: `reader 1713ce5c, transformers`."""
        _only(system)
        return f"{system} {sha256(self.reader.adapter / 'adapter_model.safetensors')[:8]}, {self.computed_by}"

    def _chunks(self) -> pd.DataFrame:
        paths = [self.path] if self.path.is_file() else document_paths(self.path)
        if not paths:
            raise UserError(f"{self.path}: there is no such file, and no folder with documents (*.pdf, *.txt, *.md)")
        rows, code = [], code_hash("load")
        for path in paths:
            try:
                found = _read(path, code)
            except UserError as error:
                self.left_out[path.name] = str(error)
                continue
            name = path.stem if path.stem not in self.files else path.name
            self.files[name] = path
            rows += [row | {"document": name, "chunk_id": f"{name}-{n:04d}"} for n, row in enumerate(found)]
        if not rows:
            raise UserError("; ".join(self.left_out.values()))
        return pd.DataFrame(rows, columns=CHUNK_COLUMNS)


def file_of(answerer, document: str) -> Path | None:
    """The file of a document, of a library or of a variant; None where it is not on this machine."""
    if isinstance(answerer, Library):
        return answerer.files.get(document)
    return next((path for path in document_paths(answerer.variant.pdfs) if document in (path.stem, path.name)), None)


@dataclass(frozen=True)
class Shown:
    """The evidence of an answer as people see it: the sentence, its document and its page, marked where it stands."""

    sentence: str
    document: str
    page: int  # from 1
    file: Path | None = None
    place: Place | None = None  # None in a text file, or where the PDF is not on this machine

    def picture(self):
        """The page of the PDF with the sentence marked (a PIL image); None where there is none."""
        return picture(self.file, self.page, self.place.rectangles) if self.place else None


def shown(answerer, evidence: Evidence) -> Shown:
    """Look an answer's evidence up on its page."""
    source, file = evidence.source, file_of(answerer, evidence.source.document)
    places = find(file, evidence.sentence, source.page) if file else []
    if not places:
        return Shown(evidence.sentence, source.document, source.page, file)
    return Shown(evidence.sentence, source.document, places[0].page, file, places[0])


def _read(path: Path, code: str) -> list[dict]:
    """The chunks of a document, from an earlier reading of the same content where there was one.

    Args:
        code: the hash of the code that reads.
    """
    key = digest({"content": sha256(path), "suffix": path.suffix.lower(), "code": code})
    kept = root_in_use() / "runs" / ".library" / f"{key}.json"
    if kept.is_file():
        return read_json(kept)
    rows = split(read_document(path), Chunking())
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, rows)
    return rows


def _only(system: str) -> None:
    if system != SYSTEM:
        raise UserError(f"{system} answers for a variant; a folder of documents is answered by {SYSTEM}")
