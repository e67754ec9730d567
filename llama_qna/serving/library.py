"""Somebody's own documents, asked at once: a file or a folder is read, searched and answered from, nothing is trained.

What was read of a file is kept by its content, so that the next question finds it.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from llama_qna import UserError
from llama_qna.answering.reader import READ, ReadingAnswerer, check_question
from llama_qna.answering.retrieval import Answer, Evidence, Source
from llama_qna.documents.chunks import split
from llama_qna.documents.extract import shown_name
from llama_qna.documents.folder import UNREADABLE, files_not_read, named_documents
from llama_qna.documents.pages import Place, find, picture
from llama_qna.documents.quality import not_read
from llama_qna.documents.read import each_once, read_one
from llama_qna.models.base import knows_not
from llama_qna.models.lineage import READER, check_reader
from llama_qna.project.code import code_hash
from llama_qna.project.data import CHUNK_COLUMNS
from llama_qna.project.files import digest, read_json, sha256, write_json
from llama_qna.project.recipe import Chunking
from llama_qna.project.systems import model_of
from llama_qna.project.variant import Reader, root_in_use

SYSTEM = "reader"  # the only one: the others are trained on a variant's documents
KEPT = "runs/.library"  # what was read of each file
SAMPLE = 20_000  # characters of a document by which its language is told


class Library:
    """The documents of a file or a folder, and a reader that answers about them. Safe to use from many threads.

    >>> library = Library("~/papers")
    >>> print(library.ask("How large is the bridge?"))

    Args:
        path: a PDF, text or Markdown file, or a folder of such, at any depth.

    Raises:
        UserError: there is no such file, no document in the folder, or none that can be read.
    """

    computed_by = "transformers"
    batch_size = 32

    def __init__(self, path: str | Path):
        self.path = Path(os.path.expanduser(path))
        self.name = shown_name(self.path.resolve().name) or str(self.path)
        self.files: dict[str, Path] = {}  # by the name of the document
        self.left_out: list[str] = []  # a line for every file that was not taken: its name, and why
        self.not_read: list[str] = []  # a line for every file of which a part could not be read
        self.reader = Reader.load(READER)
        check_reader(self.reader)
        self._lock = threading.Lock()
        chunks = self._chunks()
        self.foreign = _foreign(self.reader, chunks)  # a line where documents are in a language that the base has not
        self._answerer = ReadingAnswerer.of(chunks, self.reader)
        self._content = chunks.text

    def ask(self, question: str) -> Told:
        """Answer one question; what is returned prints as the answer, its sentence, its document and its page.

        Raises:
            UserError: the question is empty or too long.
        """
        return told(self, self.answer([question])[0])

    def answer(self, questions: list[str], system: str = SYSTEM) -> list[Answer]:
        """See `answering.reader.ReadingAnswerer.answer`."""
        _only(system)
        with self._lock:
            return self._answerer.answer(questions)

    def reads(self, system: str) -> bool:
        """See `answering.answerer.Prompter.reads`."""
        return True

    def sources(self, question: str) -> list[Source]:
        """The passages that share the most words with a question."""
        return [self._answerer.sentences.passage(n) for n in self._answerer.sentences.find(question, READ)]

    def check(self, question: str, system: str) -> None:
        """See `answering.reader.check_question`."""
        check_question(self._answerer.tokenizer, question)

    def label(self, system: str) -> str:
        """What answers, by the hashes of its adapter and of the text: `reader 1713ce5c on 52af0c77, transformers`."""
        _only(system)
        adapter, text = sha256(self.reader.adapter / "adapter_model.safetensors"), digest({"text": list(self._content)})
        return f"{system} {adapter[:8]} on {text[:8]}, {self.computed_by}"

    @property
    def notes(self) -> list[str]:
        """Lines to say before the first answer: what could not be read; languages that the base has not."""
        left_out = [f"left out: {line}" for line in self.left_out]
        return left_out + self.not_read + ([self.foreign] if self.foreign else [])

    def _chunks(self) -> pd.DataFrame:
        documents, code, rows = named_documents(self.path), code_hash("load"), []
        if not documents:
            said = "there is no such file, and no folder with documents (*.pdf, *.txt, *.md)"
            others = [f"{file}: {reason}" for file, reason in files_not_read(self.path).items()]
            raise UserError("\n".join([f"{shown_name(str(self.path))}: {said}", *others]))
        found = each_once(self.path, lambda one, content: _read(one, content, code), _Found.text)
        bar = tqdm(found, "documents", len(documents), leave=False, unit="file", delay=2, disable=None)
        for file, name, outcome in bar:
            if isinstance(outcome, str):
                self.left_out.append(f"{file}: {outcome}")
                continue
            self.files[name] = documents[name]
            self.not_read += [f"{file}: {said}" for said in outcome.not_read]
            rows += [row | {"document": name, "chunk_id": f"{name}-{n:04d}"} for n, row in enumerate(outcome.rows)]
        if not rows and len(documents) == len(self.left_out) == 1:
            raise UserError(self.left_out[0])
        if not rows:
            raise UserError("\n".join([f"none of the {len(documents)} documents can be read", *self.left_out]))
        return pd.DataFrame(rows, columns=CHUNK_COLUMNS)


def open(path: str | Path) -> Library:
    """Somebody's own documents, ready to be asked.

    >>> library = open("~/papers")
    >>> print(library.ask("How large is the bridge?"))

    Raises:
        UserError: as `Library`.
    """
    return Library(path)


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


@dataclass(frozen=True)
class Told:
    """An answer as people read it; `str` is what the terminal prints."""

    text: str
    evidence: Shown | None = None
    nearest: tuple[Shown, ...] = ()  # the passages that come nearest to what the documents do not say

    def __str__(self) -> str:
        return "\n".join(filter(None, [self.text, self.place]))

    @property
    def place(self) -> str:
        """The sentence that the answer was taken from and its page, or where the documents come nearest to it."""
        if self.evidence:
            return f"  “{self.evidence.sentence}”\n  {self.evidence.document}, page {self.evidence.page}"
        near = dict.fromkeys(f"{passage.document}, page {passage.page}" for passage in self.nearest)
        return f"  nearest: {'; '.join(near)}" if near else ""


def told(answerer, answer: Answer) -> Told:
    """What people read of an answer."""
    if answer.evidence:
        return Told(answer.text, shown(answerer, answer.evidence))
    near = answer.sources[:3] if answer.said_not else ()
    return Told(answer.text, None, tuple(shown(answerer, Evidence(source.text, source)) for source in near))


def shown(answerer, evidence: Evidence) -> Shown:
    """Look an answer's evidence up on its page, where its file is on this machine."""
    source = evidence.source
    files = answerer.files if isinstance(answerer, Library) else named_documents(answerer.variant.pdfs)
    file, places = files.get(source.document), []
    with suppress(UserError):  # the file has gone since it was read: what it said is known all the same
        places = find(file, evidence.sentence, source.page) if file else []
    place = places[0] if places else None
    return Shown(evidence.sentence, source.document, place.page if place else source.page, file, place)


