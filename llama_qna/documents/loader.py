"""Clean documents for any LangChain program: the load stage splits the same sections into chunks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document as LangChainDocument

from llama_qna.documents.clean import Document
from llama_qna.documents.read import DEFAULT_LIMITS, read_each
from llama_qna.project.recipe import ReadLimits


class Section(LangChainDocument):
    """A section's whole text, or one entry of the reference list; `metadata` holds plain values only.

    `metadata`: `source` and `document` (the file, and its name in the corpus), `page` where it begins, from 1,
    `section`, `kind` (`body` or `reference`), `language` (ISO 639-1, or empty).
    """

    pages: list[tuple[int, int]] = []  # (offset in the text, page) wherever another page or paragraph begins

    def page_at(self, offset: int) -> int:
        """The page of the character at an offset in the text, such as a splitter's `start_index`."""
        return self.pages[bisect_right(self.pages, offset, key=lambda start: start[0]) - 1][1]


class SectionLoader(BaseLoader):
    """Loads PDFs, text and Markdown as clean text, section by section.

    >>> sections = SectionLoader("papers/").load()
    >>> chunks = RecursiveCharacterTextSplitter(chunk_size=1024).split_documents(sections)

    Args:
        path: a folder, with its subfolders, or one file.
        extractor: `pypdfium2` or `pdfminer`, for PDFs.
        limits: what reading one file may cost.
    """

    def __init__(self, path: str | Path, extractor: str = "pypdfium2", limits: ReadLimits = DEFAULT_LIMITS):
        self.path, self.extractor, self.limits = Path(path), extractor, limits
        self.left_out: dict[str, str] = {}  # by name the files that were not read, with the reason

    def lazy_load(self) -> Iterator[Section]:
        """Read file after file; one that cannot be read is named in `left_out`.

        Raises:
            UserError: no document there.
        """
        self.left_out = {}
        folder = self.path if self.path.is_dir() else self.path.parent
        for file, outcome in read_each(self.path, self.extractor, self.limits):
            if isinstance(outcome, str):
                self.left_out[file] = outcome
                continue
            for section in sections(outcome):
                section.metadata["source"] = str(folder / file)
                yield section


def sections(document: Document) -> Iterator[Section]:
    """The sections of a document in their order, each text whole, then the entries of its reference list."""
    about = {"source": document.report.get("file", document.name), "document": document.name}
    about["language"] = document.report.get("language", "")
    for title, group in groupby(document.paragraphs, key=lambda paragraph: paragraph.section):
        texts, pages, position = [], [], 0
        for paragraph in group:
            places = paragraph.pages or ((0, paragraph.page),)
            pages += [(position + offset, page) for offset, page in places]
            texts.append(paragraph.text)
            position += len(paragraph.text) + len("\n\n")
        metadata = about | {"page": pages[0][1], "section": title, "kind": "body"}
        yield Section(page_content="\n\n".join(texts), metadata=metadata, pages=pages)
    for number, entry, page in document.references:
        metadata = about | {"page": page, "section": "References", "kind": "reference"}
        yield Section(page_content=f"[{number}] {entry}", metadata=metadata, pages=[(0, page)])
