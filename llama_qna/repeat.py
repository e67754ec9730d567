"""The same training with other seeds: how much of a score is the luck of one run (verb `repeat`).

The intervals of `metrics.json` tell how scores vary with other questions. How they vary with another order of
the rows and other first weights of the adapter, only another training can tell (Bouthillier et al. 2021,
arXiv:2103.03098).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from llama_qna import UserError
from llama_qna.evaluation import compare
from llama_qna.evaluation.bench import Bench, texts_of
from llama_qna.evaluation.protocols import gold_questions, inputs_of, recipe_of
from llama_qna.models.lineage import points_of
from llama_qna.project.data import read_qna
from llama_qna.project.files import read_json, sha256, write_json, write_lines
from llama_qna.project.recipe import LARGEST
from llama_qna.project.stage import once, valid_record
from llama_qna.project.variant import Variant
from llama_qna.text.scores import ROUGE_NAMES
from llama_qna.training.stages import finetune, pretrain


def repeat(variant: Variant, seeds: list[int]) -> dict:
    """Train once more with each seed, and score the last fine-tuned checkpoint of each, beside the variant's own.

    What is trained lies in `runs/<variant>/seeds/<seed>/`; a seed that was trained before is skipped. Writes
    `repeats/predictions.jsonl` and `repeats/seeds.json`, which is computed from it.

    Args:
        seeds: other seeds than the variant's own, which always takes part.

    Returns:
        The content of `seeds.json`; see `summarize`.

    Raises:
        UserError: the variant itself is not trained yet, a seed is negative or too large, no seed is another one, or as
            in `training` and `evaluation`.
    """
    others = [seed for seed in dict.fromkeys(seeds) if seed != variant.recipe.seed]
    if not others or min(others) < 0 or max(others) > LARGEST:
        raise UserError(f"repeat needs seeds from 0 to {LARGEST}, other than the recipe's own, {variant.recipe.seed}")
    pairs = read_qna(variant)
    questions, texts = gold_questions(variant, pairs), texts_of(variant)
    points = {variant.recipe.seed: points_of(variant)[-1]}
    for seed in others:
        recipe = variant.recipe.model_copy(update={"seed": seed})
        trained = replace(variant, recipe=recipe, repeats_another=True)
        pretrain(trained), finetune(trained)
        points[seed] = points_of(trained)[-1]

    def work(folder: Path) -> dict:
        bench = Bench(variant, pairs, questions, texts)
        perplexities = {}
        for seed, point in points.items():
            model, done = bench.load(point), len(bench.predictions)
            perplexities[seed] = bench.perplexities(model)
            bench.answer(model, bench.in_sample(point.name) + bench.gold(point, "finetuned", "test"))
            bench.predictions[done:] = [{"seed": seed} | row for row in bench.predictions[done:]]
        content = summarize(variant.name, perplexities, bench.predictions)
        write_lines(folder / "predictions.jsonl", bench.predictions)
        write_json(folder / "seeds.json", content)
        return {"seeds": list(points), "predictions": len(bench.predictions)}

    inputs = inputs_of(variant, [], texts, questions is not None) | _adapters(points)
    once(variant, "repeat", recipe_of(variant) | {"seeds": list(points)}, inputs, work)
    return read_json(variant.repeats / "seeds.json")


def summarize(variant: str, perplexities: dict[int, dict], predictions: list[dict]) -> dict:
    """Compute the content of `seeds.json`.

    Args:
        perplexities: seed -> kind of text -> what `perplexity` found, the variant's own seed first.
        predictions: rows as those of `predictions.jsonl`, each with its `seed`.

    Returns:
        `variant`, `questions` (how many in each protocol), `perplexity` as given, and `scores`: score -> `seeds`
        (seed -> value), `mean` and `standard_deviation` (of the sample, n - 1). The scores are `compare.COMPARED` on
        the gold fold `test`, the ROUGEs in-sample, and the perplexity of each text.

    Raises:
        UserError: a score is no finite number.
    """
    compare.check_finite(variant, {f"seed {seed}": found for seed, found in perplexities.items()}, predictions)
    values, questions = {}, {}
    for protocol, names in (("test", compare.COMPARED), ("in_sample", ROUGE_NAMES)):
        rows = {
            seed: [r for r in predictions if (r["seed"], r["protocol"]) == (seed, protocol)] for seed in perplexities
        }
        questions[protocol] = len(next(iter(rows.values())))
        for name in names if questions[protocol] else []:
            values[f"{protocol} {name}"] = {seed: fmean(row[name] for row in found) for seed, found in rows.items()}
    for kind in next(iter(perplexities.values())):
        values[f"perplexity {kind}"] = {seed: found[kind]["perplexity"] for seed, found in perplexities.items()}
    scores = {
        name: {
            "seeds": {str(seed): value for seed, value in by_seed.items()},
            "mean": fmean(by_seed.values()),
            "standard_deviation": stdev(by_seed.values()),
        }
        for name, by_seed in values.items()
    }
    kept = {str(seed): found for seed, found in perplexities.items()}
    return {"variant": variant, "questions": questions, "perplexity": kept, "scores": scores}


def read_seeds(variant: Variant) -> dict | None:
    """The content of this machine's `seeds.json`; None if there is none, or the variant was trained again since."""
    record = valid_record(variant.repeats, "repeat")
    try:
        own = _adapters({variant.recipe.seed: points_of(variant)[-1]})
    except UserError:  # nothing is trained any more
        return None
    if not record or not own.items() <= record["inputs"].items():
        return None
    return read_json(variant.repeats / "seeds.json")


def _adapters(points: dict) -> dict[str, str]:
    return {
        f"seed {seed}, {point.name}": sha256(point.adapter / "adapter_model.safetensors")
        for seed, point in points.items()
    }
