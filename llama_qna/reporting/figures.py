"""Picks the numbers of each figure of a run and of the study; `reporting.plot` makes the pictures.

A maker turns what was measured into the content of one `<name>.json`. The picture is drawn from that file and nothing
else, so that every one can be rebuilt from the file beside it.
"""

from base64 import b64encode
from functools import partial
from io import BytesIO
from pathlib import Path

from llama_qna import UserError
from llama_qna.project.files import digest, read_json
from llama_qna.project.recipe import read_recipe
from llama_qna.project.stage import once
from llama_qna.project.systems import CEILINGS
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import plot
from llama_qna.reporting.plot import LOSS, PERPLEXITY, SCORE, SHARE
from llama_qna.reporting.results import (
    FREE,
    HARDWARE,
    ROUGE,
    STAGES,
    STUDY,
    asked_of,
    last,
    of_stage,
    our_run,
    study,
)

PUBLISHED = f"published by the study: {HARDWARE}, all scored on training data"
STEP, BOTH = "optimizer step", "optimizer step, counted through both stages"
TEXTS = {"domain": "trained text", "heldout": "held-out sections", "general": "general text", "wikitext2": "WikiText-2"}
# of the many systems those that tell the story in one picture; what a run has not is left out
SHORT = ("question", "best_sentence", "base", "finetuned", "base+passages", "finetuned+passages", "reader")
SHORT += ("gold_evidence",)
AROUND = 60  # points of a page above and below a mark
RUN_STAGES = {"pretraining": "pretrain", "finetuning": "finetune"}  # name in recipe and figures -> of the stage


def draw(variant: Variant) -> list[Path]:
    """Stage 6: draw the figures of a run, each as PNG and SVG beside its numbers; returns the PNG files.

    Raises:
        UserError: the run has no metrics or no training log yet.
    """
    sources, about = sources_of(variant), variant.recipe.description

    def work(folder: Path) -> dict:
        return {"figures": [plot.save(folder, name, content).name for name, content in numbers(sources, about).items()]}

    inputs = {name: digest(content) for name, content in sources.items()}
    record = once(variant, "figures", recipe={"description": about}, inputs=inputs, work=work)
    return [variant.figures / name for name in record["results"]["figures"]]


def draw_published(folder: Path) -> list[Path]:
    """Redraw the study's curves from `data/published_results.json` into a folder; returns the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    published = read_json(REPOSITORY / "data" / "published_results.json")
    return [plot.save(folder, name, content) for name, content in published_numbers(published).items()]


def sources_of(variant: Variant) -> dict:
    """What the figures of a run are made of: see `numbers`.

    Raises:
        UserError: the run has no metrics or no training log yet.
    """
    folders = {name: variant.stage_folders[verb] for name, verb in RUN_STAGES.items()}
    needed = {"evaluate": variant.evaluation / "metrics.json"}
    needed |= {RUN_STAGES[name]: folder / "log.json" for name, folder in folders.items()}
    for verb, path in needed.items():
        if not path.is_file():
            raise UserError(f"no {path.stem} yet for {variant.name}: run `llama-qna {verb} {variant.name}` first")
    records = {name: variant.stage_folders[name] / "run.json" for name in ("load", "generate", *RUN_STAGES.values())}
    return _gathered(needed["evaluate"], folders, records)


def committed_sources(root: Path, name: str) -> dict:
    """The same of the committed results of a variant."""
    recipe = read_recipe(root / name / "variant.yaml")
    folders = {stage: root / name / getattr(recipe, stage).folder for stage in RUN_STAGES}
    records = {stage: root / "data" / recipe.corpus / f"{stage}.run.json" for stage in ("load", "generate")}
    records |= {RUN_STAGES[stage]: folder / "run.json" for stage, folder in folders.items()}
    return _gathered(root / name / "metrics.json", folders, records)


def _gathered(metrics: Path, folders: dict[str, Path], records: dict[str, Path]) -> dict:
    """Read all of it; a record or a `progress.json` that is not there is left out."""
    return {
        "metrics": read_json(metrics),
        "logs": {name: read_json(folder / "log.json") for name, folder in folders.items()},
        "progress": _there({name: folder / "progress.json" for name, folder in folders.items()}),
        "results": {name: found["results"] for name, found in _there(records).items()},
    }


def _there(paths: dict[str, Path]) -> dict:
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def numbers(sources: dict, about: str) -> dict[str, dict]:
    """The content of every `<name>.json` of a run, by name; a figure whose scores were not measured is left out.

    Args:
        sources: `metrics` (content of `metrics.json`), `logs` and `progress` (of each stage of training), and `results`
            (what the record of each stage says of itself), as `sources_of` reads them.
        about: model and text, for the notes below the figures.

    Raises:
        UserError: metrics of an older form, or without a stage.
    """
    run = our_run(sources["metrics"], sampled=True) | {name: sources[name] for name in ("logs", "progress", "results")}
    for stage in STAGES:
        of_stage(run, stage)
    made = {name: make(run) for name, make in FIGURES.items()}
    whose = f"{run['variant']}: {about}"
    return {name: found | {"note": f"{whose}; {found['note']}"} for name, found in made.items() if found}


def published_numbers(published: dict) -> dict[str, dict]:
    """The content of every `<name>.json` of the study's figures, by name."""
    return {name: make(published) for name, make in PUBLISHED_FIGURES.items()}


