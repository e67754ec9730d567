"""A reader, measured: gold questions about documents that it never saw, and those that the documents do not answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from llama_qna.answering.reader import DOUBT, READ, SHARE, ReadingAnswerer
from llama_qna.answering.retrieval import Answer
from llama_qna.evaluation import compare
from llama_qna.evaluation.free_rows import document_sentences, free_predictions
from llama_qna.evaluation.perplexity import perplexity
from llama_qna.evaluation.scoring import Said, asked_of, gold_of, scored
from llama_qna.models import prompts
from llama_qna.models.base import load_base, load_tokenizer
from llama_qna.models.folded import load_reader
from llama_qna.project import provenance
from llama_qna.project.data import CHUNK_COLUMNS, GENERAL_TEXT, read_table
from llama_qna.project.files import sha256, write_json, write_lines
from llama_qna.project.gold import FOLDS, read_gold, read_unanswerable
from llama_qna.project.variant import REPOSITORY, Reader
from llama_qna.text.words import CITATION

CORPORA = ("paper", "physics_reader")
ASKED = {"system": "reader", "checkpoint": "reader", "context": "passages"}


def measure(reader: Reader, folder: Path) -> dict:
    """Ask a reader the questions of `CORPORA`, and write `predictions.jsonl` and `metrics.json` into a folder.

    Returns:
        The content of `metrics.json`: see `compare.summarize`, by corpus, `all` of them together, and `new`, the
        questions of `gold_new.csv`, which were written after every choice had been made; `other_subjects` and
        `general_text`.

    Raises:
        UserError: the reader's adapter is damaged, or a question is bad.
    """
    found, written_last, corpora = {}, [], {corpus: published(corpus) for corpus in CORPORA}
    for corpus, (chunks, gold, unanswerable) in corpora.items():
        found[corpus] = _predictions(reader, chunks, rows_asked(gold, unanswerable, chunks, FOLDS))
        new = read_gold(REPOSITORY / "data" / corpus / "gold_new.csv", chunks)
        written_last += _predictions(reader, chunks, rows_asked(new, None, chunks, ["test"]))
    together = [row for rows in found.values() for row in rows]
    about = {"variant": reader.name, "base_model": reader.recipe.base_model, "chosen": "reader"}
    about["measured"] = {
        "adapter": sha256(reader.adapter / "adapter_model.safetensors"),
        "sentences_read": READ,
        "weight": prompts.DOUBT_WEIGHT,
        "doubt": DOUBT,
        "share": SHARE,
        **provenance.measured(),
    }
    found |= {"all": together, "new": written_last}
    content = {name: compare.summarize(about, [], rows, {}) for name, rows in found.items() if rows}
    content["other_subjects"] = other_subjects(reader, corpora)
    content["general_text"] = general_text(reader)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"corpus": name} | row for name, rows in found.items() for row in rows if name != "all"]
    write_lines(folder / "predictions.jsonl", rows)
    write_json(folder / "metrics.json", content)
    return content


def published(corpus: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The committed chunks of a corpus, its gold questions, and those that its documents do not answer."""
    data = REPOSITORY / "data" / corpus
    chunks = read_table(data / "chunks.csv", f"{corpus}/chunks.csv", CHUNK_COLUMNS, numbers=("page", "tokens"))
    return chunks, read_gold(data / "gold.csv", chunks), read_unanswerable(data / "unanswerable.csv")


def other_subjects(reader: Reader, corpora: dict[str, tuple]) -> dict:
    """How often a reader says so when it is asked about something else: each corpus the others' test questions.

    Args:
        corpora: what `published` gives, by name.
    """
    refused = []
    for corpus, (chunks, *_) in corpora.items():
        asked = [
            q for name, (_, gold, _) in corpora.items() if name != corpus for q in gold[gold.fold == "test"].Question
        ]
        refused += [answer.said_not for answer in ReadingAnswerer.of(chunks, reader).answer(asked)]
    return {"questions": len(refused), "says_so": sum(refused) / len(refused), "measured": provenance.measured()}


def general_text(reader: Reader) -> dict[str, float]:
    """The perplexity of general text to a reader and to its base: what else the training has changed."""
    recipe, text = reader.recipe, GENERAL_TEXT.read_text(encoding="utf-8")
    models = {"base": load_base(recipe.base_model, recipe.quantization), "reader": load_reader(reader)}
    tokenizer = load_tokenizer(recipe.base_model)
    return {name: perplexity(model, tokenizer, text, 1024, 1024)["perplexity"] for name, model in models.items()}


def _predictions(reader: Reader, chunks: pd.DataFrame, asked: dict[str, list[dict]]) -> list[dict]:
    """The scored answers of a reader, and of what costs nothing, to questions about a corpus."""
    sentences = document_sentences(chunks)
    free, _ = free_predictions(asked, sentences)
    return free + read_rows(ReadingAnswerer.of(chunks, reader).answer, asked, sentences, ASKED)


def rows_asked(gold: pd.DataFrame, unanswerable: pd.DataFrame | None, chunks, folds) -> dict[str, list[dict]]:
    """What is asked, by protocol: a fold, and with " unanswerable" after it what the documents do not answer."""
    asked = {fold: [gold_of(row, chunks) for row in gold[gold.fold == fold].itertuples()] for fold in folds}
    for fold in folds if unanswerable is not None else []:
        rows = unanswerable[unanswerable.fold == fold].itertuples()
        asked[f"{fold} unanswerable"] = [asked_of(row) for row in rows]
    return asked


def read_rows(
    answer: Callable[[list[str]], list[Answer]], asked: dict[str, list[dict]], sentences: list[Said], about: dict
) -> list[dict]:
    """The scored answers of a system that reads, all asked in one go.

    Args:
        asked: as `rows_asked` makes it.
        sentences: of the documents, which an answer may have copied.
        about: `system`, `checkpoint` and `context` of the predictions.

    Returns:
        See `scoring.scored`; `evidence_shown` says whether the gold evidence was among what the system read.
    """
    rows = [{"protocol": protocol} | about | row for protocol, rows in asked.items() for row in rows]
    texts, predictions = [sentence.text for sentence in sentences], []
    for row, found in zip(rows, answer([row["question"] for row in rows]), strict=True):
        said = Said(found.text, said_not=found.said_not)
        if found.evidence:
            source = found.evidence.source
            said = Said(found.text, found.evidence.sentence, source.document, source.page, found.said_not)
        if "reference" in row:
            before = _plain(row["gold_evidence"]) in _plain(" ".join(source.text for source in found.sources))
            row |= {"evidence_shown": float(before), "shown": row["chunk_ids"] if before else []}
        predictions.append(scored(row, said, texts, shows=True, ended=True))
    return predictions


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", CITATION.sub("", text).casefold()))