def _foreign(reader: Reader, chunks: pd.DataFrame) -> str:
    """One line that names the documents in a language that the base does not know; empty where there are none."""
    documents: dict[str, list[str]] = {}  # by what is said of them
    for document, texts in chunks.groupby("document", sort=False).text:
        if line := knows_not(reader.recipe.base_model, [" ".join(texts.head(50))[:SAMPLE]]):
            documents.setdefault(line, []).append(document)
    said = []
    for line, names in documents.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        said.append(f"{', '.join(names[:3])}{more}: {line}")
    return "; ".join(said)


class _Found(NamedTuple):
    """What was read of a file: the rows of its chunks, and lines about what of it could not be read."""

    rows: list[dict]
    not_read: list[str]

    def text(self) -> str:
        return "\n".join(row["text"] for row in self.rows)


def _read(path: Path, content: str, code: str) -> _Found | str:
    """The chunks of a document, from an earlier reading of the same content where there was one; or why it has none.

    Nothing depends on what is kept: it is read again where it is damaged, and left where it cannot be written.

    Args:
        content: its hash.
        code: the hash of the code that reads.
    """
    kept = root_in_use() / KEPT / f"{digest({'content': content, 'suffix': path.suffix.lower(), 'code': code})}.json"
    keeps = content != UNREADABLE  # one that is not to be opened, such as a pipe, has no content
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = read_json(kept) if keeps else {}
        read = _Found(found["rows"], found["not_read"])
        if found["sha256"] == digest(read._asdict()):
            return read
    document = read_one(path)
    if isinstance(document, str):
        return document
    read = _Found(split(document, Chunking()), not_read(document.report))
    if read.rows and keeps:
        with suppress(OSError):  # no room, no right to write, or another process was quicker
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, {"sha256": digest(read._asdict())} | read._asdict())
    return read if read.rows else "there is no text in the file"


def _only(system: str) -> None:
    model_of(system)  # refuses one that is not there
    if system != SYSTEM:
        raise UserError(f"{system} answers for a variant; a folder of documents is answered by {SYSTEM}")