# --- what the makers share


def _both_stages(run: dict) -> tuple[list[dict], dict[str, int]]:
    """All checkpoints, steps counted on through both stages, and the steps at which something happens."""
    before = of_stage(run, "base") + of_stage(run, "pretraining")
    start = before[-1]["step"]
    after = [checkpoint | {"step": start + checkpoint["step"]} for checkpoint in of_stage(run, "finetuning")]
    ships = next(checkpoint["step"] for checkpoint in before + after if checkpoint["name"] == run["chosen"])
    return before + after, {"fine-tuning starts": start, "shipped checkpoint": ships}


def _curve(label: str, checkpoints: list[dict], what: str) -> dict:
    """Steps and values of the checkpoints, or log entries, that have the score; the ends of its intervals, if any."""
    points = [checkpoint for checkpoint in checkpoints if checkpoint.get(what) is not None]
    curve = {"label": label, "step": [point["step"] for point in points], "value": [point[what] for point in points]}
    ends = {end: f"{what}_{end}" for end in ("low", "high")}
    return curve | {end: [point[key] for point in points] for end, key in ends.items() if points and key in points[0]}


def _systems(run: dict, *names: str) -> list[dict]:
    """The systems with these names, or all of them."""
    return [system for system in run.get("systems") or [] if not names or system["name"] in names]


def _asked(run: dict) -> str:
    """What the questions and the words in a figure of systems are."""
    asked = f"{run['questions']['test']} {asked_of(run)} that nothing was trained or chosen on"
    return f'{asked}; whiskers: 95% intervals; says so: "The documents do not say."'


# --- the figures of a run


def _right_or_wrong(systems: list[dict], title: str) -> dict:
    """The answerable questions: how many a system answers right, how many it declines, how many it gets wrong."""
    rows = []
    for system in systems:
        right, says_so = system["scores"]["right"], system["scores"]["says_so"]["mean"]
        parts = {"right": right["mean"], "says so": says_so, "wrong": max(0.0, 1 - right["mean"] - says_so)}
        row = {"name": system["label"], "parts": parts, "low": right["low"], "high": right["high"]}
        shown = system["scores"].get("evidence_right")
        rows.append(row | ({"dot": shown["mean"]} if shown else {}))
    return {"title": title, "x": SHARE, "shares": rows, "dot": "shows the right evidence"}


def _unanswerable(systems: list[dict]) -> dict:
    """The questions on which to say so is right; a system that was not asked them has no parts."""
    rows = []
    for system in systems:
        row, found = {"name": system["label"], "parts": {}}, system["says_so"]
        if found:
            right = found["right"]
            row["parts"] = {"says so": right["mean"], "wrong": 1 - right["mean"]}
            row |= {"low": right["low"], "high": right["high"]}
        rows.append(row)
    return {"title": "Unanswerable questions", "x": SHARE, "shares": rows, "beside": True}


def _systems_figure(run: dict) -> dict | None:
    if not (systems := _systems(run)):
        return None
    panels = [_right_or_wrong(systems, "Questions that the documents answer")]
    if any(system["says_so"] for system in systems):
        panels.append(_unanswerable(systems))
        panels[1]["title"] += f" ({run['unanswerable']})"
    return {"title": _best(run), "note": _asked(run), "panels": panels, "widths": [2, 1][: len(panels)]}


def _best(run: dict) -> str:
    """The model that is right most often, beside the sentence that a search finds."""
    models = [system for system in _systems(run) if system["context"] != FREE and system["name"] not in CEILINGS]
    best = max(models, key=lambda s: [s["scores"][score]["mean"] for score in ("right", "new_words_f1")])
    beside = [best, *_systems(run, "best_sentence")]
    return "Right: " + ", ".join(f"{system['label']} {system['scores']['right']['mean']:.0%}" for system in beside)


