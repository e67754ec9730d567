"""A document of the user's is read from its file, whatever the file holds.

Two extractors: pypdfium2 (quick) and pdfminer.six (the study's). What they return goes through the same repairs
(`cleaning`).
"""

from __future__ import annotations

import re
from pathlib import Path

from llama_qna import UserError
from llama_qna.cleaning import HYPHEN, Document, clean, heading_key


def read_folder(folder: Path, extractor: str) -> list[Document]:
    """Read every PDF of a corpus, in the order of their names.

    Raises:
        UserError: no folder, no PDF in it, or a PDF that cannot be read (named, with its reason).
    """
    paths = sorted(folder.glob("*.pdf")) if folder.is_dir() else []
    if not paths:
        shown = "/".join(folder.parts[-3:])
        raise UserError(f"no PDF in {shown}/: put the documents there and run again")
    return [read_pdf(path, extractor) for path in paths]


def read_pdf(path: Path, extractor: str = "pypdfium2") -> Document:
    """Read and clean one PDF.

    Raises:
        UserError: the file is no PDF, is damaged, encrypted, empty, or holds no text (scanned pages).
    """
    if not path.is_file():
        raise UserError(f"{path.name}: no such file")
    with open(path, "rb") as file:
        head = file.read(1024)
    if not head:
        raise UserError(f"{path.name}: the file is empty")
    if b"%PDF-" not in head:  # readers accept the mark anywhere in the first kilobyte
        raise UserError(f"{path.name}: not a PDF file")
    try:
        pages, headings = (_extract_pdfium if extractor == "pypdfium2" else _extract_pdfminer)(path)
    except Exception as error:  # a damaged file makes the extractors raise whatever they please
        raise _unreadable(path, error) from None
    if not pages:
        raise UserError(f"{path.name}: the PDF has no pages")
    if not any(page.strip() for page in pages):
        raise UserError(f"{path.name}: no text on any of its {len(pages)} pages; a scanned document needs OCR first")
    document = clean(path.stem, pages, headings)
    if not document.paragraphs and not document.references:
        raise UserError(f"{path.name}: nothing but page numbers and running headers on its {len(pages)} pages")
    return document


def _extract_pdfium(path: Path) -> tuple[list[str], dict[str, int | None]]:
    """Text per page, and the titles of the PDF's outline with the page (from 0) that each points to."""
    import pypdfium2

    with pypdfium2.PdfDocument(path) as pdf:
        headings = {}
        for bookmark in pdf.get_toc():
            target = bookmark.get_dest()
            headings.setdefault(heading_key(bookmark.get_title()), target.get_index() if target else None)
        pages = [page.get_textpage().get_text_bounded().replace("\x02", HYPHEN) for page in pdf]
    # a word broken at the end of a page is joined to what comes next, the page number: part them again
    pages = [re.sub(rf"{HYPHEN}(\d+\s*)$", rf"{HYPHEN}\n\1", page) for page in pages]
    return pages, headings


def _extract_pdfminer(path: Path) -> tuple[list[str], dict[str, int | None]]:
    import logging

    from pdfminer.high_level import extract_text

    logging.getLogger("pdfminer").setLevel(logging.ERROR)  # it warns of every oddity of a damaged file
    pages = extract_text(path).split("\f")[:-1]
    return [re.sub(r"-[ ]*\n", HYPHEN + "\n", page) for page in pages], {}


def _unreadable(path: Path, error: Exception) -> UserError:
    kind = f"{type(error).__name__} {error}".lower()
    if "password" in kind or "encrypt" in kind:
        return UserError(f"{path.name}: the PDF is encrypted; save a copy without a password")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path.name}: the PDF is damaged and cannot be read ({reason})")
