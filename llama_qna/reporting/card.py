"""Model cards in the hub's format: recipe, data, scores with intervals, limits, licence.

No number in a card is typed by hand: it is written from a variant's recipe, the records of its stages and its
`metrics.json`. The metadata on top are made by `reporting.card_metadata.metadata`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import StrictUndefined, Template

from llama_qna.project.files import read_json
from llama_qna.project.provenance import place
from llama_qna.project.recipe import EMBEDDED, Recipe, read_recipe
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import results
from llama_qna.reporting.card_metadata import base_licence, hub_name, metadata, shipped_system

CARD = "MODEL_CARD.md"
TEMPLATE = Path(__file__).with_name("card.md.jinja")


@dataclass(frozen=True)
class Facts:
    """What a card is written from."""

    name: str
    recipe: Recipe
    records: dict[str, dict]  # stage -> its run.json, of the stages that have one
    metrics: dict | None  # None: never evaluated
    format: str = "adapter"
    committed: bool = False  # a card without weights beside it
    checks: tuple[dict, ...] = ()  # what `serving.exports` found when it loaded the export again


def published_card(root: Path, name: str) -> str:
    """The card of a published variant, from its committed recipe, records and metrics."""
    folder = root / name
    recipe = read_recipe(folder / "variant.yaml")
    data = root / "data" / recipe.corpus
    files = {
        "load": data / "load.run.json",
        "generate": data / "generate.run.json",
        "pretrain": folder / recipe.pretraining.folder / "run.json",
        "finetune": folder / recipe.finetuning.folder / "run.json",
    }
    return card(Facts(name, recipe, _records(files), read_json(folder / "metrics.json"), committed=True))


def write_published_card(root: Path, name: str) -> Path:
    """Write `<variant>/MODEL_CARD.md` from what is committed of the variant."""
    path = root / name / CARD
    path.write_text(published_card(root, name), encoding="utf-8")
    return path


def exported_card(variant: Variant, to: str, evaluated: bool, checks: list[dict]) -> str:
    """The card of an export of this machine's run.

    Args:
        to: one of `serving.exports.FORMATS`.
        evaluated: whether the run's metrics are those of the exported checkpoint.
        checks: the comparisons of `serving.exports`.
    """
    stages = ("load", "generate", "pretrain", "finetune")
    records = _records({stage: variant.stage_folders[stage] / "run.json" for stage in stages})
    metrics = read_json(variant.evaluation / "metrics.json") if evaluated else None
    return card(Facts(variant.name, variant.recipe, records, metrics, to, checks=tuple(checks)))


def card(facts: Facts) -> str:
    """A whole card: YAML metadata, and Markdown by the template `card.md.jinja`.

    Raises:
        ValueError: the metadata are not what the hub's specification allows.
    """
    from huggingface_hub import ModelCard

    template = Template(TEMPLATE.read_text(encoding="utf-8"), undefined=StrictUndefined, keep_trailing_newline=True)
    base = hub_name(facts.recipe.base_model)
    text = template.render(
        facts=facts,
        base=base,
        licence=base_licence(base),
        licences=data_licences(facts.recipe.corpus),
        shipped=shipped_system(facts.metrics) if facts.metrics else None,
        check_line=check_line,
        place=place,
        with_interval=results.with_interval,
        EMBEDDED=EMBEDDED,
        HELDOUT=results.HELDOUT,
        asked_of=results.asked_of,
        ROUGE=results.ROUGE,
        **(_perplexities(facts.metrics) if facts.metrics else {}),
    )
    return str(ModelCard(f"---\n{metadata(facts).to_yaml()}\n---\n\n{text}"))


def _perplexities(metrics: dict) -> dict:
    """The checkpoint that ships, the kinds of text that it read, and the states whose perplexities are compared."""
    run = results.our_run(metrics)
    chosen = results.chosen(run)
    texts = {"domain": "text trained on", "heldout": "held-out sections", "general": "general English"}
    states = [("base", results.of_stage(run, "base")[0]), (f"this model ({run['chosen']})", chosen)]
    return {"chosen": chosen, "states": states, "kinds": {key: name for key, name in texts.items() if key in chosen}}


def data_licences(corpus: str, root: Path = REPOSITORY) -> list[tuple[str, str]]:
    """Path and licence of each table of a shipped corpus, from `data/README.md`; empty for a corpus of the user's."""
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    shipped = re.search(r"^There are two corpora: (.*)$", text, re.MULTILINE)
    if not shipped or f"`{corpus}`" not in shipped[1]:
        return []
    rows = re.findall(r"^\| (`.*?<corpus>.*?) \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    return [(path.replace("<corpus>", corpus), licence) for path, licence in rows]


def check_line(check: dict) -> str:
    """One comparison of the written files with the model that was measured, in a sentence."""
    text = f"{check['loaded']}: {check['same']} of {check['questions']} greedy answers are those of {check['against']}"
    return f"{text}; ROUGE-L between the two, mean {check['rougeL']:.3f}"


def _records(files: dict[str, Path]) -> dict[str, dict]:
    return {stage: read_json(path) for stage, path in files.items() if path.is_file()}
