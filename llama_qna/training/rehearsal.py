"""A recipe tried out at its model's true shapes without the model's weights: random ones, in NF4 from the start.

What a step takes depends on shapes, not on values, so peak memory and seconds are those of the real run; losses mean
nothing. The whole 16-bit model never exists: each matrix is drawn, quantized and dropped before the next.
"""

from __future__ import annotations

import os
import random
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import init_empty_weights
from bitsandbytes.nn import Params4bit
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from llama_qna import UserError
from llama_qna.models.base import nf4_config, ready
from llama_qna.models.device import GIB, available_memory, compute_dtype, device, kind_of_device, measure
from llama_qna.models.generate import continue_prompts
from llama_qna.models.plan import Batch, Plan, plan_stage
from llama_qna.models.shapes import Shapes, shapes_of
from llama_qna.project import provenance
from llama_qna.project.files import write_json
from llama_qna.project.recipe import Quantization, TrainingStage
from llama_qna.project.stage import add_to_note
from llama_qna.project.variant import Variant
from llama_qna.text.tables import aligned
from llama_qna.training.trainer import train_once

STEPS = 2  # the second one has the optimizer's state
CPU_STEP = (1, 64)  # rows and tokens of a row in place of the recipe's, whose steps take many minutes on a CPU
PROMPT = 32  # tokens
ANSWERS = {"cpu": (1, 8), "cuda": (32, 64)}  # rows and tokens of the generation


def rehearse(variant: Variant, budget: int | None = None, rows: int | None = None, length: int | None = None) -> dict:
    """Build the model with random weights, train two steps as `pretrain` would, generate once; say what it took.

    Args:
        budget: bytes that it may take; on a GPU more is refused by PyTorch, on a CPU it only guides the plan.
        rows: of an optimizer step in place of the recipe's `batch_size`; on a CPU 1 unless given.
        length: tokens of each row in place of the recipe's `max_length`; on a CPU 64 unless given.

    Returns:
        What stands in `runs/<variant>/rehearsal.json`: what was run, the plan's parts and the measured peak (bytes),
        seconds of building, of each step and of the generation, tokens a second and the measured limit.

    Raises:
        UserError: it does not fit, the shapes are not known, or there are no such rows.
    """
    # --- plan
    for option, value, least in (("--rows", rows, 1), ("--length", length, 2)):
        if value is not None and value < least:
            raise UserError(f"{option} must be at least {least}, and it is {value}")
    recipe, (shapes, source), kind = variant.recipe, shapes_of(variant.recipe.base_model), kind_of_device()
    budget = _held_to(budget, kind)
    default = CPU_STEP if kind == "cpu" else (recipe.pretraining.batch_size, recipe.pretraining.max_length)
    short = _shortened(variant, rows or default[0], length or default[1])
    stage = short.recipe.pretraining
    chosen = plan_stage(short, "pretraining", budget, kind, [stage.max_length] * stage.batch_size)
    chosen.parts.pop("mapped weights file", None)  # there is none
    print(f"{chosen.line()}\nrandom weights, by {source}", flush=True)

    # --- build, train, generate
    found = _asked(variant, stage, chosen, budget)
    started = time.perf_counter()
    model = random_model(shapes, recipe.quantization)
    building = round(time.perf_counter() - started, 1)
    print(f"built in {building} s", flush=True)
    found |= {"seconds_building": building, "peak_building": peak(kind)}
    found |= _train(short, model, chosen.batch, shapes) | {"peak_training": peak(kind)}
    found |= _generate(model, shapes, kind) | {"peak": peak(kind)}

    # --- compare with what the machine can do, and save
    limit = measure(tuple(shapes.linears.values()), min(4096, chosen.batch.tokens))
    share = chosen.flops / stage.batch_size / stage.max_length * found["tokens_per_second"] / limit["matmul"]
    found |= {"limit": limit, "share_of_limit": round(share, 3)} | provenance.measured()
    variant.run.mkdir(parents=True, exist_ok=True)
    write_json(variant.run / "rehearsal.json", found)
    return found


def _held_to(budget: int | None, kind: str) -> int:
    """The bytes that the rehearsal may take, of those that there are; PyTorch refuses more on a GPU."""
    there = available_memory(kind)
    budget = min(budget or there, there)
    if kind == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / torch.cuda.mem_get_info()[1]))
    return budget


def _shortened(variant: Variant, rows: int, length: int) -> Variant:
    """The variant with a pretraining of two steps; nothing is merged, so no room on the disk is asked for it."""
    short = {"batch_size": rows, "max_length": length, "packing": False, "max_steps": STEPS, "warmup_steps": 0}
    short |= {"logging_steps": 1, "save_steps": STEPS, "replay_tokens": 0}
    stage = variant.recipe.pretraining.model_copy(update=short)
    return replace(variant, recipe=variant.recipe.model_copy(update={"pretraining": stage, "stacking": "continue"}))


def _asked(variant: Variant, stage: TrainingStage, chosen: Plan, budget: int) -> dict:
    """What is rehearsed, what of the recipe was shortened for it, and what it is expected to take."""
    recipe = variant.recipe
    return {
        "variant": variant.name,
        "base_model": recipe.base_model,
        "random_weights": True,
        "device": chosen.device,
        "rows": stage.batch_size,
        "length": stage.max_length,
        "recipe_rows": recipe.pretraining.batch_size,
        "recipe_length": recipe.pretraining.max_length,
        "lora_r": recipe.lora.r,
        "batch": vars(chosen.batch),
        "budget": budget,
        "parts": chosen.parts,
        "planned_peak": chosen.peak,
        "flops_per_step": chosen.flops,
    }


