"""Picks the numbers of each figure of a run and of the study; `reporting.plot` makes the pictures.

A maker turns what was measured into the content of one `<name>.json`. The picture is drawn from that file and nothing
else, so that every one can be rebuilt from the file beside it.
"""

from functools import partial
from pathlib import Path

from llama_qna import UserError
from llama_qna.project.files import read_json, sha256
from llama_qna.project.stage import once
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import plot
from llama_qna.reporting.plot import LOSS, PERPLEXITY, SCORE
from llama_qna.reporting.results import (
    CEILINGS,
    FREE,
    HARDWARE,
    LEADING,
    ROUGE,
    STAGES,
    STATES,
    STUDY,
    best_against,
    by_study_arithmetic,
    chosen,
    last,
    of_stage,
    our_run,
    study,
    with_interval,
)

PUBLISHED = f"Published (study), {HARDWARE}, scored on training data"
STEP, BOTH = "optimizer step", "optimizer step, counted through both stages"
TEXTS = {"domain": "trained text", "heldout": "held-out sections", "general": "general text", "wikitext2": "WikiText-2"}
SCORES = {key: LEADING[key] for key in ("right", "new_words_f1")}
CONTEXTS = {FREE: FREE, "none": "the question alone", "passages": "with passages"}
CONTEXTS |= {"retrieved": "with retrieved chunks", "right chunk": "with the right chunk"}
IN_SAMPLE = "the text and questions that it was trained on (in-sample)"


def draw(variant: Variant) -> list[Path]:
    """Stage 6: draw the figures of a run, each as PNG and SVG beside its numbers; returns the PNG files.

    Raises:
        UserError: the run has no metrics or no training log yet.
    """
    paths = {"evaluate": variant.evaluation / "metrics.json"}
    paths |= {"pretrain": variant.pretraining / "log.json", "finetune": variant.finetuning / "log.json"}
    for verb, path in paths.items():
        if not path.is_file():
            raise UserError(f"no {path.stem} yet for {variant.name}: run `llama-qna {verb} {variant.name}` first")
    about, paths["published"] = variant.recipe.description, REPOSITORY / "data" / "published_results.json"

    def work(folder: Path) -> dict:
        found = numbers(*(read_json(path) for path in paths.values()), about)
        return {"figures": [plot.save(folder, name, content).name for name, content in found.items()]}

    inputs = {verb: sha256(path) for verb, path in paths.items()}
    record = once(variant, "figures", recipe={"description": about}, inputs=inputs, work=work)
    return [variant.figures / name for name in record["results"]["figures"]]


def draw_published(folder: Path) -> list[Path]:
    """Redraw the study's curves from `data/published_results.json` into a folder; returns the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    published = read_json(REPOSITORY / "data" / "published_results.json")
    return [plot.save(folder, name, content) for name, content in published_numbers(published).items()]


def numbers(metrics: dict, pretraining: list, finetuning: list, published: dict, about: str) -> dict[str, dict]:
    """The content of every `<name>.json` of a run, by name; a figure whose scores were not measured is left out.

    Args:
        metrics: content of `metrics.json`.
        pretraining, finetuning: content of the `log.json` of each stage.
        published: content of `data/published_results.json`.
        about: model and text, for the notes below the figures.

    Raises:
        UserError: metrics of an older form, or without a stage.
    """
    source = our_run(metrics, sampled=True) | {
        "logs": dict(zip(STAGES, (pretraining, finetuning), strict=True)),
        "about": about,
    }
    source["study"] = [study(published, key) for key in STUDY]
    measured = {"systems": bool(metrics.get("systems")), "memory_and_understanding": "dev" in source["checkpoints"][0]}
    found = {name: make(source) for name, make in FIGURES.items() if measured.get(name, True)}
    whose = f"{metrics['variant']}: {about}"
    return {name: content | {"note": f"{whose}; {content['note']}"} for name, content in found.items()}


def published_numbers(published: dict) -> dict[str, dict]:
    """The content of every `<name>.json` of the study's figures, by name."""
    return {name: make(published) for name, make in PUBLISHED_FIGURES.items()}


def _both_stages(source: dict) -> tuple[list[dict], dict[str, int]]:
    """All checkpoints, steps counted on through both stages, and the steps at which something happens."""
    before = of_stage(source, "base") + of_stage(source, "pretraining")
    start = before[-1]["step"]
    after = [checkpoint | {"step": start + checkpoint["step"]} for checkpoint in of_stage(source, "finetuning")]
    ships = next(checkpoint["step"] for checkpoint in before + after if checkpoint["name"] == source["chosen"])
    return before + after, {"fine-tuning starts": start, "shipped checkpoint": ships}


def _change(before: float, after: float) -> str:
    return f"{'falls' if after < before else 'rises'} from {before:.3g} to {after:.3g}"


def _from_to(before: float, after: float) -> str:
    return f"{before:.3g} → {after:.3g}"


