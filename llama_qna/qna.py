"""Chunks become question-answer pairs (stage `generate`).

Every pair keeps the id of its chunk; every rejected one is kept too, with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pandas as pd

from llama_qna import UserError, pair_filters, pair_parser, prompts, records
from llama_qna.chunks import read_chunks
from llama_qna.variants import Variant

COLUMNS = ["Question", "Answer", "chunk_id", "document", "page", "split", "method", "model"]


def generate(variant: Variant) -> pd.DataFrame:
    """Stage 2: make question-answer pairs from the chunks.

    Writes `qna.csv` and `qna_rejected.csv` (the same columns and `reason`).

    Returns:
        The accepted pairs, with the columns of `COLUMNS`.

    Raises:
        UserError: no chunks yet, a Q&A file of the user's without its columns, or not one usable pair.
    """
    recipe = variant.recipe
    chunks = read_chunks(variant)
    from llama_qna.models import model_identity

    inputs = {"chunks.csv": records.sha256(variant.chunks / "chunks.csv")} | model_identity(recipe.base_model)
    if recipe.generation.qna_file:
        path = variant.root / recipe.generation.qna_file
        inputs[path.name] = records.sha256(path) if path.is_file() else "missing"
    records.once(
        variant,
        "generate",
        recipe=recipe.model_dump(include={"generation", "base_model", "seed"}),
        inputs=inputs,
        work=lambda folder: _generate(variant, chunks, folder),
    )
    return read_qna(variant)


def _generate(variant: Variant, chunks: pd.DataFrame, folder: Path) -> dict:
    recipe = variant.recipe.generation
    rejected = pd.DataFrame(columns=[*COLUMNS, "reason"])
    if recipe.qna_file:
        pairs = read_qna_file(variant.root / recipe.qna_file)
    else:
        tries = _model_pairs(variant, chunks[chunks.kind == "body"])
        pairs, rejected = tries[tries.reason == ""], tries[tries.reason != ""]
    if recipe.reference_questions:
        pairs = pd.concat([pairs, reference_pairs(chunks[chunks.kind == "reference"])], ignore_index=True)
    if pairs.empty:
        raise UserError(f"{variant.name}: not one usable question-answer pair came out of {len(rejected)} tries")
    pairs.reindex(columns=COLUMNS).to_csv(folder / "qna.csv", index=False)
    rejected.reindex(columns=[*COLUMNS, "reason"]).to_csv(folder / "qna_rejected.csv", index=False)
    reasons = Counter(rejected.reason)
    return {"pairs": len(pairs), "rejected": len(rejected), "reasons": dict(reasons.most_common())}


def read_qna(variant: Variant) -> pd.DataFrame:
    """The pairs of a finished `generate` stage.

    Raises:
        UserError: the stage has not run on this machine.
    """
    path = variant.qna / "qna.csv"
    if not path.is_file():
        raise UserError(f"no questions yet for {variant.name}: run `llama-qna generate {variant.name}` first")
    return pd.read_csv(path, keep_default_na=False)


def read_qna_file(path: Path) -> pd.DataFrame:
    """A Q&A file of the user's own: a CSV with the columns Question and Answer.

    Raises:
        UserError: it is missing, no CSV, without its columns, or without rows.
    """
    if not path.is_file():
        raise UserError(f"Q&A file {path.name}: no such file (generation.qna_file in variant.yaml)")
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"Q&A file {path.name}: not readable as CSV ({str(error).strip().splitlines()[0]})") from None
    missing = [name for name in ("Question", "Answer") if name not in table]
    if missing:
        raise UserError(
            f"Q&A file {path.name}: no column {' or '.join(missing)}; it has {', '.join(map(str, table.columns))}"
        )
    table["Question"] = table.Question.map(lambda text: re.sub(rf"\A{pair_parser.QUESTION_LABEL}", "", text).strip())
    table["Answer"] = table.Answer.map(lambda text: re.sub(rf"\A{pair_parser.ANSWER_LABEL}", "", text).strip())
    table = table[(table.Question != "") & (table.Answer != "")]
    if table.empty:
        raise UserError(f"Q&A file {path.name}: no row has both a question and an answer")
    return table.assign(split="train", method="file", model="")


def reference_pairs(references: pd.DataFrame) -> pd.DataFrame:
    """The study's questions about the reference list: "What is reference [n]?", answered by the entry."""
    rows = []
    for chunk in references.itertuples():
        number, entry = re.match(r"\[(\d+)\]\s*(.*)", chunk.text, re.S).groups()
        rows.append(_row(f"What is reference [{number}]?", entry, chunk, "reference", ""))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(question: str, answer: str, chunk, method: str, model: str) -> dict:
    return {
        "Question": question,
        "Answer": answer,
        "chunk_id": chunk.chunk_id,
        "document": chunk.document,
        "page": chunk.page,
        "split": chunk.split,
        "method": method,
        "model": model,
    }


