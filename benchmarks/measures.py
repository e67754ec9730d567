"""What the measurements say: rates, ratios with their spread, and shares of the machine's limits."""

from __future__ import annotations

import re
from statistics import median

from llama_qna.models.shapes import shapes_of
from llama_qna.project.variant import Variant

# stage -> what is counted a second, in the field of a measurement that holds it
STAGES = {
    "extraction": ("pages", "items"),
    "generation": ("pairs", "items"),
    "training": ("tokens", "tokens"),
    "perplexity": ("tokens", "tokens"),
    "sweep": ("checkpoints", "items"),
    "asking": ("answers", "items"),
}
WAYS = {"study": "the study's way", "ours": "ours"}
COLUMNS = ["stage", "way", "seconds", "useful tokens/s", "items/s", "peak GiB", "times as fast", "share of the limit"]


def machine_name(machine: dict) -> str:
    """A name for a file, from the processor and its cores or the GPU; no host's name."""
    kind = machine["gpu"] or f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(r\)|\(tm\)|@.*?ghz", "", kind.lower())).strip("-")


def rate(stage: str, measurement: dict) -> float:
    """What the stage is judged by: items or useful tokens a second."""
    return measurement[STAGES[stage][1]] / measurement["seconds"]


def ratios(stage: str, facts: dict) -> list[float]:
    """How many times as fast our way was in each round."""
    return [rate(stage, ours) / rate(stage, study) for study, ours in zip(facts["study"], facts["ours"], strict=True)]


def memory_ratio(facts: dict) -> float:
    """Our peak of memory as a share of the study's, by the medians."""
    peaks = [median(round_["peak_gib"] for round_ in facts[way]) for way in ("study", "ours")]
    return peaks[1] / peaks[0]


def share(stage: str, measurement: dict, facts: dict) -> tuple[float, str] | None:
    """The share of the limit that binds, of matrix products or of reading memory; None where no model computes.

    Training counts what a frozen base needs for each useful token: 4 operations a weight of the layers' matrices and of
    the head, and 6 an adapter's weight, without attention. The other stages count 2 a weight for each token that passes
    through the layers, and the weights in 16 bits read at every pass.
    """
    variant = Variant.load(facts["variant"])
    shapes, lora = shapes_of(variant.recipe.base_model)[0], variant.recipe.lora
    limits = {key: median(limit[key] for limit in facts["limits"]) for key in ("matmul", "copy")}
    if stage == "training":
        adapters = shapes.adapter_weights(lora.model_copy(update={"target_modules": ["q_proj", "v_proj"]}))
        token = 4 * (shapes.linear_weights + shapes.vocabulary * shapes.hidden) + 6 * adapters
        return rate(stage, measurement) * token / limits["matmul"], "products"
    if not measurement["computed"]:
        return None
    products = 2 * shapes.linear_weights * measurement["computed"] / measurement["seconds"] / limits["matmul"]
    reading = 2 * shapes.linear_weights * measurement["calls"] / measurement["seconds"] / limits["copy"]
    return max((products, "products"), (reading, "memory"))


def rows(content: dict) -> list[dict[str, str]]:
    """The table of a machine's file: two rows a stage, each number the median of the rounds."""
    table = []
    for stage, facts in content["stages"].items():
        found = ratios(stage, facts)
        for way, label in WAYS.items():
            rounds = facts[way]
            seconds = median(round_["seconds"] for round_ in rounds)
            tokens = median(round_["tokens"] / round_["seconds"] for round_ in rounds)
            items = median(round_["items"] / round_["seconds"] for round_ in rounds)
            shares = [part for round_ in rounds if (part := share(stage, round_, facts))]
            spread = f"{median(found):.1f} [{min(found):.1f}, {max(found):.1f}]"
            limit = f"{median(part for part, _ in shares):.0%} of {shares[0][1]}" if shares else "-"
            unit = STAGES[stage][0] if STAGES[stage][1] == "items" else "-"
            values = [
                stage, label, f"{seconds:.1f}", f"{tokens:.0f}" if tokens else "-",
                f"{items:.2f} {unit}" if unit != "-" else "-",
                f"{median(round_['peak_gib'] for round_ in rounds):.2f}", spread if way == "ours" else "", limit,
            ]  # fmt: skip
            table.append(dict(zip(COLUMNS, values, strict=True)))
    return table


def summary(content: dict) -> str:
    """The table for a terminal."""
    table = [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows(content)]
    widths = {column: max(len(row[column]) for row in table) for column in COLUMNS}
    return "\n".join("  ".join(row[column].ljust(widths[column]) for column in COLUMNS).rstrip() for row in table)
