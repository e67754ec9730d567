"""How large a corpus is, and a recipe for documents of one's own that fits its size."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from llama_qna import UserError
from llama_qna.documents.chunks import split
from llama_qna.documents.quality import shortfalls
from llama_qna.documents.read import read_folder
from llama_qna.project.files import write_text
from llama_qna.project.recipe import FOLDER_NAME, Recipe
from llama_qna.project.variant import Variant, root_in_use

CHARACTERS_PER_TOKEN = 4  # of English; the two published corpora have 3.6 and 4.2
PAIRS_PER_CHUNK = 0.5  # that the filters keep; 0.6 and 0.4 in the published runs
PAIRS_PER_REFERENCE = 2  # made of the entry itself
READ_ALL_OVER = (8, 11_000)  # epochs of pretraining for so many tokens, as in paper_135m; fewer by the root of the size
PAIRS_SEEN = 1500  # in fine-tuning, as in paper_135m
MOST_EPOCHS = 16
MOST_STEPS_LOST = 200  # by a killed run, which goes on at its last checkpoint
PAPER = 40  # pages of one document; the notebooks for a paper show its columns and references
PAPER_NOTEBOOKS = "02_coaxnn_paper_loader", "05_QnA_GPT_Generator-coaxnn-paper"  # to load, and to generate
BOOK_NOTEBOOKS = "01_Physics_book_loader", "04_QnA_PhysX_Generator"
OTHER_NOTEBOOKS = ["06_pretraining", "07_finetuning", "08_evaluation", "09_figures", "10_ask"]
HEADER = """\
# {description}; written by `llama-qna new`.
# Reads data/pdfs/{corpus}/ with its subfolders: {size}.
# What a value means is said in {source}/variant.yaml, which this one was made from; the epochs fit the size{held}.
"""


@dataclass(frozen=True)
class Size:
    """What reading the documents of a corpus found."""

    documents: int
    pages: int
    chunks: int
    references: int  # among the chunks
    tokens: int  # about
    seconds: float  # that reading took
    pdfs: int = 1  # not in subfolders, for the notebook that shows their pages
    left_out: tuple[str, ...] = ()  # a line each

    @property
    def pairs(self) -> int:
        """How many the generation will keep, about."""
        return round(PAIRS_PER_CHUNK * (self.chunks - self.references)) + PAIRS_PER_REFERENCE * self.references

    def __str__(self) -> str:
        documents = "1 document" if self.documents == 1 else f"{self.documents} documents"
        return f"{documents}, {self.pages} pages, about {self.tokens:,} tokens in {self.chunks} chunks"


def measure(folder: Path, recipe: Recipe) -> Size:
    """Read the documents of a folder and count.

    Raises:
        UserError: there is no document, or none that can be read.
    """
    start = time.perf_counter()
    documents, left_out = read_folder(folder, recipe.extractor, recipe.read_limits)
    rows = [row for document in documents for row in split(document, recipe.chunking)]
    top = {path.stem for path in folder.glob("*.pdf")}
    reports = {"documents": {document.name: document.report for document in documents}, "left_out": left_out}
    return Size(
        documents=len(documents),
        pages=sum(document.pages for document in documents),
        chunks=len(rows),
        references=sum(row["kind"] == "reference" for row in rows),
        tokens=sum(len(row["text"]) for row in rows) // CHARACTERS_PER_TOKEN,
        seconds=time.perf_counter() - start,
        pdfs=sum(document.name in top for document in documents),
        left_out=tuple(shortfalls(reports)),
    )


def new(name: str, source: str = "paper_135m", heldout: float = 0.0) -> tuple[Path, Size | None]:
    """Write `NAME/variant.yaml` for the documents in `data/pdfs/NAME`.

    Args:
        source: the variant whose recipe it is made from.
        heldout: the fraction of each document that nothing is trained on.

    Returns:
        The recipe's path, and the size that its epochs fit; None, and the epochs of one paper, if there is no document
        yet.

    Raises:
        UserError: a name that cannot be a folder's, or is taken; no such source; documents of which none can be read,
            or a file in their place.
    """
    root = root_in_use()
    if not re.fullmatch(FOLDER_NAME, name) or name != name.strip(" .") or name == "runs":
        raise UserError(f"{name!r} cannot be the name of a variant: take letters, digits, - and _")
    if (root / name).exists():
        raise UserError(f"{name} is there already; take another name, or remove that folder")
    if not 0 <= heldout < 1:
        raise UserError(f"--heldout {heldout:g}: a fraction below 1, such as 0.15")
    known = Variant.load(source).recipe
    folder = root / "data" / "pdfs" / name
    if folder.exists() and not folder.is_dir():
        raise UserError(f"data/pdfs/{name} is a file; it must be a folder with documents")
    size = measure(folder, known) if folder.is_dir() and any(folder.iterdir()) else None
    content = fitted(known, name, size, heldout)
    header = HEADER.format(
        description=content["description"],
        corpus=name,
        size=size or "nothing yet, so the epochs are those of one paper",
        source=source,
        held="; nothing is held out" if not heldout else "",
    )
    path = root / name / "variant.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir()
    write_text(path, header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))
    return path, size


def fitted(known: Recipe, name: str, size: Size | None, heldout: float) -> dict:
    """The content of the new recipe: that of the known one, with epochs, checkpoints and notebooks for this corpus."""
    content = known.model_dump(exclude_unset=True)
    size = size or Size(1, 8, 83, 35, READ_ALL_OVER[1], 0.0, pdfs=0)  # the paper of paper_135m
    is_paper = size.documents == 1 and size.pages <= PAPER
    loader, *others = [*(PAPER_NOTEBOOKS if is_paper else BOOK_NOTEBOOKS), *OTHER_NOTEBOOKS]
    content |= {"description": f"{known.base_model} on {name}", "corpus": name}
    content["notebooks"] = [loader, *others] if size.pdfs else others
    content["heldout"] = {"fraction": heldout, "seed": known.seed}
    content.pop("extractor", None)  # pypdfium2, the quick one
    content["generation"] = content["generation"] | {"reference_questions": size.references > 0}
    content["generation"].pop("qna_file", None)
    epochs, tokens = READ_ALL_OVER
    content["pretraining"] |= _stage(
        "pretraining", known.pretraining.batch_size, size.chunks, epochs * math.sqrt(tokens / max(1, size.tokens))
    )
    content["finetuning"] |= _stage(
        "finetuning", known.finetuning.batch_size, size.pairs, PAIRS_SEEN / max(1, size.pairs)
    )
    content["evaluation"] |= {"max_questions": min(120, known.evaluation.max_questions or 120)}
    return content


def _stage(folder: str, batch_size: int, rows: int, epochs: float) -> dict:
    """Whole epochs, counted in rows, and two checkpoints, or more of a long run."""
    whole = min(MOST_EPOCHS, max(1, round(epochs)))
    steps = whole * math.ceil(max(1, rows) / batch_size)
    saved = min(MOST_STEPS_LOST, math.ceil(steps / 2))
    return {
        "folder": folder,
        "epochs": whole,
        "max_steps": -1,
        "save_steps": saved,
        "logging_steps": max(1, min(10, saved // 4)),
    }
