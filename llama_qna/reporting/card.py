"""Model cards in the hub's format: recipe, data, scores with intervals, limits, licence.

No number in a card is typed by hand: it is written from a variant's recipe, the records of its stages and its
`metrics.json`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import StrictUndefined, Template

from llama_qna.project.files import read_json
from llama_qna.project.provenance import place
from llama_qna.project.recipe import EMBEDDED, HUB_NAMES, Recipe, read_recipe
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import results

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

CARD = "MODEL_CARD.md"
TEMPLATE = Path(__file__).with_name("card.md.jinja")
# by how the hub's name begins
BASE_LICENCES = {"HuggingFaceTB/SmolLM2-": "apache-2.0", "meta-llama/Llama-2-": "llama2"}
RELATIONS = {"adapter": "adapter", "merged": "finetune", "gguf": "quantized", "ollama": "quantized"}
LIBRARIES = {"adapter": "peft", "merged": "transformers"}


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
    recipe = read_recipe(root / name / "variant.yaml")
    records = _records(results.published_records(root, name))
    return card(Facts(name, recipe, records, read_json(root / name / "metrics.json"), committed=True))


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
        asked=_asked(facts.metrics or {}),
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


def _asked(metrics: dict) -> list[tuple[str, dict]]:
    """The systems of the shipped checkpoint, without passages and with them, each with its share of right answers."""
    of_shipped = [system for system in metrics.get("systems", []) if system["name"].split("+")[0] == "finetuned"]
    return [(system["label"], system["scores"]["right"]) for system in of_shipped]


def _perplexities(metrics: dict) -> dict:
    """The checkpoint that ships, the kinds of text that it read, and the states whose perplexities are compared."""
    run = results.our_run(metrics)
    chosen = results.chosen(run)
    texts = {"domain": "text trained on", "heldout": "held-out sections", "general": "general English"}
    states = [("base", results.of_stage(run, "base")[0]), (f"this model ({run['chosen']})", chosen)]
    return {"chosen": chosen, "states": states, "kinds": {key: name for key, name in texts.items() if key in chosen}}


def data_licences(corpus: str) -> list[tuple[str, str]]:
    """Path and licence of each table of a shipped corpus, from `data/README.md`; empty for a corpus of the user's."""
    text = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")
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


# --- what the hub wants to know on top -------------------------------------------------------------------------------


def hub_name(base_model: str) -> str:
    """The hub's name of a recipe's base model; a local folder keeps its own."""
    return HUB_NAMES.get(base_model, base_model)


def base_licence(base: str) -> str | None:
    """The hub's name of the licence of a base model; None if it is not known here."""
    return next((licence for start, licence in BASE_LICENCES.items() if base.startswith(start)), None)


def shipped_system(metrics: dict) -> dict | None:
    """The scores of the shipped checkpoint without retrieval on held-out questions; None where none were asked."""
    return next((system for system in metrics.get("systems", []) if system["name"] == "finetuned"), None)


def metadata(facts: Facts) -> ModelCardData:
    """A card's metadata by the hub's model card specification, with the scores as `model-index`.

    See https://github.com/huggingface/hub-docs/blob/main/modelcard.md.

    Raises:
        ValueError: the specification does not allow them.
    """
    from huggingface_hub import ModelCardData

    base, corpus = hub_name(facts.recipe.base_model), f"llama-qna-{facts.recipe.corpus}"
    licence, gguf = base_licence(base), ["gguf"] if RELATIONS[facts.format] == "quantized" else []
    method = "qlora" if facts.recipe.quantization.bits == 4 else "lora"
    return ModelCardData(
        model_name=facts.name,
        base_model=base,
        base_model_relation=RELATIONS[facts.format],
        library_name=LIBRARIES.get(facts.format),
        license=licence or "other",
        license_name=None if licence else "the-licence-of-the-base-model",
        language="en",
        datasets=[corpus],
        pipeline_tag="text-generation",
        tags=["llama-qna", "question-answering", "closed-book-qa", method, *gguf],
        metrics=["rouge", "f1", "exact_match", "perplexity"] if facts.metrics else None,
        eval_results=_eval_results(facts, corpus) or None,
    )


def _eval_results(facts: Facts, corpus: str) -> list[EvalResult]:
    """The shipped checkpoint's scores on held-out questions, each with its interval, and its perplexities."""
    from huggingface_hub import EvalResult

    if not facts.metrics:
        return []
    rows, system = [], shipped_system(facts.metrics)
    asked = f"{results.asked_of(facts.metrics)} on the corpus {facts.recipe.corpus}, never trained on"
    for key, name in results.HELDOUT.items() if system else ():
        score, ends = system["scores"][key], [round(system["scores"][key][end], 4) for end in ("low", "high")]
        rows.append(
            {
                "task_name": "closed-book question answering",
                "dataset_type": corpus,
                "dataset_name": asked,
                "dataset_split": "test",
                "metric_type": {"rougeL": "rouge", "right": "accuracy", "right_own": "accuracy"}.get(key, key),
                "metric_name": name,
                "metric_value": round(score["mean"], 4),
                "metric_args": {"confidence_interval_95": ends},
            }
        )
    chosen = results.chosen(results.our_run(facts.metrics))
    for key, text in {"heldout": "held-out sections", "general": "general English text"}.items():
        if key in chosen:
            row = {"dataset_type": f"{corpus}-{key}", "dataset_name": text, "metric_value": round(chosen[key], 3)}
            row |= {"metric_type": "perplexity", "metric_name": "perplexity"}
            rows.append({"task_name": "language modelling"} | row)
    return [EvalResult(task_type="text-generation", **row) for row in rows]
