"""What was measured, ours and the study's, in one shape, and the long tables that docs/results.md makes of it.

No number there is typed by hand: all are of the `metrics.json` files and of `data/published_results.json`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llama_qna import UserError
from llama_qna.project.recipe import read_recipe
from llama_qna.project.systems import CEILINGS, NO_MODEL
from llama_qna.text.tables import markdown

HARDWARE = "one NVIDIA L4"
ROUGE = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
LEADING = {"right": "right", "right_own": "right, not copied", "new_words_f1": "new words F1"}
EVIDENCE = {"evidence_right": "evidence", "page_right": "page", "answer_or_evidence": "answer or evidence"}
SAYS_SO = {"right": "says so, unanswerable", "wrong": "says so, answerable"}
OVERLAP = ROUGE | {"f1": "F1", "exact_match": "exact match"}
HELDOUT = LEADING | {key: OVERLAP[key] for key in ("rougeL", "f1", "exact_match")}
LIKELIHOOD = "reference's log-likelihood a token"  # only of systems without context
STAGES = {"pretraining": "Domain pretraining", "finetuning": "Q&A fine-tuning"}
STATES = {"base": "base model", "pretraining": "after pretraining", "finetuning": "after fine-tuning"}
# a variant of the study: its name there, its text, the key of that text under perplexity.base_model
STUDY = {
    "paper_7b": ("Paper-7b", "CoAxNN paper", "paper"),
    "physics_mk_books_7b": ("MK-PhysX-7b", "four physics books", "physics"),
}
TEXTS = {"domain": "text", "heldout": "held out", "general": "general", "wikitext2": "WikiText-2"}  # of perplexity
# the scores of `seeds.json`; a text or fold that was not measured has none
SEEDS = {"test right": "right, held out", "test new_words_f1": "new words F1, held out"}
SEEDS |= {"test rougeL": "ROUGE-L, held out", "test f1": "F1, held out"}
SEEDS |= {f"in_sample {key}": f"{name}, in-sample" for key, name in ROUGE.items()}
SEEDS |= {f"perplexity {key}": f"perplexity, {name}" for key, name in TEXTS.items()}


def published_records(root: Path, name: str) -> dict[str, Path]:
    """Where the committed record of each stage before the evaluation of a variant lies, by stage.

    Pairs are those of the corpus, unless the variant has a record of its own.
    """
    recipe, folder = read_recipe(root / name / "variant.yaml"), root / name
    data, own = root / "data" / recipe.corpus, folder / "generate.run.json"
    return {
        "load": data / "load.run.json",
        "generate": own if own.is_file() else data / "generate.run.json",
        "pretrain": folder / recipe.pretraining.folder / "run.json",
        "finetune": folder / recipe.finetuning.folder / "run.json",
    }


@dataclass(frozen=True)
class Run:
    """What was published of a variant.

    `about` says model, text and machine; `answers` are the lines of `predictions.jsonl` on the test questions; `seeds`
    is the content of `seeds.json`, if there is one.
    """

    metrics: dict
    about: str
    corpus: str
    answers: list[dict]
    seeds: dict | None = None


def our_run(metrics: dict, sampled: bool = False) -> dict:
    """A run whose checkpoints are flat: `name`, `stage`, `step`, the perplexity of each text (`domain`, `heldout`,
    `general`), the ROUGEs on the training questions, and `dev`, ROUGE-L on the gold questions of the fold dev, with
    `dev_low` and `dev_high`, the ends of its interval.

    Args:
        sampled: perplexities and ROUGEs of the sample, which every checkpoint was measured by: for curves.

    Raises:
        UserError: the metrics are of an older form, without checkpoints or without the scores of today.
    """
    found = metrics.get("checkpoints", [])
    old = any("right" not in system["scores"] for system in metrics.get("systems") or [])
    if old or not found or any("dev" in checkpoint and "dev_interval" not in checkpoint for checkpoint in found):
        raise UserError(f"the metrics of {metrics['variant']} are of an older form: evaluate and publish it again")
    checkpoints = []
    for checkpoint in found:
        flat = {key: checkpoint[key] for key in ("name", "stage", "step")}
        if sampled:
            flat |= checkpoint["sample"]["perplexity"] | checkpoint["sample"]["rouge"]
        else:
            flat |= {text: measured["perplexity"] for text, measured in checkpoint["perplexity"].items()}
            flat |= {key: checkpoint["rouge"][key] for key in ROUGE}
        if checkpoint.get("dev"):
            interval = checkpoint["dev_interval"]["rougeL"]
            flat |= {"dev": checkpoint["dev"]["rougeL"], "dev_low": interval["low"], "dev_high": interval["high"]}
        checkpoints.append(flat)
    return metrics | {"checkpoints": checkpoints}


def study(published: dict, key: str) -> dict:
    """One model of the study in the shape of `our_run`; what was not measured is not there."""
    (name, text, base), perplexity = STUDY[key], published["perplexity"]
    general = perplexity.get(f"{key}_on_wikitext2", {})
    checkpoints = [{"stage": "base", "step": 0, "domain": perplexity["base_model"][base]}]
    for step, value in perplexity[key].items():
        more = {"general": general[step]} if step in general else {}
        more |= {"printed": perplexity["printed"][key][step]} if step in perplexity["printed"].get(key, {}) else {}
        checkpoints.append({"stage": "pretraining", "step": int(step), "domain": value} | more)
    checkpoints += [{"stage": "finetuning", "step": int(step)} | r for step, r in published["rouge"][key].items()]
    model = published["recipe"][key]["base_model"].split("/")[-1].removesuffix("-hf")
    return {"variant": name, "base_model": model, "text": text, "checkpoints": checkpoints}


def by_study_arithmetic(metrics: dict) -> dict | None:
    """Our base, pretrained and fine-tuned model in the shape of `our_run`, scored just as the study scored its own."""
    checkpoints = [
        {"stage": scored["name"], "domain": scored["perplexity"]} | scored.get("rouge", {})
        for scored in metrics.get("published", [])
    ]
    return {"variant": metrics["variant"], "checkpoints": checkpoints} if checkpoints else None


def of_stage(run: dict, stage: str) -> list[dict]:
    """The checkpoints of a stage in their order; UserError if there is none."""
    if not (found := [checkpoint for checkpoint in run["checkpoints"] if checkpoint["stage"] == stage]):
        raise UserError(f"the metrics of {run['variant']} hold no {stage} checkpoint; evaluate the whole run")
    return found


def last(run: dict, stage: str, what: str) -> float | None:
    """A score of the last checkpoint of a stage; None if it was not measured."""
    return of_stage(run, stage)[-1].get(what)


def chosen(run: dict) -> dict:
    """The checkpoint that ships: the best on the dev questions, or the last where there are none."""
    return next(checkpoint for checkpoint in run["checkpoints"] if checkpoint["name"] == run["chosen"])


def best_of(systems: list[dict]) -> dict | None:
    """Of the models that could be used, the one that is right most often, then by new words F1; None without any.

    The ceilings and what no model stands behind do not count.
    """
    models = [system for system in systems if system["context"] != NO_MODEL and system["name"] not in CEILINGS]
    return max(models, key=lambda s: [s["scores"][score]["mean"] for score in ("right", "new_words_f1")], default=None)


def with_interval(score: dict, sign: str = "") -> str:
    """A mean and its 95% interval in words: `0.412 [0.361, 0.463]`, with the sign "+" for differences."""
    mean, low, high = (f"{score[key]:{sign}.3f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def cells(scores: dict | None, names: Iterable[str]) -> list[str]:
    """The scores with these names as cells of a table; a dash where one was not measured."""
    return [with_interval(scores[name]) if scores and scores.get(name) else "-" for name in names]


def seeds_rows(content: dict) -> list[list[str]]:
    """The table of a `seeds.json`: its head, a row a seed, mean and standard deviation."""
    names = [name for name in SEEDS if name in content["scores"]]
    scores = [content["scores"][name] for name in names]
    digits = [2 if name.startswith("perplexity") else 3 for name in names]

    def row(name, values):
        return [name, *(_cell(value, places) for value, places in zip(values, digits, strict=True))]

    rows = [row(f"seed {seed}", [score["seeds"][seed] for score in scores]) for seed in scores[0]["seeds"]]
    for key in ("mean", "standard_deviation"):
        rows.append(row(key.replace("_", " "), [score[key] for score in scores]))
    return [["training", *(SEEDS[name] for name in names)], *rows]


def systems_rows(systems: list[dict], scores: dict[str, str], says_so: dict[str, str] | None = None) -> str:
    """A Markdown table: a row a system, a column a score, then what it says of questions without an answer.

    Args:
        scores, says_so: keys of a system's `scores` and `says_so`, with the heads of their columns.
    """
    said = says_so or {}
    rows = [[s["label"], *cells(s["scores"], scores), *cells(s["says_so"], said)] for s in systems]
    return markdown(["system", *scores.values(), *said.values()], rows)


def results_block(runs: dict[str, Run], published: dict) -> str:
    """The long tables: each variant on held-out questions, then all of them in-sample beside the study.

    Args:
        runs: variant -> what was published of it; without `systems` it is in the second table only.
        published: content of `data/published_results.json`.

    Raises:
        UserError: metrics of an older form, or without a stage.
    """
    parts = [_heldout(our_run(run.metrics), run.about) for run in runs.values() if run.metrics.get("systems")]
    for name, run in runs.items():
        if run.seeds:
            title = f"**Other seeds: {name}**, trained anew with each; the last fine-tuned checkpoint."
            head, *rows = seeds_rows(run.seeds)
            parts.append(f"{title}\n\n{markdown(head, rows)}")
    return "\n\n".join([*parts, _in_sample(runs, published)])


def is_generated(run: dict) -> bool:
    """Whether the held-out questions of a run were generated, so that nobody has checked them."""
    return run["questions"].get("source", "gold") != "gold"


def asked_of(run: dict) -> str:
    """What the held-out questions of a run are called."""
    return f"questions ({run['questions']['source']})" if is_generated(run) else "gold questions"


def _heldout(run: dict, about: str) -> str:
    """What leads, then the scores of overlap, then what differs."""
    asked = f"{run['questions']['test']} {asked_of(run)}"
    head = f"**Held out: {run['variant']}** ({about}). {asked}, none of them trained on; mean [95% interval]."
    measured = {key for system in run["systems"] for key in system["scores"]}
    leading = LEADING | {key: name for key, name in EVIDENCE.items() if key in measured}
    overlap = OVERLAP | ({"log_likelihood": LIKELIHOOD} if "log_likelihood" in measured else {})
    unanswerable = run.get("unanswerable")
    if unanswerable:
        head += f' *Says so*: answers with "The documents do not say.", of {unanswerable} unanswerable questions; and'
        head += " of the answerable ones whose evidence was before the system."
    shared = "Overlap with the reference, which an echo of the question and a copied sentence earn too:"
    parts = [head, systems_rows(run["systems"], leading, SAYS_SO if unanswerable else None)]
    return "\n\n".join([*parts, shared, systems_rows(run["systems"], overlap), "\n".join(_findings(run))])


def _findings(run: dict) -> list[str]:
    """The differences that matter, a line each, and what the shipped checkpoint costs in general language."""
    systems = {system["name"]: system for system in run["systems"]}
    best = best_of([system for system in run["systems"] if "best_sentence" in system["against"]])
    pairs = [("finetuned", other, ()) for other in ("base", "finetuned_only")]
    pairs += [("finetuned", "question", ("rougeL",)), ("base+passages", "base", ())]
    pairs += [("finetuned+passages", other, ()) for other in ("reader", "finetuned_only+passages")]
    lines = [
        _difference(systems[name]["label"], systems[name], systems[other], more)
        for name, other, more in pairs
        if name in systems and other in systems[name]["against"]
    ]
    if best:
        lines.append(_difference(f"best of the models ({best['label']})", best, systems["best_sentence"]))
    before, after = run["checkpoints"][0]["general"], chosen(run)["general"]
    change = f"{before:.2f} → {after:.2f} ({100 * (after / before - 1):+.1f}%)"
    return [*lines, f"- general-text perplexity, base → shipped checkpoint ({run['chosen']}): {change}"]


def _difference(label: str, system: dict, other: dict, more: tuple[str, ...] = ()) -> str:
    """A line with the differences in what leads and in the likelihood of the references; `more` scores after these."""
    scores, names = system["against"][other["name"]], LEADING | OVERLAP | {"log_likelihood": LIKELIHOOD}
    found = [
        f"{names[key]} {with_interval(scores[key], '+')} ({verdict(scores[key])})"
        for key in ("right", "new_words_f1", "log_likelihood", *more)
        if key in scores
    ]
    return f"- {label} against {other['label']}: {', '.join(found)}"


def verdict(difference: dict) -> str:
    """In a word, after Holm's correction for the systems that are compared at once."""
    if difference["p_holm"] >= 0.05:
        return "no clear difference"
    return "better" if difference["mean"] > 0 else "worse"


