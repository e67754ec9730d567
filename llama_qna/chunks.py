"""Clean documents become chunks: the unit that is trained on, asked about and retrieved.

Stage `load`. Text is split inside its section by LangChain's `RecursiveCharacterTextSplitter`, 1024 characters with an
overlap of 100 as in the study; every reference entry is a chunk of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import groupby
from pathlib import Path

import pandas as pd

from llama_qna import UserError, records
from llama_qna.cleaning import Document
from llama_qna.documents import read_folder
from llama_qna.variants import Chunking, Variant

COLUMNS = ["chunk_id", "document", "page", "section", "kind", "split", "text", "tokens"]


def load(variant: Variant) -> pd.DataFrame:
    """Stage 1: read the PDFs of the variant's corpus and split them into chunks.

    Writes `chunks.csv`, `text.txt` (all text once, for perplexity) and `documents.json` (what was repaired or dropped).

    Returns:
        One row a chunk with the columns of `COLUMNS`; `kind` is `body` or `reference`, `page` counts from 1.

    Raises:
        UserError: a PDF is missing or cannot be read, or the base model's tokenizer cannot be had.
    """
    from llama_qna.models import model_identity

    recipe = variant.recipe
    paths = sorted(variant.pdfs.glob("*.pdf")) if variant.pdfs.is_dir() else []
    records.once(
        variant,
        "load",
        recipe=recipe.model_dump(include={"extractor", "chunking"}) | {"tokenizer": recipe.base_model},
        inputs={path.name: records.sha256(path) for path in paths} | model_identity(recipe.base_model),
        work=lambda folder: _load(variant, folder),
    )
    return read_chunks(variant)


def _load(variant: Variant, folder: Path) -> dict:
    from llama_qna.models import load_tokenizer

    documents = read_folder(variant.pdfs, variant.recipe.extractor)
    tokenizer = load_tokenizer(variant.recipe.base_model)
    table = pd.DataFrame([row for document in documents for row in split(document, variant.recipe.chunking)])
    # document text is data: a control token that it spells out must not become one (split_special_tokens)
    encoded = tokenizer(list(table.text), add_special_tokens=False, split_special_tokens=True)
    table["tokens"] = [len(ids) for ids in encoded["input_ids"]]
    table[COLUMNS].to_csv(folder / "chunks.csv", index=False)
    (folder / "text.txt").write_text("\n\n".join(document.text() for document in documents), encoding="utf-8")
    reports = {document.name: document.report for document in documents}
    records.write_json(folder / "documents.json", reports)
    return {"documents": len(documents), "chunks": len(table), "tokens": int(table.tokens.sum())}


def split(document: Document, chunking: Chunking) -> list[dict]:
    """Split one document inside its sections; the overlap never crosses a section's border."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=chunking.chunk_size, chunk_overlap=chunking.chunk_overlap, add_start_index=True
    )
    rows = []
    for section, group in groupby(document.paragraphs, key=lambda paragraph: paragraph.section):
        paragraphs = list(group)
        starts, position = [], 0  # where each paragraph begins in the section's text
        for paragraph in paragraphs:
            starts.append(position)
            position += len(paragraph.text) + len("\n\n")
        text = "\n\n".join(paragraph.text for paragraph in paragraphs)
        for piece in splitter.create_documents([text]):
            page = paragraphs[bisect_right(starts, piece.metadata["start_index"]) - 1].page
            rows.append({"page": page, "section": section, "kind": "body", "text": piece.page_content})
    for number, entry, page in document.references:
        rows.append({"page": page, "section": "References", "kind": "reference", "text": f"[{number}] {entry}"})
    for n, row in enumerate(rows):
        row |= {"chunk_id": f"{document.name}-{n:04d}", "document": document.name, "split": "train"}
    return rows


def read_chunks(variant: Variant) -> pd.DataFrame:
    """The chunks of a finished `load` stage.

    Raises:
        UserError: the stage has not run on this machine.
    """
    path = variant.chunks / "chunks.csv"
    if not path.is_file():
        raise UserError(f"no chunks yet for {variant.name}: run `llama-qna load {variant.name}` first")
    return pd.read_csv(path, keep_default_na=False)
