"""One file becomes a `Document`, in a child process of its own: `python -m llama_qna.documents.extract` (see `read`).

A PDF goes through pypdfium2 (quick) or pdfminer.six (the study's), and what they return through the same repairs
(`documents.clean`). Plain text and Markdown need none (`documents.text_files`).
"""

from __future__ import annotations

import json
import math
import re
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from llama_qna import UserError, first_line
from llama_qna.documents.clean import Document, clean
from llama_qna.documents.halves import OUT_OF_MEMORY
from llama_qna.documents.quality import needs_ocr
from llama_qna.documents.runs import Page, read_pdfium
from llama_qna.documents.runs_of_pdfminer import read_pdfminer
from llama_qna.documents.text_files import read_text

LETTER = re.compile(r"[^\W\d_]")


def extract(path: Path, extractor: str) -> Document:
    """Read and clean one file in this process, whatever that costs.

    Raises:
        UserError: the reason why the file cannot be read, without its name.
    """
    if not path.is_file():
        raise UserError("no such file")
    if not path.stat().st_size:
        raise UserError("the file is empty")
    is_pdf = path.suffix.lower() == ".pdf"
    pages, document = _read_pdf(path, extractor) if is_pdf else read_text(path)
    document.name = shown_name(path.stem)
    facts = {
        "file": shown_name(path.name),
        "pages": len(pages),
        "characters": (characters := sum(map(len, pages))),
        "sections": len({paragraph.section for paragraph in document.paragraphs}),
        "reference_entries": len(document.references),
        "characters_per_page": round(characters / len(pages)),
        "needs_ocr": [n for n, page in enumerate(pages, start=1) if is_pdf and needs_ocr(page)],
    }
    document.report = facts | document.report
    return document


def shown_name(name: str) -> str:
    """A file's name that fits on a line and into a file of text, whatever the name is; different for every name."""
    return "".join(c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode() for c in name)


def _read_pdf(path: Path, extractor: str) -> tuple[list[str], Document]:
    with open(path, "rb") as file:
        if b"%PDF-" not in file.read(1024):  # readers accept the mark anywhere in the first kilobyte
            raise UserError("not a PDF file")
    try:
        pages, outline = (read_pdfium if extractor == "pypdfium2" else read_pdfminer)(path)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes the extractors raise whatever they please
        raise _unreadable(error) from None
    if not pages:
        raise UserError("the PDF has no pages")
    texts = [page.text if _is_readable(page) else "" for page in pages]
    if not any(text.strip() for text in texts):
        reason = "the letters have no Unicode" if any(page.runs for page in pages) else "no text"
        raise UserError(f"{reason} on any of its {len(pages)} pages; a scanned document needs OCR first")
    for page, text in zip(pages, texts, strict=True):
        page.runs = page.runs if text else []
    document = clean(path.stem, pages, outline)
    if not document.paragraphs and not document.references:
        raise UserError(f"nothing but page numbers and running headers on its {len(pages)} pages")
    return texts, document


def _is_readable(page: Page) -> bool:
    """Whether most letters of a page say which they are, or stand as they would in words; else only OCR can tell."""
    if needs_ocr(page.text):
        return False
    if page.unreadable < 0.3 * len(page.text):
        return True
    letters = LETTER.findall(page.text)
    vowels = sum(letter in "aeiouyAEIOUY" for letter in letters) / max(1, len(letters))
    return len(letters) > 0.6 * len(page.text) and 0.3 < vowels < 0.55


def _unreadable(error: Exception) -> UserError:
    kind = f"{type(error).__name__} {error}".lower()
    if "password" in kind or "encrypt" in kind:
        return UserError("the PDF is encrypted; save a copy without a password")
    return UserError(f"the PDF is damaged and cannot be read ({first_line(error)})")


def _main(path: str, extractor: str, seconds: str, memory_gb: str) -> None:
    """Read one file within the limits, and write the document, or the reason why there is none, as JSON."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = int(float(memory_gb) * 2**30)
    memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The parent ends this process. If the parent itself was killed, the alarm does so a little later.
    signal.alarm(math.ceil(float(seconds)) + 1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        answer = asdict(extract(Path(path), extractor))
    except UserError as error:
        answer = str(error)
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main(*sys.argv[1:])