def _curve(label: str, checkpoints: list[dict], what: str) -> dict:
    """Steps and values of the checkpoints, or log entries, that have the score; the ends of its intervals, if any."""
    points = [checkpoint for checkpoint in checkpoints if what in checkpoint]
    curve = {"label": label, "step": [point["step"] for point in points], "value": [point[what] for point in points]}
    ends = {end: f"{what}_{end}" for end in ("low", "high")}
    return curve | {end: [point[key] for point in points] for end, key in ends.items() if points and key in points[0]}


def _training_loss(source: dict) -> dict:
    changes = [
        f"{_change(log[0]['loss'], log[-1]['loss'])} in {stage.replace('fine', 'fine-')}"
        for stage, log in source["logs"].items()
    ]
    curves = {stage: [_curve("loss", log, "loss")] for stage, log in source["logs"].items()}
    panels = [dict(title=shown, x=STEP, y=LOSS, curves=curves[stage]) for stage, shown in STAGES.items()]
    return {"title": f"Training loss {' and '.join(changes)}", "note": IN_SAMPLE, "panels": panels}


def _perplexity_panel(source: dict, title: str = "") -> dict:
    checkpoints, marks = _both_stages(source)
    texts = {text: name for text, name in TEXTS.items() if text in checkpoints[0]}
    curves = [_curve(name, checkpoints, text) for text, name in texts.items()]
    return dict(title=title, x=BOTH, y=PERPLEXITY, curves=curves, marks=marks)


def _perplexity(source: dict) -> dict:
    unseen = [name for text, name in TEXTS.items() if text in source["checkpoints"][0] and text != "domain"]
    note = f"nothing was trained on what is read here of {' and '.join(unseen)}"
    return {"title": _read(source), "note": note, "panels": [_perplexity_panel(source)]}


def _read(source: dict) -> str:
    """What reading the text did to perplexity, and what the whole training cost, in two lines."""
    (base, *_), ships = source["checkpoints"], chosen(source)
    places = {"domain": "on trained text", "heldout": "held out"}
    falls = [
        f"{_from_to(base[text], last(source, 'pretraining', text))} {place}"
        for text, place in places.items()
        if text in base
    ]
    rise = f"{100 * (ships['general'] / base['general'] - 1):+.1f}%"
    cost = f"general text {_from_to(base['general'], ships['general'])} ({rise}) at the shipped checkpoint"
    return f"Pretraining: perplexity {', '.join(falls)};\n{cost}"


def _rouge(source: dict) -> dict:
    panels = []
    for key, name in ROUGE.items():
        levels = {STATES[stage]: last(source, stage, key) for stage in ("pretraining", "base")}
        curve = _curve("fine-tuned", of_stage(source, "finetuning"), key)
        panels.append(dict(title=name, x=STEP, y=SCORE, curves=[curve], levels=levels))
    change = _change(*(last(source, stage, "rougeL") for stage in STAGES))
    title = f"ROUGE-L on the training questions {change} in fine-tuning"
    return {"title": title, "note": IN_SAMPLE, "panels": panels}


def _memory_and_understanding(source: dict) -> dict:
    checkpoints, marks = _both_stages(source)
    kinds = {"rougeL": "training questions", "dev": "held-out questions"}
    changes = [f"{_from_to(checkpoints[0][key], chosen(source)[key])} on {kinds[key]}" for key in kinds]
    panel = dict(title="", x=BOTH, y=SCORE, marks=marks)
    if "question" in source["dev"]:  # what the score is worth: an echo of the question has it too
        panel["levels"] = {"the held-out question itself as the answer": source["dev"]["question"]["rougeL"]}
    panel["curves"] = [_curve(label, checkpoints, what) for what, label in kinds.items()]
    note = f"{source['questions']['in_sample']} training questions; {source['questions']['dev']} gold questions of the "
    note += "fold dev, with 95% intervals, which choose the checkpoint: the systems are compared on others"
    title = ",\n".join(changes)
    return {"title": f"ROUGE-L, base → shipped checkpoint: {title}", "note": note, "panels": [panel]}


def _systems_panel(source: dict, score: str, title: str) -> dict:
    """A point with its interval for each system, and the mark of what costs nothing."""
    points = [
        {"name": system["label"], "kind": CONTEXTS[system["context"]]}
        | {end: system["scores"][score][end] for end in ("mean", "low", "high")}
        for system in source["systems"]
    ]
    free = {system["label"]: system["scores"][score]["mean"] for system in _named(source, "best_sentence")}
    return dict(title=title, x=f"{SCORES[score]} (0-1)", y="", points=points, levels=free)


def _named(source: dict, *names: str) -> list[dict]:
    return [system for system in source["systems"] if system["name"] in names]


def _best(source: dict) -> str:
    other = "best_sentence" if _named(source, "best_sentence") else "base"
    (bar,), best = _named(source, other), best_against(source, other)
    mean, difference = best["scores"]["right"]["mean"], with_interval(best["against"][other]["right"], "+")
    return f"Held-out questions, best model: {best['label']}\nright {mean:.3f}, {difference} against {bar['label']}"


