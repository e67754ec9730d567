"""Clean documents become chunks: the unit that is trained on, asked about and retrieved.

Stage `load`. Whole sections are held out first; then text is split inside its section by LangChain's
`RecursiveCharacterTextSplitter`, 1024 characters with an overlap of 100 as in the study; every reference entry is a
chunk of its own.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pandas as pd

from llama_qna.documents import bibliography
from llama_qna.documents.clean import Document
from llama_qna.documents.read import document_hashes, read_folder
from llama_qna.models.base import knows_not, load_tokenizer, model_identity
from llama_qna.project.data import CHUNK_COLUMNS, read_chunks
from llama_qna.project.files import read_json, write_json
from llama_qna.project.recipe import Chunking, Heldout
from llama_qna.project.stage import once
from llama_qna.project.variant import Variant


def load(variant: Variant) -> pd.DataFrame:
    """Stage 1: read the documents of the variant's corpus and split them into chunks.

    >>> chunks = load(Variant.load("paper_135m"))

    Writes `chunks.csv`; `text.txt` and `heldout.txt` (the text of the training and of the held-out sections, each once,
    for perplexity); and `documents.json` (what was repaired or dropped, and the files left out with their reasons).
    Prints one line for every file that was left out and for every document with pages that need OCR.

    Returns:
        One row a chunk with the columns of `COLUMNS`; `kind` is `body` or `reference`, `split` is `train` or `heldout`,
        `page` counts from 1.

    Raises:
        UserError: there is no document, none can be read, or the base model's tokenizer cannot be had.
    """
    recipe = variant.recipe
    once(
        variant,
        "load",
        recipe=recipe.model_dump(include={"extractor", "read_limits", "chunking", "heldout"})
        | {"tokenizer": recipe.base_model},
        inputs=document_hashes(variant.pdfs, recipe.read_limits) | model_identity(recipe.base_model),
        work=lambda folder: _load(variant, folder),
    )
    reports = read_json(variant.chunks / "documents.json")
    print("".join(f"{line}\n" for line in shortfalls(reports)), end="")
    chunks = read_chunks(variant)
    if line := knows_not(recipe.base_model, chunks.text):
        print(line)
    return chunks


def _load(variant: Variant, folder: Path) -> dict:

    recipe = variant.recipe
    documents, left_out = read_folder(variant.pdfs, recipe.extractor, recipe.read_limits)
    tokenizer = load_tokenizer(recipe.base_model)
    heldout = {document.name: heldout_sections(document, recipe.heldout) for document in documents}
    rows = [row for document in documents for row in split(document, recipe.chunking, heldout[document.name])]
    table = pd.DataFrame(rows)
    # document text is data: a control token that it spells out must not become one (split_special_tokens)
    encoded = tokenizer(list(table.text), add_special_tokens=False, split_special_tokens=True)
    table["tokens"] = [len(ids) for ids in encoded["input_ids"]]
    table[CHUNK_COLUMNS].to_csv(folder / "chunks.csv", index=False)
    parts = [parted(document, heldout[document.name]) for document in documents]
    for file, texts in zip(("text.txt", "heldout.txt"), zip(*parts, strict=True), strict=True):
        (folder / file).write_text("\n\n".join(filter(None, texts)), encoding="utf-8")
    reports = {document.name: document.report | {"heldout": heldout[document.name]} for document in documents}
    write_json(folder / "documents.json", {"documents": reports, "left_out": left_out})
    return {
        "documents": len(documents),
        "chunks": len(table),
        "tokens": int(table.tokens.sum()),
        "heldout_sections": sum(map(len, heldout.values())),
        "left_out": len(left_out),
    }


def shortfalls(reports: dict) -> list[str]:
    """What the stage could not read, one line a file, from the content of `documents.json`."""
    lines = [f"left out: {name}: {reason}" for name, reason in reports["left_out"].items()]
    for report in reports["documents"].values():
        pages = ", ".join(map(str, report["needs_ocr"]))
        if pages:
            lines.append(
                f"{report['file']}: " + (f"pages {pages} need OCR" if "," in pages else f"page {pages} needs OCR")
            )
    return lines


def heldout_sections(document: Document, heldout: Heldout) -> list[str]:
    """Choose the sections of one document that nothing is trained on, by their titles, in the order of the document.

    Sections are drawn in random order, and each is taken that brings their characters nearer to the fraction asked for;
    if even the smallest is far too much, it is taken alone. A document keeps at least one section to train on.
    What stands before the first heading, and the references, are never held out. The choice depends on nothing but the
    document and the recipe's fraction and seed.
    """
    sizes = Counter()
    for paragraph in document.paragraphs:
        if paragraph.section and not bibliography.HEADING.fullmatch(paragraph.section):
            sizes[paragraph.section] += len(paragraph.text)
    if not heldout.fraction or len(sizes) < 2:
        return []
    target = heldout.fraction * sum(len(paragraph.text) for paragraph in document.paragraphs)
    titles = sorted(sizes)
    random.Random(f"{heldout.seed} {document.name}").shuffle(titles)
    chosen, characters = set(), 0
    for title in titles:
        if abs(characters + sizes[title] - target) < abs(characters - target) and len(chosen) < len(titles) - 1:
            chosen.add(title)
            characters += sizes[title]
    chosen = chosen or {min(titles, key=sizes.get)}
    return [title for title in sizes if title in chosen]


def parted(document: Document, heldout: list[str]) -> tuple[str, str]:
    """The text of the training sections, references included, and that of the held-out ones."""
    kept = [paragraph for paragraph in document.paragraphs if paragraph.section not in heldout]
    held = [paragraph for paragraph in document.paragraphs if paragraph.section in heldout]
    return replace(document, paragraphs=kept).text(), replace(document, paragraphs=held, references=[]).text()


def split(document: Document, chunking: Chunking, heldout: Collection[str] = ()) -> list[dict]:
    """Split one document inside its sections; the overlap never crosses a section's border.

    Args:
        heldout: titles of the sections whose chunks are marked `heldout`; the others are marked `train`.
    """
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
            start = piece.metadata["start_index"]
            index = bisect_right(starts, start) - 1
            page = paragraphs[index].page_at(start - starts[index])
            rows.append({"page": page, "section": section, "kind": "body", "text": piece.page_content})
    for number, entry, page in document.references:
        rows.append({"page": page, "section": "References", "kind": "reference", "text": f"[{number}] {entry}"})
    for n, row in enumerate(rows):
        row |= {"chunk_id": f"{document.name}-{n:04d}", "document": document.name}
        row["split"] = "heldout" if row["kind"] == "body" and row["section"] in heldout else "train"
    return rows
