"""Clean documents become chunks: the unit that is trained on, asked about and retrieved.

Stage `load`. Whole sections are held out first; then text is split inside its section by LangChain's
`RecursiveCharacterTextSplitter`, 1024 characters with an overlap of 100 as in the study; every reference entry is a
chunk of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from llama_qna.documents.clean import Document
from llama_qna.documents.folder import document_hashes
from llama_qna.documents.heldout import hold_out, parted
from llama_qna.documents.loader import sections
from llama_qna.documents.quality import shortfalls
from llama_qna.documents.read import read_folder
from llama_qna.models.base import knows_not, load_tokenizer, model_identity
from llama_qna.project.data import CHUNK_COLUMNS, read_chunks
from llama_qna.project.files import read_json, write_json
from llama_qna.project.recipe import Chunking
from llama_qna.project.stage import once
from llama_qna.project.variant import Variant
from llama_qna.text.words import OTHER_STOPS

# as the splitter has them, and after the full stops of scripts without spaces
SEPARATORS = ["\n\n", "\n", f"(?<=[{OTHER_STOPS}])", " ", ""]


def load(variant: Variant) -> pd.DataFrame:
    """Stage 1: read the documents of the variant's corpus and split them into chunks.

    >>> chunks = load(Variant.load("paper_135m"))

    Writes `chunks.csv`; `text.txt` and `heldout.txt` (the text of the training and of the held-out sections, each once,
    for perplexity); and `documents.json` (what was repaired or dropped, and the files left out with their reasons).
    Prints one line for every file that was left out, and for every document that could be read or held out in part
    only.

    Returns:
        One row a chunk with the columns of `project.data.CHUNK_COLUMNS`; `kind` is `body` or `reference`, `split` is
        `train` or `heldout`, `page` counts from 1.

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
    documents, heldout = hold_out(documents, recipe.heldout)
    rows = [row for document in documents for row in split(document, recipe.chunking, heldout[document.name])]
    table = pd.DataFrame(rows)
    # document text is data: a control token that it spells out must not become one (split_special_tokens)
    encoded = tokenizer(list(table.text), add_special_tokens=False, split_special_tokens=True)
    table["tokens"] = [len(ids) for ids in encoded["input_ids"]]
    table[CHUNK_COLUMNS].to_csv(folder / "chunks.csv", index=False)
    parts = [parted(document, heldout[document.name]) for document in documents]
    for file, texts in zip(("text.txt", "heldout.txt"), zip(*parts, strict=True), strict=True):
        (folder / file).write_text("\n\n".join(filter(None, texts)), encoding="utf-8")
    reports = {document.name: document.report for document in documents}
    write_json(folder / "documents.json", {"documents": reports, "left_out": left_out})
    return {
        "documents": len(documents),
        "chunks": len(table),
        "tokens": int(table.tokens.sum()),
        "heldout_sections": sum(map(len, heldout.values())),
        "left_out": len(left_out),
    }


def split(document: Document, chunking: Chunking, heldout: Collection[str] = ()) -> list[dict]:
    """Split one document inside its sections; the overlap never crosses a section's border.

    Args:
        heldout: titles of the sections whose chunks are marked `heldout`; the others are marked `train`.
    """
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        SEPARATORS,
        is_separator_regex=True,
        chunk_size=chunking.chunk_size,
        chunk_overlap=chunking.chunk_overlap,
        add_start_index=True,
    )
    rows = []
    for section in sections(document):
        about = {name: section.metadata[name] for name in ("document", "page", "section", "kind")}
        if section.metadata["kind"] == "reference":
            rows.append(about | {"text": section.page_content})
            continue
        for piece in splitter.split_documents([section]):
            rows.append(about | {"page": section.page_at(piece.metadata["start_index"]), "text": piece.page_content})
    for n, row in enumerate(rows):
        row["chunk_id"] = f"{document.name}-{n:04d}"
        row["split"] = "heldout" if row["kind"] == "body" and row["section"] in heldout else "train"
    return rows