def _asked(source: dict) -> str:
    bounds = [f"; {system['label']} is a bound" for system in _named(source, *CEILINGS)]
    asked = f"{source['questions']['test']} gold questions that nothing was trained or chosen on"
    return f"{asked}, with 95% intervals{''.join(bounds)}"


def _systems(source: dict) -> dict:
    panels = [_systems_panel(source, score, name) for score, name in SCORES.items()]
    return {"title": _best(source), "note": _asked(source), "panels": panels}


def _ours_and_published(source: dict) -> dict:
    """A group of bars for each model; ours by the study's arithmetic where it was measured, else our last checkpoints.

    The study's last checkpoint is also the one that it chose as its best.
    """
    alike = by_study_arithmetic(source)
    known = [alike if alike["checkpoints"] else source] + source["study"]
    names = [f"{source['variant']}: ours, {source['about']}, in-sample"]
    names += [f"{m['variant']}: study, {m['base_model']} on the {m['text']}, in-sample" for m in known[1:]]
    bars = {STATES[stage]: [last(m, stage, "domain") for m in known] for stage in ("base", "pretraining")}
    panels = [dict(title="Perplexity", x=PERPLEXITY, y="", names=names, bars=bars)]
    for key, name in ROUGE.items():
        bars = {STATES["finetuning"]: [last(m, "finetuning", key) for m in known]}
        panels.append(dict(title=name, x=SCORE, y="", names=names, bars=bars))
    how = "all by the study's arithmetic" if alike["checkpoints"] else "last checkpoint of each stage"
    note = f"{how}; texts, questions and tokenizers differ: compare a model with its own base"
    return {"title": "Ours beside the study, each scored on its training data", "note": note, "panels": panels}


def _summary(source: dict) -> dict:
    """Reading left, answering right: held-out systems where they were measured, else ROUGE in-sample."""
    left = _perplexity_panel(source, "Reading")
    if source.get("systems"):
        right = _systems_panel(source, "right", "Answering held-out questions")
        title, note = _best(source), _asked(source)
    else:
        after = [of_stage(source, "pretraining")[-1] | {"step": 0}] + of_stage(source, "finetuning")
        right = dict(title="Answering training questions", x=STEP, y=SCORE)
        right["curves"] = [_curve(name, after, key) for key, name in ROUGE.items()]
        rises = _change(*(right["curves"][-1]["value"][end] for end in (0, -1)))
        title, note = f"ROUGE-L on training questions {rises} in fine-tuning", f"right: {IN_SAMPLE}"
    return {"title": f"{_read(source)}\n{title}", "note": note, "panels": [left, right]}


def _published(y: str, scores: dict[str, str], keys: list[str], published: dict) -> dict:
    """The study's checkpoints: a panel a model, a curve a score."""
    panels, changes = [], []
    for model in (study(published, key) for key in keys):
        curves = [_curve(f"{model['variant']}, {name}", model["checkpoints"], what) for what, name in scores.items()]
        panels.append(dict(title=f"{model['variant']}: {model['text']}", x=STEP, y=y, curves=curves))
        shown = curves[-1:] if scores is ROUGE else curves
        changes += [f"{curve['label']} {_change(curve['value'][0], curve['value'][-1])}" for curve in shown]
    return {"title": "\n".join([PUBLISHED, *changes]), "panels": panels}


def _published_loss(published: dict) -> dict:
    """The study's logs give no step: the n-th entry, counted from 1, was logged at step n * logging_steps."""
    panels = []
    for key, (name, _, _) in STUDY.items():
        for stage, shown in STAGES.items():
            every = published["recipe"][key][stage]["logging_steps"]
            entries = enumerate(published["training_loss"][key][stage], start=1)
            curve = _curve("loss", [entry | {"step": every * n} for n, entry in entries], "loss")
            panels.append(dict(title=f"{name}: {shown}", x=STEP, y=LOSS, curves=[curve]))
    return {"title": f"{PUBLISHED}\nTraining loss of both models in both stages", "columns": 2, "panels": panels}


MAKERS = (_systems, _memory_and_understanding, _perplexity, _training_loss, _rouge, _ours_and_published, _summary)
FIGURES = {make.__name__.removeprefix("_"): make for make in MAKERS}  # name -> the function that picks its numbers
STUDY_TEXTS = {"domain": "perplexity on its text", "general": "perplexity on WikiText-2 (not trained on)"}
PUBLISHED_FIGURES = {
    "published_perplexity": partial(_published, PERPLEXITY, {"domain": STUDY_TEXTS["domain"]}, [*STUDY]),
    "published_general_text": partial(_published, PERPLEXITY, STUDY_TEXTS, ["paper_7b"]),
    "published_rouge": partial(_published, SCORE, ROUGE, [*STUDY]),
    "published_training_loss": _published_loss,
}
