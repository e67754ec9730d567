"""A reader, measured: gold questions about documents that it never saw, and those that the documents do not answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from llama_qna.answering.reader import DOUBT, READ, ReadingAnswerer
from llama_qna.answering.retrieval import Answer
from llama_qna.evaluation import compare
from llama_qna.evaluation.bench import asked_of, gold_of
from llama_qna.evaluation.free_rows import document_sentences, free_predictions
from llama_qna.evaluation.scoring import Said, scored
from llama_qna.project import provenance
from llama_qna.project.data import CHUNK_COLUMNS, read_table
from llama_qna.project.files import sha256, write_json, write_lines
from llama_qna.project.gold import FOLDS, read_gold, read_unanswerable
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.text.words import CITATION

CORPORA = ("paper", "physics_reader")
ASKED = {"context": "passages", "checkpoint": "reader"}


def measure(reader: Reader, folder: Path, corpora: Sequence[str] = CORPORA, folds: Sequence[str] = FOLDS) -> dict:
    """Ask a reader the questions of some corpora, and write `predictions.jsonl` and `metrics.json` into a folder.

    Returns:
        The content of `metrics.json`: see `compare.summarize`, by corpus, and `all` of them together.

    Raises:
        UserError: the reader's adapter is damaged, or a question is bad.
    """
    found = {corpus: predictions_of(reader, corpus, folds) for corpus in corpora}
    together = [row for rows in found.values() for row in rows]
    about = {"variant": reader.name, "base_model": reader.recipe.base_model, "chosen": "reader"}
    about["measured"] = {
        "adapter": sha256(reader.adapter / "adapter_model.safetensors"),
        "sentences_read": READ,
        "doubt": DOUBT,
        "date": datetime.now(UTC).date().isoformat(),
        "git": provenance.git_state(),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
    }
    content = {name: compare.summarize(about, [], rows, {}) for name, rows in [*found.items(), ("all", together)]}
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"corpus": corpus} | row for corpus, rows in found.items() for row in rows]
    write_lines(folder / "predictions.jsonl", rows)
    write_json(folder / "metrics.json", content)
    return content


def predictions_of(reader: Reader, corpus: str, folds: Sequence[str] = FOLDS) -> list[dict]:
    """The scored answers of a reader, and of what costs nothing, to the questions about a corpus that is committed."""
    folder = REPOSITORY / "data" / corpus
    chunks = read_table(folder / "chunks.csv", f"{corpus}/chunks.csv", CHUNK_COLUMNS, numbers=("page", "tokens"))
    gold, unanswerable = read_gold(folder / "gold.csv", chunks), read_unanswerable(folder / "unanswerable.csv")
    asked = rows_asked(gold, unanswerable, chunks, folds)
    free, _ = free_predictions(asked, document_sentences(chunks))
    return free + read_rows(ReadingAnswerer(chunks, reader), asked)


def rows_asked(gold: pd.DataFrame, unanswerable: pd.DataFrame | None, chunks, folds) -> dict[str, list[dict]]:
    """What is asked, by protocol: a fold, and with " unanswerable" after it what the documents do not answer."""
    asked = {fold: [gold_of(row, chunks) for row in gold[gold.fold == fold].itertuples()] for fold in folds}
    if unanswerable is not None:
        for fold in folds:
            rows = unanswerable[unanswerable.fold == fold].itertuples()
            asked[f"{fold} unanswerable"] = [asked_of(row) for row in rows]
    return asked


def read_rows(answerer: ReadingAnswerer, asked: dict[str, list[dict]], system: str = "reader") -> list[dict]:
    """The scored answers of a reader, all asked in one go; `evidence_shown` says whether the evidence was before it."""
    rows = [{"protocol": protocol, "system": system} | ASKED | row for protocol, rows in asked.items() for row in rows]
    answers = answerer.answer([row["question"] for row in rows])
    sentences = [sentence.text for sentence in answerer.sentences.all]
    return [_scored(row, answer, sentences) for row, answer in zip(rows, answers, strict=True)]


def _scored(row: dict, answer: Answer, sentences: list[str]) -> dict:
    evidence = answer.evidence
    said = Said(answer.text, said_not=answer.said_not)
    if evidence:
        said = Said(answer.text, evidence.sentence, evidence.source.document, evidence.source.page, answer.said_not)
    if "reference" in row:
        before = _plain(row["gold_evidence"]) in _plain(" ".join(source.text for source in answer.sources))
        row |= {"evidence_shown": float(before), "shown": row["chunk_ids"] if before else []}
    return scored(row, said, sentences, shows=True, ended=True)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", CITATION.sub("", text).casefold()))
