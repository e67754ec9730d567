"""What a variant has learnt, measured (stage `evaluate`): which model is asked what; `compare` makes the numbers.

`in_sample` scores every checkpoint on what it was trained on: memory. `heldout` asks gold questions that nothing was
trained on: a checkpoint is chosen on the fold `dev`, and the systems are compared once on `test`. `published` repeats
the study's arithmetic, for comparison with its numbers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from llama_qna import UserError
from llama_qna.evaluation import compare
from llama_qna.evaluation.bench import PUBLISHED, Asked, Bench, texts_of
from llama_qna.evaluation.judge import judge
from llama_qna.models.lineage import Point, has_reader, points_of, reader_of
from llama_qna.project import gold
from llama_qna.project.data import GENERAL_TEXT, read_chunks, read_metrics, read_qna
from llama_qna.project.files import sha256, write_json, write_lines
from llama_qna.project.generated import generated_questions
from llama_qna.project.stage import once
from llama_qna.project.systems import PASSAGES
from llama_qna.project.variant import Variant

CLOSED_BOOK = {"base": "base", "pretraining": "pretrained"}  # stages whose last model is asked on test, and as whom


def evaluate(variant: Variant) -> dict:
    """Stage 5: score the base, every checkpoint, and the systems that are compared.

    >>> metrics = evaluate(Variant.load("paper_135m"))

    Writes `predictions.jsonl` (every prompt's hash, answer and scores) and `metrics.json`, which is computed from it.

    Returns:
        The content of `metrics.json`; see `compare.summarize`.

    Raises:
        UserError: a stage before this one has not run on this machine, a checkpoint is of another base, a gold question
            is bad or near a training question, or a score is no number.
    """
    pairs, points = read_qna(variant), points_of(variant)
    questions, texts = gold_questions(variant, pairs), texts_of(variant)
    inputs = inputs_of(variant, points, texts, questions is not None)
    if has_reader(variant):
        inputs["reader"] = sha256(reader_of(variant).adapter / "adapter_model.safetensors")

    def work(folder: Path) -> dict:
        return _evaluate(variant, points, pairs, questions, texts, folder)

    once(variant, "evaluate", recipe_of(variant), inputs, work)
    judge(variant)
    return read_metrics(variant)


def recipe_of(variant: Variant) -> dict:
    """The parts of the recipe that scores depend on; a judge changes none."""
    parts = {"base_model", "quantization", "evaluation", "stacking"}
    return variant.recipe.model_dump(include=parts, exclude={"evaluation": {"judge"}})


def inputs_of(variant: Variant, points: list[Point], texts: dict[str, str], asked: bool) -> dict[str, str]:
    """Name and sha256 of everything that measuring these models reads; `asked`: gold questions among it."""
    files = {"chunks.csv": variant.chunks / "chunks.csv", "qna.csv": variant.qna / "qna.csv"}
    asked_files = {"gold.csv": variant.gold, "unanswerable.csv": variant.unanswerable} if asked else {}
    files |= {name: path for name, path in asked_files.items() if path.is_file()}
    files |= {point.name: point.adapter / "adapter_model.safetensors" for point in points if point.adapter}
    found = {name: sha256(path) for name, path in files.items()}
    return found | {f"{kind} text": hashlib.sha256(text.encode()).hexdigest() for kind, text in texts.items()}


def gold_questions(variant: Variant, pairs: pd.DataFrame) -> pd.DataFrame | None:
    """The gold questions of the corpus, or else pairs kept from training, if the recipe wants the held-out protocol.

    Raises:
        UserError: a gold question is bad, or near a training question; the recipe wants this protocol alone, and there
            is no question.
    """
    protocol, chunks = variant.recipe.evaluation.protocol, read_chunks(variant)
    if protocol == "published":
        return None
    questions = gold.read_gold(variant.gold, chunks) if variant.gold.is_file() else pd.DataFrame()
    if questions.empty:
        questions = generated_questions(pairs, chunks)
        if questions is None and protocol == "heldout":
            raise UserError(f"{variant.name}: no gold question, and no pair was kept from training: nothing to ask")
        return questions
    trained = list(pairs[pairs.split == "train"].Question)
    for row in questions.itertuples():
        if near := gold.near(row.Question, trained):
            advice = f"`llama-qna run {variant.name}` trains without it"
            raise UserError(f"{variant.gold.name}, {row.question_id}: near the training question {near!r}; {advice}")
    return questions


def _evaluate(variant: Variant, points: list[Point], pairs: pd.DataFrame, questions, texts, folder: Path) -> dict:
    settings = variant.recipe.evaluation

    # --- answers that cost nothing, and every model in its turn
    unanswerable = None if questions is None else gold.read_unanswerable(variant.unanswerable)
    bench, curve = Bench(variant, pairs, questions, texts, unanswerable), []
    threshold = bench.free()
    for point in tqdm(points, desc="evaluating", unit="model"):
        curve += _measure(bench, point, points)

    # --- the checkpoints that dev chooses, by one rule, asked on test
    chosen, finetuned_only = (_chosen(bench, points, stage) for stage in ("finetuning", "finetuning_only"))
    _measure_whole(bench, chosen, curve)
    if questions is not None:
        _ask_chosen(bench, variant, points, {"finetuned": chosen, "finetuned_only": finetuned_only})

    # --- scores
    about = {"variant": variant.name, "base_model": variant.recipe.base_model, "chosen": chosen.name}
    about |= {} if threshold is None else {"bm25_threshold": threshold}
    if questions is not None:
        about["questions"] = {"source": questions.source.iloc[0], "count": len(questions)}
    about["protocols"] = compare.protocols(settings, GENERAL_TEXT.name, PUBLISHED, list(texts))
    content = compare.summarize(about, curve, bench.predictions, bench.published_perplexity)
    write_lines(folder / "predictions.jsonl", bench.predictions)
    write_json(folder / "metrics.json", content)
    return {"checkpoints": len(curve), "predictions": len(bench.predictions), "chosen": chosen.name}


def _measure(bench: Bench, point: Point, points: list[Point]) -> list[dict]:
    """Ask one model its questions; return its entries in the curve, none for `finetuning_only`.

    The last model of a stage is measured by all texts and training questions, one before it by their sample. All
    questions closed book go to a model in one call: they share the beginning of their prompts.
    """
    model, entries, asked = bench.load(point), [], bench.gold(point, point.name, "dev")
    of_curve = point.stage != "finetuning_only"
    is_last = point == [other for other in points if other.stage == point.stage][-1]
    if of_curve:
        about = {"name": point.name, "stage": point.stage, "step": point.step, "whole": is_last}
        entries = [about | {"perplexity": bench.perplexities(model, whole=is_last)}]
        asked += [(row, ids) for row, ids in bench.in_sample(point.name) if is_last or row["sample"]]
    if is_last and point.stage in CLOSED_BOOK:  # which checkpoint of fine-tuning is compared, dev decides
        asked += bench.likelihoods(model, bench.gold(point, CLOSED_BOOK[point.stage], "test"))
    bench.answer(model, asked)
    if point.stage == "base":
        bench.answer(model, _with_passages(bench, point, "base+passages"))
        bench.answer(model, bench.gold(point, "base+right_chunk", "test", "right chunk"))
    if is_last and of_curve and bench.settings.protocol != "heldout":
        bench.published(model, point)
    return entries


def _measure_whole(bench: Bench, chosen: Point, curve: list[dict]) -> None:
    """Measure the checkpoint that ships by all texts and training questions, where only their sample was asked."""
    entry = next(entry for entry in curve if entry["name"] == chosen.name)
    if not entry["whole"]:
        model = bench.load(chosen)
        entry |= {"whole": True, "perplexity": bench.perplexities(model)}
        bench.answer(model, [(row, ids) for row, ids in bench.in_sample(chosen.name) if not row["sample"]])


def _ask_chosen(bench: Bench, variant: Variant, points: list[Point], chosen: dict[str, Point | None]) -> None:
    """The test questions: closed book; with chunks, where the model has not learnt to read; and of all that read."""
    chosen = {system: point for system, point in chosen.items() if point}
    if not variant.learns_to_read:
        point = chosen["finetuned"]
        bench.answer(bench.load(point), _with_passages(bench, point, f"finetuned{PASSAGES}"))
    for system, point in chosen.items():
        model = bench.load(point)
        bench.answer(model, bench.likelihoods(model, bench.gold(point, system, "test")))
    if has_reader(variant):
        bench.read("reader")
    if variant.learns_to_read:
        if variant.recipe.start:  # what pretraining leaves of the reading
            bench.read(f"pretrained{PASSAGES}", next(p for p in reversed(points) if p.stage == "pretraining"))
        for system, point in reversed(chosen.items()):  # in the order of the committed rows
            bench.read(f"{system}{PASSAGES}", point)


def _chosen(bench: Bench, points: list[Point], stage: str) -> Point | None:
    """The checkpoint of a stage that dev chooses; without dev questions its last, None where the stage has none."""
    known = {point.name: point for point in points if point.stage == stage}
    last = next(reversed(known.values()), None)
    return known.get(compare.best_on_dev(bench.predictions, stage), last)


def _with_passages(bench: Bench, point: Point, system: str) -> Asked:
    """The test questions with what retrieval finds, and those that the documents do not answer."""
    kinds = ("test", "test unanswerable")
    return [asked for protocol in kinds for asked in bench.gold(point, system, protocol, "retrieved")]