def _perplexity_panel(run: dict, title: str = "") -> dict:
    checkpoints, marks = _both_stages(run)
    texts = {text: name for text, name in TEXTS.items() if text in checkpoints[0]}
    curves = [_curve(name, checkpoints, text) for text, name in texts.items()]
    return {"title": title, "x": BOTH, "y": PERPLEXITY, "curves": curves, "marks": marks}


def _perplexity(run: dict) -> dict:
    unseen = [name for text, name in TEXTS.items() if text in run["checkpoints"][0] and text != "domain"]
    note = f"nothing was trained on what is read here of {' and '.join(unseen)}"
    return {"title": _read(run), "note": note, "panels": [_perplexity_panel(run)]}


def _read(run: dict) -> str:
    """What reading did to the text trained on and to the sections held out."""
    base, places = run["checkpoints"][0], {"domain": "trained text", "heldout": "held-out sections"}
    falls = [
        f"{place} {base[text]:.3g} → {last(run, 'pretraining', text):.3g}"
        for text, place in places.items()
        if text in base
    ]
    return f"Perplexity in pretraining: {', '.join(falls)}"


def _training_loss(run: dict) -> dict:
    panels = []
    for stage, shown in STAGES.items():
        curves = [_curve("training", run["logs"][stage], "loss")]
        heldout = _curve("held out", run["progress"].get(stage, {}).get("points", []), "heldout_loss")
        panels.append({"title": shown, "x": STEP, "y": LOSS, "curves": curves + ([heldout] if heldout["step"] else [])})
    ends = [f"{run['logs'][stage][0]['loss']:.3g} → {run['logs'][stage][-1]['loss']:.3g}" for stage in STAGES]
    title = f"Training loss: pretraining {ends[0]}, fine-tuning {ends[1]}"
    note = "left over every token of the text, right over the answers (and the replayed text, where there is any)"
    return {"title": title, "note": note, "panels": panels}


def _memory(run: dict) -> dict | None:
    """The questions trained on beside questions of the fold dev, checkpoint by checkpoint."""
    checkpoints, marks = _both_stages(run)
    kinds = {"rougeL": "training questions", "dev": "held-out questions"}
    curves = [_curve(label, checkpoints, what) for what, label in kinds.items()]
    if not curves[1]["step"]:
        return None
    panel = {"title": "", "x": BOTH, "y": SCORE, "curves": curves, "marks": marks}
    panel["levels"] = {"the question as answer": run["dev"]["question"]["rougeL"]}
    changes = [f"{label} {curve['value'][0]:.2f} → {curve['value'][-1]:.2f}" for label, curve in zip(
        ("trained", "held-out"), curves, strict=True)]  # fmt: skip
    note = f"{run['questions']['dev']} {asked_of(run)} of the fold dev, with 95% intervals, which choose the checkpoint"
    return {"title": f"ROUGE-L on questions: {', '.join(changes)}", "note": note, "panels": [panel]}


def _rouge_and_right(run: dict) -> dict | None:
    """That ROUGE is earned by an echo: the same systems by ROUGE-L and by right answers."""
    if not (systems := _systems(run)):
        return None
    kinds = {"rougeL": "ROUGE-L", "right": "right"}
    rows = [
        {"name": s["label"], "values": {name: s["scores"][key]["mean"] for key, name in kinds.items()}} for s in systems
    ]
    panel = {"title": "", "x": "score (0-1)", "dots": rows}
    echo = next(row["values"] for row in rows if row["name"] == _systems(run, "question")[0]["label"])
    title = f"The question itself as the answer: ROUGE-L {echo['ROUGE-L']:.2f}, right {echo['right']:.0%}"
    return {"title": title, "note": _asked(run), "panels": [panel]}


