"""What each checkpoint of a training has become: the same few questions answered, and the loss on text that it saw not.

`evaluate` measures a finished variant; this shows how it came about, in notebooks 06 and 07. Every number here is of a
small fixed sample and takes seconds.
"""

from __future__ import annotations

import pandas as pd

from llama_qna import UserError
from llama_qna.models import prompts
from llama_qna.models.lineage import Point, checkpoints, start_of_finetuning, start_of_training
from llama_qna.project.data import read_chunks, read_qna
from llama_qna.project.files import digest, read_json, write_json
from llama_qna.project.gold import read_gold
from llama_qna.project.stage import valid_record
from llama_qna.project.variant import SETTINGS, Variant

FILE = "progress.json"  # in the folder of the stage
SAMPLE = 8  # chunks or pairs of each kind
WINDOW = 512  # tokens of text that the model reads at once
ANSWER_TOKENS = 48
KINDS = {"trained_loss": "train", "heldout_loss": "heldout"}  # each loss, and the split that it is measured on


def dev_questions(variant: Variant, count: int = 3) -> list[str]:
    """Gold questions of the fold dev, at equal distances; where there are none, of the pairs trained on."""
    asked = []
    if variant.gold.is_file():
        table = read_gold(variant.gold, read_chunks(variant))
        asked = list(table[table.fold == "dev"].Question)
    if not asked:
        pairs = read_qna(variant)
        asked = list(pairs[pairs.split == "train"].Question.unique())
    return [asked[n] for n in _spread(len(asked), count)]


def progress(variant: Variant, stage: str, questions: list[str]) -> dict:
    """Answer the same questions with every checkpoint of a finished stage, and measure two losses of each.

    >>> found = progress(variant, "finetune", dev_questions(variant))

    Done once for a training and its questions, and kept as `progress.json` in the stage's folder.

    Args:
        stage: `pretrain` or `finetune`.
        questions: asked closed book, answered greedily.

    Returns:
        `questions` and `points`, the model that training began with and each checkpoint: `step`, `answers`, and
        `trained_loss` and `heldout_loss`, in nats a token, of text (`pretrain`) or of answers (`finetune`); None where
        nothing is held out.

    Raises:
        UserError: the stage is not done on this machine.
    """
    folder = variant.stage_folders[stage]
    record = valid_record(folder, stage)
    if not record:
        raise UserError(f"{variant.name} is not trained: run `llama-qna {stage} {variant.name}` first")
    key = digest({"stage": record["key"], "outputs": record["outputs"], "questions": questions})
    path = folder / FILE
    if path.is_file() and read_json(path)["key"] == key:
        return read_json(path)
    found = {"key": key, "stage": stage, "questions": questions, "points": _points(variant, stage, questions)}
    write_json(path, found)
    return found


def _points(variant: Variant, stage: str, questions: list[str]) -> list[dict]:
    from llama_qna.models.adapters import Models
    from llama_qna.models.base import load_tokenizer
    from llama_qna.models.generate import continue_prompts

    recipe, states = variant.recipe, _states(variant, stage)
    tokenizer = load_tokenizer(recipe.base_model)
    asked = [prompts.question_ids(tokenizer, question) for question in questions]
    found = []
    for number, state in enumerate(states):
        if number < 2:  # what training began with may have an adapter of another shape than its checkpoints
            models = Models(recipe.base_model, recipe.quantization)
        model = models.load(state.weights, state.adapter)
        said = continue_prompts(model, tokenizer, asked, max_new_tokens=ANSWER_TOKENS, batch_size=len(asked))
        losses = {name: _loss(model, tokenizer, variant, stage, split) for name, split in KINDS.items()}
        step = state.step if number else 0  # what fine-tuning begins with has a step of pretraining's
        found.append({"step": step, "answers": [text.text for text in said]} | losses)
    return found


def _states(variant: Variant, stage: str) -> list[Point]:
    """What a stage began with, and its checkpoints."""
    if stage == "pretrain":
        begin, weights = start_of_training(variant), None
    else:
        weights, begin = start_of_finetuning(variant)
    trained = checkpoints(variant.stage_folders[stage])
    return [Point("start", begin, weights), *(Point(SETTINGS[stage], adapter, weights) for adapter in trained)]


def _loss(model, tokenizer, variant: Variant, stage: str, split: str) -> float | None:
    """Nats a token of a sample of chunks, or of pairs that are short enough to train on; None where there are none."""
    from llama_qna.evaluation.perplexity import perplexity
    from llama_qna.models.likelihood import answer_log_likelihoods

    if stage == "pretrain":
        chunks = _sample(read_chunks(variant), split)
        if not len(chunks):
            return None
        found = perplexity(model, tokenizer, "\n\n".join(chunks.text), WINDOW, WINDOW)
        return found["nll"] / found["tokens"]
    fitting = prompts.fitting_pairs(tokenizer, read_qna(variant), variant.recipe.finetuning.max_length)
    pairs = _sample(fitting, split)
    asked = [prompts.question_ids(tokenizer, question) for question in pairs.Question]
    answers = [prompts.encode_document(tokenizer, answer) + [tokenizer.eos_token_id] for answer in pairs.Answer]
    lengths = [len(answer) for answer in answers]
    means = answer_log_likelihoods(model, asked, answers)
    nats = -sum(mean * length for mean, length in zip(means, lengths, strict=True))
    return nats / sum(lengths) if lengths else None


def _sample(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """At most `SAMPLE` rows of a split, at equal distances."""
    rows = table[table.split == split]
    return rows.iloc[_spread(len(rows), SAMPLE)]


def _spread(length: int, count: int) -> list[int]:
    count = min(count, length)
    return [n * length // count for n in range(count)]
