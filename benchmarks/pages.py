"""A PDF of as many pages as wanted, from the documents that the repository ships."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from benchmarks.job import Job
from llama_qna.project.variant import REPOSITORY


@contextmanager
def document(job: Job) -> Iterator[Path]:
    """A file of `job.size["pages"]` pages, the shipped ones in turn, and again from the first."""
    import pypdfium2

    shipped = [pypdfium2.PdfDocument(path) for path in sorted((REPOSITORY / "data/pdfs").glob("*/*.pdf"))]
    joined = pypdfium2.PdfDocument.new()
    for source in cycle(shipped):
        left = job.size["pages"] - len(joined)
        if not left:
            break
        joined.import_pages(source, list(range(min(left, len(source)))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "joined.pdf"
        joined.save(path)
        yield path
