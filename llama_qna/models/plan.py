"""What a training stage will take before anything is loaded: memory by part, time, and the micro-batch that fits.

The parts are counted from the model's shapes. What cannot be counted (the libraries, what the heap cannot reuse) was
fitted to measured peaks of the real stages with `benchmarks/memory.py`, which prints prediction beside measurement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

from llama_qna import UserError
from llama_qna.models.device import GIB, bfloat16_is_fast
from llama_qna.models.shapes import (
    ATTENTION_QUERIES,
    HEAD_TILE,
    LONGEST_ROW,
    REPLAY_PIECE,
    Shapes,
    replay_pieces,
    shapes_of,
)
from llama_qna.project import processes
from llama_qna.project.recipe import Lora, Quantization, Recipe, TrainingStage
from llama_qna.project.variant import Variant

# Bytes of Python with torch, transformers, bitsandbytes, peft, trl and datasets imported, before any weight. On a GPU
# only what lies in its memory: the CUDA context and the workspace of cuBLAS (assumed, not measured).
LIBRARIES = {"cpu": 585 * 2**20, "cuda": 700 * 2**20}
# Bytes a logit takes in a tile at the peak: 16 bits, its slope in its place, and the base's of replayed text. On a GPU,
# in backward: 16-bit, float32, log-softmax, and a gradient of the last two (assumed).
LOGIT = {"cpu": 4, "cuda": 18}
# The C library up to glibc 2.37 cannot use a freed aligned block again for one of the same size (its bug 14581). So on
# a CPU the heap grows by a share of what all layers make, whether an adapter keeps it or not: with a kept copy of the
# weights (KEPT), without one (TAKEN), with checkpointing (RECOMPUTED). Newer libraries should take less.
HEAP_KEPT, HEAP_TAKEN, HEAP_RECOMPUTED = 0.24, 0.60, 0.12
# Values a layer makes and frees, in units of those that it keeps for backward; they exist for one layer at a time.
PASSING = 3
SHARE = {"cpu": 0.18, "cuda": 0.45}  # of the limit of products that a training step reaches: paper_135m; assumed
ROOM = 64  # tokens that a cache of keys and values has in reserve (`caches.RoomyLayer`)
CPU_TOKENS = 12_288  # of the prompts that a CPU answers at once: of 6,000 to 58,000 the quickest for long ones
KEPT_FREE = 0.1  # of a GPU's free memory while it answers: blocks of many sizes leave holes
WHOLE_ENOUGH = 1024  # tokens of a micro-batch from which a larger one is hardly faster


@dataclass(frozen=True)
class Batch:
    """How the rows of an optimizer step pass through the model."""

    rows: int  # at once: the micro-batch
    length: int  # tokens of the longest row
    accumulation: int  # micro-batches of one process in an optimizer step
    checkpointing: bool
    padded: bool = False  # rows of different lengths: attention then keeps a mask
    peak: int | None = None  # bytes that were planned for; None: nothing was

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def with_rows(self, rows: int) -> Batch:
        """The same rows in an optimizer step, so many of them at once."""
        return replace(self, rows=rows, accumulation=self.rows * self.accumulation // rows)

    def smaller(self) -> Batch | None:
        """The next smaller way: fewer rows, at one row with gradient checkpointing; None: there is none."""
        each = self.rows * self.accumulation
        if self.rows > 1:
            return self.with_rows(max(rows for rows in range(1, self.rows) if each % rows == 0))
        return None if self.checkpointing else replace(self, checkpointing=True)


@dataclass(frozen=True)
class Plan:
    """What was chosen for a stage and what it takes."""

    stage: str
    batch: Batch
    batch_size: int  # rows of an optimizer step over all processes: the recipe's
    parts: dict[str, int]  # bytes at the peak
    budget: int  # bytes
    device: str
    flops: float  # of one optimizer step of this process
    steps: int | None  # None: as many as rows that do not exist yet will make
    mean: int  # tokens of a row, on average

    @property
    def peak(self) -> int:
        return sum(self.parts.values())

    def seconds_per_step(self, limit: float) -> float:
        """At the share of the measured limit (FLOP/s) that training reaches."""
        return self.flops / (limit * SHARE[self.device])

    def line(self) -> str:
        """One line for the terminal: the choice, the peak and what it is compared with."""
        batch, where = self.batch, "GPU" if self.device == "cuda" else "main"
        how = f"{batch.rows} rows of up to {batch.length} tokens at once"
        if batch.accumulation > 1:
            how += f", {batch.accumulation} times a step"
        if batch.checkpointing:
            how += ", gradient checkpointing"
        return (
            f"plan: {self.stage}: {how} (steps of {self.batch_size} rows); peak about "
            f"{self.peak / GIB:.1f} of {self.budget / GIB:.1f} GiB {where} memory"
        )


def activations(shapes: Shapes, lora: Lora, batch: Batch, device: str) -> int:
    """Bytes that one layer keeps for backward: on a CPU that of `training.cpu`, on a GPU that of transformers.

    Both keep the middle of each adapter, and gate and up. `training.cpu` keeps the input of both norms in 16 bits and
    their factor, queries, keys and values, the share that each query takes of each key (of long rows output and a sum
    instead), and the inputs of adapters, which those on the same input share without dropout; every row is counted as
    if it were the longest, since any of them may meet in a step. Transformers under autocast keeps the inputs of the
    norms in float32, queries, keys, values, output and a sum of attention and its mask where rows are padded, the
    product of gate and up, and for each adapter its own input in 16 bits, with dropout the mask besides.
    """
    value, targets = value_bytes(device), set(shapes.targets(lora))
    inputs = {name: shapes.linears[name][1] for name in targets}
    # values a token of PyTorch's attention: queries, output, keys, values, and a sum in float32
    attention = 2 * shapes.query_width + 2 * shapes.key_width + shapes.heads * (4 / value)
    kept = value * lora.r * len(targets)
    if device == "cuda":
        if batch.padded:
            attention += batch.length
        kept += 2 * (4 * shapes.hidden + 4) + value * (attention + 3 * shapes.intermediate)
        kept += (value + bool(lora.dropout)) * sum(inputs.values())
        return int(kept * batch.tokens)
    if batch.length <= LONGEST_ROW:
        attention = _short_attention(shapes, batch.length)
    kept += 2 * (value * shapes.hidden + 4) + 2 * value * shapes.intermediate + value * attention
    if "o_proj" in targets:
        kept += value * shapes.query_width
    if lora.dropout:
        kept += 2 * value * sum(inputs.values())
    else:  # matrices with the same input share it
        for names in ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}):
            kept += value * max((inputs[name] for name in names & targets), default=0)
    return int(kept * batch.tokens)


def _short_attention(shapes: Shapes, length: int) -> float:
    """Values a token that `training.cpu.attention` keeps: queries, keys, values, and the shares of the keys before."""
    starts = range(0, length, ATTENTION_QUERIES)
    ends = [min(start + ATTENTION_QUERIES, length) for start in starts]
    seen = sum((end - start) * end for start, end in zip(starts, ends, strict=True)) / length  # keys of a query
    return shapes.query_width + 2 * shapes.key_width + shapes.heads * seen


def memory(shapes: Shapes, recipe: Recipe, stage: TrainingStage, batch: Batch, device: str) -> dict[str, int]:
    """Bytes of each part at the peak of a training stage."""
    value, weights = value_bytes(device), shapes.adapter_weights(recipe.lora)
    adapter = 4 * weights if device == "cuda" else value * weights  # on a GPU float32, with its optimizer
    together = [batch]  # what passes through the model in one go: the rows, and pieces of general text beside them
    if stage.replay_tokens:
        pieces = math.ceil(replay_pieces(stage.replay_tokens) / batch.accumulation)  # a step's batches share them
        together.append(Batch(pieces, REPLAY_PIECE, 1, batch.checkpointing))
    layer = sum(activations(shapes, recipe.lora, each, device) for each in together)  # of one layer
    if batch.checkpointing:  # the input of each layer, and all of the one that is computed again
        kept = shapes.layers * value * shapes.hidden * sum(each.tokens for each in together) + layer
    else:
        kept = shapes.layers * layer
    passing = layer * PASSING + LOGIT[device] * shapes.vocabulary * min(HEAD_TILE, batch.tokens)
    if recipe.quantization.bits == 4 and not recipe.quantization.dequantize_once:  # one matrix at a time, as it is used
        passing += value * max(rows * columns for rows, columns in shapes.linears.values())
    parts = loaded(shapes, recipe.quantization, device) | {
        "adapters": adapter + (value * weights if device == "cuda" else 0),  # autocast's copy in 16 bits
        "gradients": adapter,
        "optimizer": 2 * adapter,
        "activations": kept,
        "logits and one layer's passing values": passing,
    }
    if device == "cpu":
        everywhere = recipe.lora.model_copy(update={"target_modules": "all-linear", "dropout": 0.0})
        made = shapes.layers * max(layer, sum(activations(shapes, everywhere, each, device) for each in together))
        if batch.checkpointing:
            heap = HEAP_RECOMPUTED * made
        else:
            share = HEAP_KEPT if recipe.quantization.dequantize_once else HEAP_TAKEN
            heap = (1 + share) * made - shapes.layers * layer
        parts["heap that cannot be used again"] = int(heap)
    return {name: size for name, size in parts.items() if size}


def loaded(shapes: Shapes, quantization: Quantization | None, device: str) -> dict[str, int]:
    """Bytes of each part of a base that is loaded, in NF4 or, with None, in 16 bits."""
    value = value_bytes(device)
    parts = {"Python and libraries": LIBRARIES[device]}
    if quantization is None or quantization.bits == 16:
        return parts | {"weights, 16-bit": value * (shapes.linear_weights + shapes.other_weights)}
    # one absmax for 64 weights: float32, or with double quantization a byte and a float32 for 256 of them
    state = 1 / 64 * (1 + 4 / 256) if quantization.double_quantization else 4 / 64
    return parts | {
        "weights, NF4": int(shapes.linear_weights * (0.5 + state)),
        "weights, 16-bit (embedding, head, norms)": value * shapes.other_weights,
        "kept dequantized copy": value * shapes.linear_weights if quantization.dequantize_once else 0,
    }


def answering_row(shapes: Shapes, prompt: int, new: int, value: int) -> tuple[int, int]:
    """Bytes that a row takes while a batch of answers is written: in its cache of keys and values, and passing.

    Args:
        prompt: tokens of the prompt.
        new: tokens of the answer at most.
        value: bytes of a number of the compute type.
    """
    token = 2 * shapes.key_width * value  # keys and values in one layer
    cache = (shapes.layers + 2) * token * (prompt + new + ROOM)  # one layer's grow into new ones
    # of a layer that reads the prompt: gate, up and two of their products, or a norm in float32; and attention's mask
    passing = max(4 * value * shapes.intermediate, 8 * shapes.hidden) + 2 * value * shapes.hidden
    return cache, prompt * passing + (value + 1) * prompt**2 + (2 * value + 12) * shapes.vocabulary


def answering(shapes: Shapes, recipe: Recipe, prompt: int, device: str, budget: int) -> tuple[int, dict[str, int]]:
    """How many questions are answered at once, at most the recipe's `evaluation.batch_size`, and the memory by part.

    Copies of the weights in 16 bits are left out where they do not fit (`base.ready`).

    Args:
        prompt: tokens of a prompt.
    """
    settings, quantization = recipe.evaluation, recipe.quantization
    parts = loaded(shapes, quantization, device)
    if device == "cuda" and sum(parts.values()) > (1 - KEPT_FREE) * budget:
        parts = loaded(shapes, quantization.model_copy(update={"dequantize_once": False}), device)
    parts["adapters"] = 4 * shapes.adapter_weights(recipe.lora)  # as peft loads them
    cache, passing = answering_row(shapes, prompt, settings.max_new_tokens, value_bytes(device))
    fitting = CPU_TOKENS // prompt
    if device == "cuda":
        fitting = max(0, int((1 - KEPT_FREE) * (budget - sum(parts.values()))) // (cache + passing))
    rows = min(settings.batch_size, fitting)
    parts |= {"cache of keys and values": rows * cache, "logits and one layer's passing values": rows * passing}
    return rows, {name: size for name, size in parts.items() if size}


def mapped_file(shapes: Shapes) -> int:
    """Bytes of the weights file that stay mapped after they were quantized; the system takes them back when it must."""
    return 2 * shapes.linear_weights


def value_bytes(device: str) -> int:
    """Bytes of a value in the compute type: 2, or 4 on a CPU without instructions for bfloat16."""
    return 4 if device == "cpu" and not bfloat16_is_fast() else 2


def step_flops(shapes: Shapes, recipe: Recipe, stage: TrainingStage, batch: Batch, device: str) -> float:
    """Floating-point operations of one optimizer step of one process.

    A product with a frozen matrix costs 2 a weight and token forward and 2 backward; with an adapter's 2 and 4; causal
    attention half of its whole square; on a GPU the head's product is made twice forward (its logits are not kept).
    """
    passes, adapters = 3 if batch.checkpointing else 2, shapes.adapter_weights(recipe.lora)
    head = shapes.vocabulary * shapes.hidden
    token = 2 * passes * shapes.linear_weights + 2 * (passes + 1) * adapters
    token += shapes.layers * shapes.query_width * batch.length * 2 * (passes + 0.5)
    token += (4 if device == "cpu" else 6) * head
    replayed = replay_pieces(stage.replay_tokens) * REPLAY_PIECE * 6 * (shapes.linear_weights + adapters + head)
    return token * batch.tokens * batch.accumulation + replayed


def choose(
    shapes: Shapes, recipe: Recipe, stage: TrainingStage, whole: Batch, device: str, budget: int
) -> tuple[Batch, dict[str, int]]:
    """The fastest way to pass a step's rows that fits, without changing which rows make a step, and its memory by part.

    Tried in turn: smaller micro-batches of at least 1,024 tokens, then gradient checkpointing, which computes half as
    much again, then whatever is smallest. Checkpointing that the recipe allows comes no sooner: by the figures of an L4
    it costs 7B more than to dequantize the weights anew for each of eight rows of 1,024 tokens.

    Args:
        whole: all rows of a process at once.

    Raises:
        UserError: not even one row at a time with gradient checkpointing fits.
    """
    sizes = [rows for rows in range(whole.rows, 0, -1) if whole.rows % rows == 0]
    large = [rows for rows in sizes if rows == whole.rows or rows * whole.length >= WHOLE_ENOUGH]
    ways = [*product((False, True), large), *((way, rows) for rows in sizes for way in (False, True))]
    for checkpointing, rows in ways:
        batch = replace(whole.with_rows(rows), checkpointing=checkpointing)
        parts = memory(shapes, recipe, stage, batch, device)
        left = budget - sum(parts.values())
        if left >= 0:
            if device == "cpu":
                parts["mapped weights file"] = min(left, mapped_file(shapes))
            return replace(batch, peak=sum(parts.values())), parts
    largest = max(parts, key=parts.get)
    raise UserError(
        f"{recipe.base_model} does not fit: one row of {whole.length} tokens at a time, with gradient checkpointing, "
        f"takes about {sum(parts.values()) / GIB:.1f} GiB of memory and there are {budget / GIB:.1f}; the largest part "
        f"is {largest}, {parts[largest] / GIB:.1f} GiB"
    )


def plan_stage(variant: Variant, name: str, budget: int, device: str, lengths: list[int] | None = None) -> Plan:
    """Plan one training stage.

    Args:
        name: `pretraining` or `finetuning`.
        budget: bytes that it may take.
        device: `cpu` or `cuda`.
        lengths: tokens of each row; None: rows that do not exist yet, counted as `max_length` tokens.

    Raises:
        UserError: the shapes of the model are not known, or it does not fit.
    """
    recipe = variant.recipe
    stage: TrainingStage = getattr(recipe, name)
    shapes, _ = shapes_of(recipe.base_model)
    rows, longest, mean = processes.rows_each(stage.batch_size), stage.max_length, stage.max_length
    padded = rows > 1 and not stage.packing
    if lengths and not stage.packing:
        longest, mean = min(stage.max_length, max(lengths)), round(sum(lengths) / len(lengths))
        padded = padded and len(set(lengths)) > 1
    whole = Batch(rows, longest, 1, False, padded)
    batch, parts = choose(shapes, recipe, stage, whole, device, budget)
    steps = stage.max_steps if stage.max_steps > 0 else None
    if steps is None and lengths:
        count = sum(lengths) // stage.max_length if stage.packing else len(lengths)
        steps = round(stage.passes * math.ceil(count / stage.batch_size))
    flops = step_flops(shapes, recipe, stage, replace(batch, length=mean), device)
    return Plan(name, batch, stage.batch_size, parts, budget, device, flops, steps, mean)