def _model_pairs(variant: Variant, chunks: pd.DataFrame) -> pd.DataFrame:
    """Ask the base model for pairs about every chunk; every try, with the `reason` it was rejected for, or none."""
    from llama_qna.models import load_base, load_tokenizer

    recipe = variant.recipe
    tokenizer = load_tokenizer(recipe.base_model)
    model = load_base(recipe.base_model, recipe.quantization if recipe.generation.load_in_4bit else None)
    method = {"two_step": _two_step, "multi_pair": _multi_pair}[recipe.generation.method]
    texts = dict(zip(chunks.chunk_id, chunks.text, strict=True))
    # What to ask about: a passage of a few sentences for each pair, so that the questions of a chunk differ and a small
    # model keeps to the point; or the whole chunk, for a model that writes several pairs at once.
    count = recipe.generation.pairs_per_chunk if recipe.generation.method == "two_step" else 1
    waiting = [(chunk, text) for chunk in chunks.itertuples() for text in passages_of(chunk.text, count)]
    tries = pd.DataFrame(columns=[*COLUMNS, "reason"])
    for attempt in range(1, recipe.generation.attempts + 1):
        seeds = [f"{recipe.seed} {attempt} {chunk.chunk_id} {text}" for chunk, text in waiting]
        found = method(variant, model, tokenizer, waiting, seeds, f"attempt {attempt}")
        rows = [
            _row(question, answer, waiting[i][0], recipe.generation.method, recipe.base_model) | {"passage": i}
            for i, question, answer in found
        ]
        tries = pd.concat([tries, pd.DataFrame(rows, columns=[*COLUMNS, "passage"])], ignore_index=True)
        tries["reason"] = pair_filters.filter_pairs(tries, texts)
        answered = set(tries[tries.reason == ""].passage.dropna())
        waiting = [item for i, item in enumerate(waiting) if i not in answered]
        tries["passage"] = None  # numbers are good for one attempt
        if not waiting:
            break
    return tries.drop(columns="passage")


def _two_step(variant, model, tokenizer, passages, seeds, description) -> list[tuple[int, str, str]]:
    """One question for each passage, then its answer: the sentence of the passage that the model chooses.

    A model of 135M parameters asks sensibly but answers freely with inventions (67 of 136 answers were not
    supported by their chunk), so its answer is held to the passage's own sentences.
    """
    from llama_qna.generation import generate_texts

    settings = variant.recipe.generation
    options = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch_size}
    questions = generate_texts(
        model,
        tokenizer,
        [prompts.write_question_prompt(tokenizer, passage) for _, passage in passages],
        temperature=settings.temperature,
        seeds=seeds,
        stop_at_newline=True,
        description=f"questions, {description}",
        **options,
    )
    answers = generate_texts(
        model,
        tokenizer,
        [prompts.write_answer_prompt(tokenizer, p, q) for (_, p), q in zip(passages, questions, strict=True)],
        choices=[sentences_of(passage) for _, passage in passages],
        description=f"answers, {description}",
        **options,
    )
    return [(i, question, answer) for i, (question, answer) in enumerate(zip(questions, answers, strict=True))]


def _multi_pair(variant, model, tokenizer, chunks, seeds, description) -> list[tuple[int, str, str]]:
    """Several pairs for each chunk in one free text, the study's way."""
    from llama_qna.generation import generate_texts

    settings = variant.recipe.generation
    texts = generate_texts(
        model,
        tokenizer,
        [prompts.write_pairs_prompt(tokenizer, text, settings.pairs_per_chunk) for _, text in chunks],
        temperature=settings.temperature,
        seeds=seeds,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        description=f"pairs, {description}",
    )
    return [(i, question, answer) for i, text in enumerate(texts) for question, answer in pair_parser.parse_pairs(text)]


def sentences_of(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z\"“(])", text)


def passages_of(text: str, count: int) -> list[str]:
    """Cut a text into up to `count` passages of neighbouring sentences, of about equal length; nothing is lost."""
    target, passages = len(text) / count, [""]
    for sentence in sentences_of(text):
        full = len(passages[-1]) + len(sentence) / 2 > target
        if len(passages[-1]) > 40 and len(passages) < count and full:
            passages.append("")
        passages[-1] = f"{passages[-1]} {sentence}".strip()
    if len(passages) > 1 and len(passages[-1]) <= 40:  # too short to ask about
        passages[-2:] = [" ".join(passages[-2:])]
    return passages