def random_model(shapes: Shapes, quantization: Quantization):
    """A Llama with random weights, its layers' matrices quantized as `models.base.load_base` would quantize them.

    Weights are drawn with the standard deviation 0.02 of Llama's initialization, matrix by matrix.
    """
    on, dtype = torch.device(device()), compute_dtype(quantization)
    config = LlamaConfig(
        vocab_size=shapes.vocabulary,
        hidden_size=shapes.hidden,
        intermediate_size=shapes.intermediate,
        num_hidden_layers=shapes.layers,
        num_attention_heads=shapes.heads,
        num_key_value_heads=shapes.key_value_heads,
        head_dim=shapes.head_dim,
        tie_word_embeddings=shapes.tied,
        max_position_embeddings=4096,
        dtype=dtype,
    )
    with init_empty_weights(include_buffers=False):
        model = LlamaForCausalLM(config)
    if quantization.bits == 4:
        replace_with_bnb_linear(model, ["lm_head"], nf4_config(quantization, dtype))
        model.is_loaded_in_4bit = True  # peft and trl ask
    draw = torch.Generator(on).manual_seed(0)

    def drawn(empty):
        value = torch.ones(empty.shape, dtype=dtype, device=on)
        if empty.ndim > 1:
            value.normal_(std=0.02, generator=draw)
        if isinstance(empty, Params4bit):  # moved to where it is, it is quantized
            return Params4bit(value, requires_grad=False, **empty.__dict__).to(on)
        return torch.nn.Parameter(value, requires_grad=False)

    for module in model.modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            setattr(module, name, drawn(empty))
    model.tie_weights()
    model.to(on)  # the buffers of the positions
    return ready(model, quantization)


class Clock(TrainerCallback):
    """The seconds of each optimizer step."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.started)


def _train(variant: Variant, model, batch: Batch, shapes: Shapes) -> dict:
    """Two steps with the real trainer on rows of random tokens."""
    stage, draw, clock = variant.recipe.pretraining, random.Random(variant.recipe.seed), Clock()
    ids = [draw.choices(range(3, shapes.vocabulary), k=stage.max_length) for _ in range(STEPS * stage.batch_size)]
    rows = [{"input_ids": row, "labels": list(row)} for row in ids]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # saving an adapter would ask the hub about a base that is none
    with tempfile.TemporaryDirectory() as folder:
        add_to_note(Path(folder), key="rehearsal")
        train_once(variant, "pretrain", model, any_tokenizer(), rows, Path(folder), batch, callbacks=[clock])
    speed = stage.batch_size * stage.max_length / clock.seconds[-1]
    return {"seconds_of_steps": clock.seconds, "tokens_per_second": round(speed, 2)}


def any_tokenizer():
    """A tokenizer of four words: the rows are numbers already, the trainer only asks for the padding."""
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = {word: number for number, word in enumerate(special.values())}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")), **special)


def _generate(model, shapes: Shapes, kind: str) -> dict:
    """One greedy batch, written as answers are: on a CPU one short answer, on a GPU 32."""
    (rows, answer), draw, tokenizer = ANSWERS[kind], random.Random(0), any_tokenizer()
    tokenizer.eos_token = None  # no end of text: random weights would draw one by chance
    prompts = [draw.choices(range(3, shapes.vocabulary), k=PROMPT) for _ in range(rows)]
    started = time.perf_counter()
    continue_prompts(model.eval(), tokenizer, prompts, max_new_tokens=answer, batch_size=rows)
    seconds = time.perf_counter() - started
    found = {"generated_tokens": rows * answer, "seconds_of_generation": round(seconds, 2)}
    return found | {"answers_per_second": round(rows / seconds, 3)}


def peak(device: str) -> int:
    """Bytes: the most that this process held so far in main memory, or that PyTorch reserved on the GPU.

    The reserve is what a budget caps; what tensors took of it is told by `provenance.peak_memory_gb`.
    """
    if device == "cuda":
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(found: dict) -> str:
    """The rehearsal for the terminal."""
    sizes = found["parts"] | {"peak, planned": found["planned_peak"], "peak, measured": found["peak"]}
    rows = [["part", "GiB"], *([name, f"{size / GIB:.2f}"] for name, size in sizes.items())]
    steps = ", ".join(f"{seconds:.1f}" for seconds in found["seconds_of_steps"])
    lines = [
        aligned(rows, right=True),
        "",
        f"built {found['base_model']} with random weights in {found['seconds_building']:.0f} s",
        f"two training steps of {found['rows']} x {found['length']} tokens: {steps} s "
        f"({found['tokens_per_second']:.1f} tokens a second, {found['share_of_limit']:.0%} of the measured limit)",
        f"generation of {found['generated_tokens']} tokens: {found['seconds_of_generation']:.1f} s "
        f"({found['answers_per_second']:.2f} answers a second)",
    ]
    if (found["rows"], found["length"]) != (found["recipe_rows"], found["recipe_length"]):
        whole = f"--rows {found['recipe_rows']} --length {found['recipe_length']}"
        lines.append(f"the steps were shortened; the recipe's own: {whole}")
    return "\n".join(lines)
