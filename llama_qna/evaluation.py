"""Perplexity and ROUGE of the base model and of every checkpoint (stage `evaluate`).

The protocol is the study's: the scores are on the text and the questions that were trained on, so they show what a
model has memorized. Differences from the study's arithmetic are errors mended: perplexity is over totals, the
`Answer:` label earns nothing, decoding is greedy.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from llama_qna import UserError, metrics, prompts, records
from llama_qna.qna import read_qna
from llama_qna.training import checkpoints, merged_base, step_of
from llama_qna.variants import REPOSITORY, Evaluation, Variant

GENERAL_TEXT = REPOSITORY / "data" / "general" / "everyday.txt"


def evaluate(variant: Variant) -> dict:
    """Stage 5: score the base model, every pretraining checkpoint and every fine-tuning checkpoint.

    Writes `metrics.json` (what the figures are drawn from) and `predictions.jsonl` (every answer with its scores).

    Returns:
        The content of `metrics.json`.

    Raises:
        UserError: a stage before this one has not run on this machine, or a score is no number.
    """
    recipe = variant.recipe
    read_qna(variant), merged_base(variant)
    if not checkpoints(variant.finetuning):
        raise UserError(f"no fine-tuned model yet for {variant.name}: run `llama-qna finetune {variant.name}` first")
    inputs = {
        "text.txt": records.sha256(variant.chunks / "text.txt"),
        "qna.csv": records.sha256(variant.qna / "qna.csv"),
        "general text": records.sha256(GENERAL_TEXT),
        "pretraining": records.sha256(variant.pretraining / "run.json"),
        "finetuning": records.sha256(variant.finetuning / "run.json"),
    }
    kept = recipe.model_dump(include={"base_model", "quantization", "evaluation"})
    records.once(variant, "evaluate", kept, inputs, lambda folder: _evaluate(variant, folder))
    return json.loads((variant.evaluation / "metrics.json").read_text(encoding="utf-8"))


def _evaluate(variant: Variant, folder: Path) -> dict:
    from llama_qna import models

    recipe, settings = variant.recipe, variant.recipe.evaluation
    pairs = read_qna(variant)
    pairs = pairs[pairs.split == "train"].head(settings.max_questions or len(pairs))
    tokenizer = models.load_tokenizer(recipe.base_model)
    domain = (variant.chunks / "text.txt").read_text(encoding="utf-8")
    texts = {"domain": domain, "general": GENERAL_TEXT.read_text(encoding="utf-8")}
    groups = [
        ("base", None, [None]),
        ("pretraining", None, checkpoints(variant.pretraining)),
        ("finetuning", merged_base(variant), checkpoints(variant.finetuning)),
    ]
    systems, predictions = [], []
    bar = tqdm(total=sum(len(adapters) for _, _, adapters in groups), desc="evaluating", unit="checkpoint")
    model = None
    for stage, weights, adapters in groups:
        if model is None or weights:  # the base is loaded once, the merged base once; checkpoints are swapped
            model = models.load_base(recipe.base_model, recipe.quantization, weights=weights)
        for index, adapter in enumerate(adapters):
            if adapter and index == 0:
                model = models.attach_adapter(model, adapter)
            elif adapter:
                models.swap_adapter(model, adapter)
            name = f"{stage} {adapter.name}" if adapter else stage
            scores = {kind: perplexity(model, tokenizer, text, settings) for kind, text in texts.items()}
            answers = answer(model, tokenizer, list(pairs.Question), settings, description=name)
            rows = [
                {"system": name, "chunk_id": pair.chunk_id, "question": pair.Question, "reference": pair.Answer,
                 "answer": given, **metrics.rouge(given, pair.Answer)}
                for pair, given in zip(pairs.itertuples(), answers, strict=True)
            ]  # fmt: skip
            predictions += rows
            systems.append(
                {
                    "name": name,
                    "stage": stage,
                    "step": step_of(adapter) if adapter else 0,
                    "perplexity": scores,
                    "rouge": metrics.mean_rouge(rows) | {"questions": len(rows)},
                }
            )
            bar.update()
    bar.close()
    content = {
        "variant": variant.name,
        "base_model": recipe.base_model,
        "protocol": {
            "perplexity": f"in-sample: exp(sum of nll / scored tokens), window {settings.window}, stride "
            f"{settings.stride}, the text joined without overlaps; general: {GENERAL_TEXT.name}, never trained on",
            "rouge": f"in-sample: the training questions, greedy decoding, up to {settings.max_new_tokens} new tokens, "
            "rouge-score F1 without stemming, answer labels stripped",
        },
        "systems": systems,
    }
    with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    try:
        records.write_json(folder / "metrics.json", content)
    except ValueError:
        raise UserError(
            f"{variant.name}: a score is no number; look at the training log for a loss that exploded"
        ) from None
    return {"systems": len(systems), "questions": len(pairs)}


def answer(model, tokenizer, questions: list[str], settings: Evaluation, description: str = "answers") -> list[str]:
    """Greedy answers to questions, in the template that fine-tuning used."""
    from llama_qna.generation import generate_texts

    return generate_texts(
        model,
        tokenizer,
        [prompts.question_ids(tokenizer, question) for question in questions],
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        description=description,
    )


def perplexity(model, tokenizer, text: str, settings: Evaluation) -> dict[str, float]:
    """Sliding-window perplexity of a text: exp(sum of nll / number of scored tokens).

    Each window of `window` tokens begins `stride` tokens after the one before and scores only the tokens that no
    earlier window scored, each with at least window - stride tokens of context where there are so many. The first
    token of the text has no context and is not scored (nor is a start token that the tokenizer adds).

    Returns:
        `perplexity`, `nll` (nats, summed), `tokens` (scored), `bits_per_byte` (of the UTF-8 text).
    """
    import torch
    import torch.nn.functional as F

    ids = prompts.text_row(tokenizer, text, max_length=len(text) + 8)["input_ids"]
    total, scored, end = 0.0, 0, 1
    for begin in range(0, len(ids), settings.stride):
        window = torch.tensor([ids[begin : begin + settings.window]], device=model.device)  # (1, T)
        new = begin + window.shape[1] - end  # tokens of this window not scored yet
        if new <= 0:
            break
        with torch.inference_mode():
            logits = model(window, use_cache=False, logits_to_keep=new + 1).logits[0, :-1]  # (new, V)
            total += F.cross_entropy(logits.float(), window[0, -new:], reduction="sum").item()
        scored, end = scored + new, end + new
    size = len(text.encode("utf-8"))
    return {
        "perplexity": math.exp(total / scored),
        "nll": total,
        "tokens": scored,
        "bits_per_byte": total / math.log(2) / size,
    }


def read_metrics(variant: Variant, folder: Path | None = None) -> dict:
    """The metrics of this machine's run, or of another folder.

    Raises:
        UserError: there are none.
    """
    path = (folder or variant.evaluation) / "metrics.json"
    if not path.is_file():
        raise UserError(f"no metrics yet for {variant.name}: run `llama-qna evaluate {variant.name}` first")
    return json.loads(path.read_text(encoding="utf-8"))


def examples(predictions: Path, systems: list[str], count: int) -> pd.DataFrame:
    """The first questions with the answers of some systems side by side."""
    table = pd.read_json(predictions, lines=True)
    table = table[table.system.isin(systems)]
    table = table.drop_duplicates(["system", "question", "reference"])
    wide = table.pivot(index=["question", "reference"], columns="system", values="answer")
    asked = table[["question", "reference"]].drop_duplicates().head(count)
    return wide.loc[list(asked.itertuples(index=False, name=None)), systems].reset_index()