def _in_sample(runs: dict[str, Run], published: dict) -> str:
    """Last checkpoints beside the study's, then the same by the study's arithmetic where we have it."""
    studies = [study(published, key) for key in STUDY]
    known = [our_run(run.metrics) for run in runs.values()] + studies
    heads = [f"{name} ({run.about})" for name, run in runs.items()]
    heads += [f"{m['variant']} ({m['base_model']}, {m['text']}, {HARDWARE})" for m in studies]
    kinds = [(f"Text perplexity, {STATES[stage]}", "domain", stage) for stage in ("base", "pretraining")]
    kinds += [(f"{name}, {state}", key, stage) for key, name in ROUGE.items() for stage, state in STATES.items()]
    kinds += [(f"General-text perplexity, {state}", "general", stage) for stage, state in STATES.items()]
    rows = [[name, *(_shown(m, stage, key) for m in known)] for name, key, stage in kinds]
    rows.insert(2, ["Text perplexity falls by a factor of", *(_cell(_fall(m), 2) for m in known)])
    alike = [by_study_arithmetic(run.metrics) for run in runs.values()]
    if any(alike):
        alike += studies
        falls = [_cell(_fall(run) if run else None, 2) for run in alike]
        rows.append(["By the study's arithmetic: text perplexity falls by a factor of", *falls])
        for key, name in ROUGE.items():
            values = [_cell(last(run, "finetuning", key) if run else None, 3) for run in alike]
            rows.append([f"By the study's arithmetic: {name}, {STATES['finetuning']}", *values])
    title = "**In-sample, beside the study**: memory of what was trained on, save for general text; last checkpoint."
    return f"{title}\n\n{markdown(['score', *heads], rows)}"


def _shown(run: dict, stage: str, key: str) -> str:
    """A score of the last checkpoint of a stage; where the study printed other digits than it logged, those."""
    point = of_stage(run, stage)[-1]
    if key == "domain" and "printed" in point:
        return point["printed"]
    return _cell(point.get(key), 3 if key in ROUGE else 2)


def _fall(run: dict) -> float:
    return last(run, "base", "domain") / last(run, "pretraining", "domain")


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
