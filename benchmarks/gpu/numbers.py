"""What a small model computes on this device, for a comparison with another one.

    python -m benchmarks.gpu.numbers ROOT TYPE [--branch]

Prints a JSON line: bytes of NF4, logits, three steps' losses and gradient norms, greedy answers, nats a token. With
`--branch` training goes the way that it goes on a GPU, also on a CPU: TRL's loss under autocast, adapters in float32.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from benchmarks.gpu.small import PAIRS, SENTENCES
from llama_qna.evaluation.perplexity import perplexity
from llama_qna.models import prompts
from llama_qna.models.base import load_base, load_tokenizer
from llama_qna.models.generate import generate_texts
from llama_qna.models.plan import Batch
from llama_qna.project.stage import add_to_note
from llama_qna.project.variant import Variant
from llama_qna.training import loss, trainer

ROWS = 4


def numbers(variant: Variant, branch: bool) -> dict:
    """Everything of the module's docstring, from the same seeds on every device."""
    recipe = variant.recipe
    tokenizer = load_tokenizer(recipe.base_model)
    text = "\n\n".join(" ".join(sentences) for sentences in SENTENCES.values())
    model = load_base(recipe.base_model, recipe.quantization)
    layer = model.model.layers[0].mlp.down_proj
    ids = torch.tensor([prompts.encode_document(tokenizer, text)[:64]], device=model.device)
    with torch.inference_mode():
        logits = model(ids).logits[0, -1].float()
    asked = [prompts.question_ids(tokenizer, question) for question, _ in PAIRS]
    found = {
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "nf4": hashlib.sha256(layer.weight.data.cpu().numpy().tobytes()).hexdigest(),
        "logits": [round(value, 4) for value in logits.topk(16).values.tolist()],
        "answers": generate_texts(model, tokenizer, asked, max_new_tokens=12, batch_size=ROWS, done=lambda count: None),
        "nats": math.log(perplexity(model, tokenizer, text, 128, 64)["perplexity"]),
    }
    del model
    return found | {"training": training(variant, tokenizer, text, branch)}


def training(variant: Variant, tokenizer, text: str, branch: bool) -> list[dict]:
    """Loss and gradient norm of three steps with replay, without dropout, whose masks differ from device to device."""
    recipe = variant.recipe
    stage = recipe.pretraining.model_copy(update={"batch_size": ROWS, "max_steps": 3, "save_steps": 3})
    lora = recipe.lora.model_copy(update={"dropout": 0.0})
    variant = replace(variant, recipe=recipe.model_copy(update={"pretraining": stage, "lora": lora}))
    ids = prompts.encode_document(tokenizer, text)
    rows = [{"input_ids": ids[n : n + 24], "labels": ids[n : n + 24]} for n in range(0, 3 * ROWS * 8, 8)]
    batch = Batch(ROWS, 24, 1, False)
    model = load_base(recipe.base_model, recipe.quantization)
    with tempfile.TemporaryDirectory() as folder, on_a_gpu() if branch else nullcontext():
        add_to_note(Path(folder), key="parity")
        trainer.train_once(variant, "pretrain", model, tokenizer, rows, Path(folder), batch)
        return json.loads((Path(folder) / "log.json").read_text())


@contextmanager
def on_a_gpu():
    """Let the trainer choose what it would choose on a GPU."""
    with (
        mock.patch.object(trainer, "QuickLoss", loss.OwnLoss),
        mock.patch.object(trainer, "_all_in_bfloat16", lambda dtype: False),
        mock.patch("llama_qna.training.cpu.layers.quicken"),
    ):
        yield


if __name__ == "__main__":
    os.environ["LLAMA_QNA_ROOT"] = sys.argv[1]
    small = Variant.load("small")
    quantization = small.recipe.quantization.model_copy(update={"compute_dtype": sys.argv[2]})
    small = replace(small, recipe=small.recipe.model_copy(update={"quantization": quantization}))
    print(json.dumps(numbers(small, "--branch" in sys.argv)))
