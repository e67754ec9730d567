"""The same stages as this package does them."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from itertools import cycle
from pathlib import Path

from benchmarks.job import Job
from benchmarks.study import STRIDE, WINDOW
from llama_qna.models import adapters
from llama_qna.models.base import load_base, load_tokenizer
from llama_qna.project.variant import Variant
from llama_qna.text import scores


def extraction(job: Job) -> None:
    """The text alone, in the order of reading, since the study repaired none of it."""
    from benchmarks.pages import document
    from llama_qna.documents.clean import lines_of_pages
    from llama_qna.documents.runs import read_pdfium

    with document(job) as path, job.timed():
        pages = lines_of_pages(read_pdfium(path)[0], Counter(), {})
    job.items = len(pages)


def generation(job: Job) -> None:
    from llama_qna.pairs.qna import judge, passages_of
    from llama_qna.pairs.writers import LocalModel, Reading, reader_for

    body = job.chunks()
    passages = passages_of(body)
    engine = LocalModel(job.variant, reader_for(job.variant))
    job.watch(engine.model)
    write = Reading(engine, job.variant.recipe.generation)
    with job.timed():
        written = {passage.chunk_id: write([passage], attempt=1) for passage in passages}
        pairs, _ = judge(job.variant, body, written)
    job.items, job.tokens = len(pairs), sum(result.tokens for (result,) in written.values())


def training(job: Job) -> None:
    """The stage `pretrain` itself, in a folder for the moment, on about as many tokens; loading is not counted."""
    from llama_qna.training.stages import pretrain

    with tempfile.TemporaryDirectory() as folder:
        results = pretrain(to_train(job, Path(folder)))["results"]
    job.seconds, job.tokens, job.items = results["seconds_of_steps"], results["tokens_per_epoch"], results["steps"]


def to_train(job: Job, root: Path) -> Variant:
    """The variant with adapters on q and v as in the study, on as many of its chunks as the study's side has tokens."""
    from llama_qna.documents.chunks import load

    recipe, size = job.variant.recipe, job.size
    stage = recipe.pretraining.model_copy(
        update={"epochs": 1, "max_steps": -1, "batch_size": size["rows"], "max_length": size["length"]}
        | {"packing": False, "replay_tokens": 0, "save_steps": 10**6, "gradient_checkpointing": False}
    )
    lora = recipe.lora.model_copy(update={"target_modules": ["q_proj", "v_proj"]})
    changed = recipe.model_copy(update={"pretraining": stage, "lora": lora, "stacking": "continue"})
    variant = Variant(job.variant.name, root, changed)
    table = load(job.variant)
    table = table[table.split == "train"]
    wanted, rows = size["steps"] * size["rows"] * size["length"], []
    for row in cycle(table.index):
        rows.append(row)
        wanted -= min(table.tokens[row], size["length"])
        if wanted <= 0:
            break
    shutil.copytree(job.variant.chunks, variant.chunks)
    table.loc[rows].to_csv(variant.chunks / "chunks.csv", index=False)
    return variant


def perplexity(job: Job) -> None:
    from llama_qna.evaluation.perplexity import perplexity as measure

    tokenizer, recipe = _tokenizer(job), job.variant.recipe
    model, text = job.watch(load_base(recipe.base_model, recipe.quantization)), job.text(tokenizer)
    with job.timed():
        job.tokens = measure(model, tokenizer, text, WINDOW, STRIDE)["tokens"]
    job.items = 1


def sweep(job: Job) -> None:
    from llama_qna.evaluation.perplexity import perplexity as measure

    tokenizer, recipe = _tokenizer(job), job.variant.recipe
    pairs, text = job.pairs(job.size["swept"]), job.text(tokenizer)
    points, model, weights = job.points(), None, None
    with job.timed():
        for point in points:
            if model is None or point.weights != weights:
                base = job.watch(load_base(recipe.base_model, recipe.quantization, weights=point.weights))
                model, weights = adapters.attach_adapter(base, point.adapter), point.weights
            else:
                adapters.swap_adapter(model, point.adapter)
            job.tokens += measure(model, tokenizer, text, WINDOW, STRIDE)["tokens"]
            answers = answer(model, tokenizer, [question for question, _ in pairs], recipe.evaluation)
            for text_, (_, reference) in zip(answers, pairs, strict=True):
                scores.rouge(text_, reference)
            job.tokens += _count(tokenizer, answers)
            job.items += 1


def asking(job: Job) -> None:
    from llama_qna.models.lineage import shipped_checkpoint, start_of_finetuning

    tokenizer, recipe = _tokenizer(job), job.variant.recipe
    weights = start_of_finetuning(job.variant)[0]
    base = job.watch(load_base(recipe.base_model, recipe.quantization, weights=weights))
    model = adapters.attach_adapter(base, shipped_checkpoint(job.variant))
    questions = [question for question, _ in job.pairs(job.size["asked"])]
    with job.timed():
        answers = answer(model, tokenizer, questions, recipe.evaluation)
    job.items, job.tokens = len(answers), _count(tokenizer, answers)


def answer(model, tokenizer, questions: list[str], settings) -> list[str]:
    """Greedy answers closed book, in the template that fine-tuning used."""
    from llama_qna.models.generate import generate_texts
    from llama_qna.models.prompts import question_ids

    input_ids = [question_ids(tokenizer, question) for question in questions]
    limits = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch_size}
    return generate_texts(model, tokenizer, input_ids, **limits)


def _count(tokenizer, texts: list[str]) -> int:
    from llama_qna.models.prompts import encode_document

    return sum(len(encode_document(tokenizer, text)) for text in texts)


def _tokenizer(job: Job):
    return load_tokenizer(job.variant.recipe.base_model)
