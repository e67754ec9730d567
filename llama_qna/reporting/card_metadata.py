"""What the Hugging Face hub wants to know of a model, on top of its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_qna.project.recipe import HUB_NAMES
from llama_qna.reporting import results

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

    from llama_qna.reporting.card import Facts

# by how the hub's name begins
BASE_LICENCES = {"HuggingFaceTB/SmolLM2-": "apache-2.0", "meta-llama/Llama-2-": "llama2"}
RELATIONS = {"adapter": "adapter", "merged": "finetune", "gguf": "quantized", "ollama": "quantized"}
LIBRARIES = {"adapter": "peft", "merged": "transformers"}


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
        tags=["llama-qna", "question-answering", "closed-book-qa", "qlora", *gguf],
        metrics=["rouge", "f1", "exact_match", "perplexity"] if facts.metrics else None,
        eval_results=_eval_results(facts, corpus) or None,
    )


def _eval_results(facts: Facts, corpus: str) -> list[EvalResult]:
    """The shipped checkpoint's scores on held-out questions, each with its interval, and its perplexities."""
    from huggingface_hub import EvalResult

    if not facts.metrics:
        return []
    found, system = [], shipped_system(facts.metrics)
    for key, name in results.HELDOUT.items() if system else ():
        score = system["scores"][key]
        found.append(
            EvalResult(
                task_type="text-generation",
                task_name="closed-book question answering",
                dataset_type=corpus,
                dataset_name=f"{results.asked_of(facts.metrics)} on the corpus {facts.recipe.corpus}, never trained on",
                dataset_split="test",
                metric_type={"rougeL": "rouge", "right": "accuracy", "right_own": "accuracy"}.get(key, key),
                metric_name=name,
                metric_value=round(score["mean"], 4),
                metric_args={"confidence_interval_95": [round(score["low"], 4), round(score["high"], 4)]},
            )
        )
    texts = {"heldout": "held-out sections", "general": "general English text"}
    chosen = results.chosen(results.our_run(facts.metrics))
    for key in [key for key in texts if key in chosen]:
        found.append(
            EvalResult(
                task_type="text-generation",
                task_name="language modelling",
                dataset_type=f"{corpus}-{key}",
                dataset_name=texts[key],
                metric_type="perplexity",
                metric_name="perplexity",
                metric_value=round(chosen[key], 3),
            )
        )
    return found
