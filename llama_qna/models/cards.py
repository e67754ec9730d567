"""What a recipe would take on a GPU that is not here, from its published figures: for somebody who chooses one."""

from __future__ import annotations

from dataclasses import dataclass

from llama_qna import UserError
from llama_qna.models.device import GIB
from llama_qna.models.forecast import STAGES, parts_table
from llama_qna.models.plan import LIBRARIES, Plan, answering, loaded, plan_stage
from llama_qna.models.prompts import CONTEXT_TOKENS
from llama_qna.models.shapes import Shapes, shapes_of
from llama_qna.project.variant import Variant

NVIDIA = "https://www.nvidia.com/en-us/data-center/"


@dataclass(frozen=True)
class Card:
    """A GPU by its vendor's figures."""

    memory: int  # GiB
    tflops: float  # 10^12 FLOP/s of dense products in 16 bits with sums in 32, half of those "with sparsity"
    bandwidth: int  # GB/s
    source: str

    @property
    def usable(self) -> int:
        """Bytes that a program finds: error correction, the driver and the display take about a twelfth."""
        return self.memory * GIB * 11 // 12


CARDS = {
    "T4": Card(16, 65, 320, NVIDIA + "tesla-t4/"),
    "L4": Card(24, 121, 300, NVIDIA + "l4/"),
    "4090": Card(
        24, 165, 1008, "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
    ),
    "A100-40": Card(40, 312, 1555, NVIDIA + "a100/"),
    "A100-80": Card(80, 312, 2039, NVIDIA + "a100/"),
    "H100": Card(80, 989, 3350, NVIDIA + "h100/"),  # SXM
    "H200": Card(141, 989, 4800, NVIDIA + "h200/"),
}
# Share of a card's 16-bit limit that training reaches, from and to. The study's steps reached the first on an L4:
# 14.0 s for 8 rows of 1,024 tokens of 7B with checkpointing (data/published_results.json). The second is assumed.
REACHED = (0.19, 0.40)
WEIGHT = 4.5  # bytes that pass through a card's memory to use a 4-bit weight: it is read, written in 16 bits, and read
QUESTION = 128  # tokens of a question in its template, at most


@dataclass(frozen=True)
class Forecast:
    """A variant on a card: the plans of its training stages, its answering, and what exporting takes."""

    stages: tuple[Plan, ...]
    rows: int  # questions answered at once, closed book
    rows_with_passages: int
    answering: dict[str, int]  # bytes by part, closed book
    seconds_per_answer: float  # of the longest ones, written by as many rows at once
    export: int  # bytes on the card of the largest model that an export must load
    check: int  # and of the 16-bit model that is asked afterwards, where it fits
    main: int  # bytes of main memory that merging takes


def forecast(variant: Variant, card: Card) -> Forecast:
    """Plan a variant on a card.

    Raises:
        UserError: the shapes of its base are not known, or a stage does not fit.
    """
    recipe, (shapes, _) = variant.recipe, shapes_of(variant.recipe.base_model)
    stages = tuple(plan_stage(variant, name, card.usable, "cuda") for name in STAGES)
    rows, parts = answering(shapes, recipe, QUESTION, "cuda", card.usable)
    if not rows:
        raise UserError(f"{recipe.base_model} does not fit: not even one question can be answered")
    token = WEIGHT * shapes.linear_weights / (card.bandwidth * 1e9)  # seconds of a token of every row
    row = (parts["cache of keys and values"] + parts["logits and one layer's passing values"]) // rows
    return Forecast(
        stages=stages,
        rows=rows,
        rows_with_passages=answering(shapes, recipe, CONTEXT_TOKENS, "cuda", card.usable)[0],
        answering=parts,
        seconds_per_answer=recipe.evaluation.max_new_tokens * token / rows,
        export=sum(parts.values()) - (rows - 1) * row,
        check=sum(loaded(shapes, None, "cuda").values()) + row,
        main=2 * (shapes.linear_weights + shapes.other_weights) + LIBRARIES["cpu"],
    )


def step_seconds(plan: Plan, shapes: Shapes, card: Card) -> tuple[float, float]:
    """Seconds of an optimizer step, at the larger and at the smaller share of the card's limit."""
    passes = (3 if plan.batch.checkpointing else 2) * plan.batch.accumulation
    dequantized = passes * WEIGHT * shapes.linear_weights / (card.bandwidth * 1e9)
    least, most = (plan.flops / (card.tflops * 1e12 * share) for share in reversed(REACHED))
    return least + dequantized, most + dequantized


def report(variant: Variant, name: str) -> str:
    """The forecast for the terminal.

    Raises:
        UserError: as `forecast`.
    """
    card, (shapes, _) = CARDS[name], shapes_of(variant.recipe.base_model)
    found = forecast(variant, card)
    lines = [
        f"{variant.recipe.base_model} on {name}, by its published figures ({card.source}): {card.usable / GIB:.1f} GiB "
        f"usable, {card.tflops:.0f} TFLOP/s in 16 bits, {card.bandwidth} GB/s; computed, not measured",
        "",
        parts_table(found.stages, found.answering),
        "",
    ]
    for plan in found.stages:
        steps = f"{plan.steps} steps" if plan.steps else "as many steps as its rows will make"
        lines += [plan.line(), f"time: {plan.stage}: {steps}, {_time(plan, shapes, card)}"]
    lines.append(
        f"answering: {found.rows} at once closed book, {found.rows_with_passages} with passages; about "
        f"{found.seconds_per_answer:.2f} s for each answer of {variant.recipe.evaluation.max_new_tokens} tokens"
    )
    left_out = "fits" if found.check <= card.usable else "does not fit, and is left out"
    lines.append(
        f"export: {found.export / GIB:.1f} GiB on the card and {found.main / GIB:.1f} of main memory; asking the "
        f"merged model in 16 bits ({found.check / GIB:.1f} GiB) {left_out}"
    )
    return "\n".join(lines)


def table(variant: Variant) -> list[list[str]]:
    """Memory and time by card, a row a card, for a README; the first row holds the names of the columns."""
    shapes, _ = shapes_of(variant.recipe.base_model)
    rows = [["card", "usable GiB", "stage", "rows at once", "peak GiB", "time"]]
    for name, card in CARDS.items():
        first = [name, f"{card.usable / GIB:.1f}"]
        try:
            found = forecast(variant, card)
        except UserError:
            rows.append([*first, "does not fit", "", "", ""])
            continue
        for plan in found.stages:
            how = f"{plan.batch.rows} of {plan.batch_size}" + (", checkpointing" if plan.batch.checkpointing else "")
            rows.append([*first, plan.stage, how, f"{plan.peak / GIB:.1f}", _time(plan, shapes, card)])
            first = ["", ""]
        how = f"{found.rows} ({found.rows_with_passages} with passages)"
        peak = f"{sum(found.answering.values()) / GIB:.1f}"
        rows.append(["", "", "answering", how, peak, f"{found.seconds_per_answer:.2f} s an answer"])
    return rows


def _time(plan: Plan, shapes: Shapes, card: Card) -> str:
    """Of all steps, such as `12.1 to 25.3 min`, and hours from two on; of one, where their number is not known."""
    least, most = (seconds * (plan.steps or 1) for seconds in step_seconds(plan, shapes, card))
    unit, size = ("h", 3600) if most >= 7200 else ("min", 60)
    if plan.steps is None:
        unit, size = "s a step", 1
    return f"{least / size:.1f} to {most / size:.1f} {unit}"
