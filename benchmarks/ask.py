"""How long somebody waits for an answer about ten papers, from Enter: `python -m benchmarks.ask`.

The papers are the pages that the repository ships, nine a file, asked by `llama-qna ask FOLDER` in a process of its
own; the first time nothing has been read yet. Then a file of questions is answered. Writes
`benchmarks/results/ask.json`, and from it the lines in `docs/own_documents.md`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import pandas as pd
import pypdfium2

from llama_qna.project import marked, provenance
from llama_qna.project.files import read_json, write_json
from llama_qna.project.variant import REPOSITORY

RESULTS = Path(__file__).parent / "results" / "ask.json"
PAGE = REPOSITORY / "docs" / "own_documents.md"
PAPERS, PAGES, LATER, MANY = 10, 9, 5, 64  # PDFs, pages of each, further askings, questions of a file


def papers(folder: Path) -> None:
    """Ten PDFs of the shipped pages; the last pages come again where there are too few."""
    shipped = [pypdfium2.PdfDocument(path) for path in sorted((REPOSITORY / "data/pdfs").glob("*/*.pdf"))]
    joined = pypdfium2.PdfDocument.new()
    for source in shipped:
        joined.import_pages(source)
    for number in range(PAPERS):
        first = min(number * PAGES, len(joined) - PAGES)
        paper = pypdfium2.PdfDocument.new()
        paper.import_pages(joined, list(range(first, first + PAGES)))
        paper.save(folder / f"paper{number}.pdf")


def asked(*arguments: str) -> float:
    """The seconds that `llama-qna ask` takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "llama_qna", "ask", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def measure() -> dict:
    """Ask in a project of its own, so that nothing has been read before."""
    gold = pd.concat(pd.read_csv(path) for path in sorted((REPOSITORY / "data").glob("*/gold.csv")))
    questions = gold[gold.fold == "dev"].Question.tolist()
    with tempfile.TemporaryDirectory() as name:
        os.environ["LLAMA_QNA_ROOT"] = name
        folder, file = Path(name, "papers"), Path(name, "questions.csv")
        folder.mkdir()
        papers(folder)
        pd.DataFrame({"question": questions[:MANY]}).to_csv(file, index=False)
        first, *later = [asked(str(folder), question) for question in islice(questions, LATER + 1)]
        alone = min(later)
        many = asked(str(folder), "--input", str(file), "--output", str(Path(name, "answers.csv")))
    found = {"papers": PAPERS, "pages": PAGES, "first": first, "later": later}
    found |= {"questions": min(MANY, len(questions)), "many": many, "a_second": (MANY - 1) / (many - alone)}
    return found | provenance.measured()


def lines(found: dict) -> str:
    """What stands in the page."""
    later = sorted(found["later"])[len(found["later"]) // 2]
    said = f"`llama-qna ask` on a folder of {found['papers']} PDFs of {found['pages']} pages each, from Enter on: "
    said += f"{found['first']:.0f} s the first time, {later:.0f} s later. {found['questions']} questions of a file: "
    said += f"{found['many']:.0f} s, {found['a_second']:.1f} a second after the first. "
    about = f"{found['machine']['cpu']}, {found['machine']['cores']} cores, {found['date']}"
    return f"{said}({about}; [`ask.json`](../benchmarks/results/ask.json).)"


if __name__ == "__main__":
    write_json(RESULTS, measure())
    marked.write(PAGE, ask=lines(read_json(RESULTS)))