def _way(run: dict) -> dict | None:
    """From PDF to score, with what this run made at each place."""
    if len(found := run["results"]) < 4:
        return None
    load, pairs, read, tuned = (found[stage] for stage in ("load", "generate", *RUN_STAGES.values()))
    rows = [
        ("PDF", "1 document" if load["documents"] == 1 else f"{load['documents']} documents"),
        ("Clean text", f"{load['chunks']} chunks, {load['tokens']:,} tokens"),
        ("Pairs", f"{pairs['pairs']} questions with answers, {pairs['rejected']} rejected"),
        ("Gold questions", f"{run['questions']['test']} that nothing is trained on"),
        ("Base model", f"{run['base_model'].split('/')[-1]}, its weights frozen"),
        ("Pretraining", f"{read['steps']} steps on the text; {read['trained_parameters'] / 1e6:.1f} M trained"),
        ("Fine-tuning", f"{tuned['steps']} steps on the pairs"),
        ("Score", "right, wrong or says so, with intervals"),
        ("Question", "in your own words"),
        ("Passages", "what a search finds in the text"),
        ("Model", "answers, or says that the documents do not"),
        ("Answer", "with its sentence and its page"),
    ]
    boxes = [{"name": name, "text": text} for name, text in rows]
    arrows = [["PDF", "Clean text"], ["Clean text", "Pairs"], ["Base model", "Pretraining"]]
    arrows += [["Pretraining", "Fine-tuning"], ["Clean text", "Pretraining"], ["Pairs", "Fine-tuning"]]
    arrows += [["Question", "Passages"], ["Passages", "Model"], ["Fine-tuning", "Model"], ["Model", "Answer"]]
    arrows += [["Answer", "Score"], ["Gold questions", "Score"]]
    panel = {"title": "", "boxes": [boxes[:4], boxes[4:8], boxes[8:]], "arrows": arrows}
    note = "top: what is made of the documents; middle: what is trained; bottom: what is asked"
    return {"title": "From a PDF to an answer with its page", "note": note, "panels": [panel]}


def _summary(run: dict) -> dict | None:
    """Answering left, reading right, by the systems that tell the story."""
    if not (systems := _systems(run, *SHORT)):
        return None
    panels = [_right_or_wrong(systems, "Held-out questions"), _perplexity_panel(run, "Reading")]
    panels[1]["x"] = STEP
    return {"title": _best(run), "note": _asked(run), "panels": panels, "widths": [1.25, 1]}


def evidence(question: str, answer: str, source: str, page, boxes: list[tuple], scale: float) -> dict:
    """An answer above the part of its page on which its sentence is marked; notebook 10 makes it.

    Args:
        source: document and page, in words.
        page: PIL's image of the page, with the marks on it.
        boxes: left, bottom, right and top of each mark in points, y upwards.
        scale: pixels a point.
    """
    top = page.height - scale * (max(box[3] for box in boxes) + AROUND)
    bottom = page.height - scale * (min(box[1] for box in boxes) - AROUND)
    part, written = page.crop((0, max(0, int(top)), page.width, min(page.height, int(bottom)))), BytesIO()
    part.quantize(32).save(written, "PNG", optimize=True)
    panel = {"title": f"Answer: {answer}", "picture": b64encode(written.getvalue()).decode()}
    return {"title": question, "note": f"marked: the sentence that it was taken from; {source}", "panels": [panel]}


# --- the study's figures


def _published(what: str, y: str, scores: dict[str, str], published: dict) -> dict:
    """The study's checkpoints: a panel a model, a curve a score."""
    panels, changes = [], []
    for model in (study(published, key) for key in STUDY):
        curves = [_curve(name, model["checkpoints"], key) for key, name in scores.items()]
        curves = [curve for curve in curves if curve["step"]]
        panels.append({"title": f"{model['variant']}: {model['text']}", "x": STEP, "y": y, "curves": curves})
        shown = curves[-1 if scores is ROUGE else 0]["value"]
        changes.append(f"{model['variant']} {shown[0]:.3g} → {shown[-1]:.3g}")
    return {"title": f"{what}: {', '.join(changes)}", "note": PUBLISHED, "panels": panels}


def _published_loss(published: dict) -> dict:
    """The study's logs give no step: the n-th entry, counted from 1, was logged at step n * logging_steps."""
    panels = []
    for key, (name, _, _) in STUDY.items():
        for stage, shown in STAGES.items():
            every = published["recipe"][key][stage]["logging_steps"]
            entries = enumerate(published["training_loss"][key][stage], start=1)
            curve = _curve("loss", [entry | {"step": every * n} for n, entry in entries], "loss")
            panels.append({"title": f"{name}: {shown}", "x": STEP, "y": LOSS, "curves": [curve]})
    return {"title": "The study's training losses", "note": PUBLISHED, "columns": 2, "panels": panels}


FIGURES = {  # name -> the function that picks its numbers, None where they were not measured
    "way": _way,
    "systems": _systems_figure,
    "rouge_and_right": _rouge_and_right,
    "memory": _memory,
    "perplexity": _perplexity,
    "training_loss": _training_loss,
    "summary": _summary,
}
STUDY_TEXTS = {"domain": "its text", "general": "WikiText-2, not trained on"}
PUBLISHED_FIGURES = {
    "published_perplexity": partial(_published, "The study's perplexity", PERPLEXITY, STUDY_TEXTS),
    "published_rouge": partial(_published, "The study's ROUGE-L", SCORE, ROUGE),
    "published_training_loss": _published_loss,
}
