"""Measured numbers become pictures and the README's results table.

A maker picks the numbers of one figure; they are written to `<name>.json`, and `plot` draws that file and nothing else,
so that every picture can be rebuilt from the file beside it.
"""

import json
import textwrap
from functools import partial
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from llama_qna import UserError, records
from llama_qna.variants import REPOSITORY, Variant

HARDWARE = "one NVIDIA L4"
PUBLISHED = f"Published (study), {HARDWARE}, scored on training data"
STEP, BOTH = "optimizer step", "optimizer step, counted through both stages"
PERPLEXITY, SCORE, LOSS = "perplexity (lower is better)", "ROUGE F1 (0-1)", "training loss"
ROUGE = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
STAGES = {"pretraining": "Domain pretraining", "finetuning": "Q&A fine-tuning"}
STATES = {"base": "base model", "pretraining": "after pretraining", "finetuning": "after fine-tuning"}
# a variant of the study: its name there, its text, the key of that text under perplexity.base_model
STUDY = {
    "paper_7b": ("Paper-7b", "CoAxNN paper", "paper"),
    "physics_mk_books_7b": ("MK-PhysX-7b", "four physics books", "physics"),
}
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), each with its own marker: curves differ without colour too
LOOKS = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^")]
STYLE = {"font.size": 15, "axes.titleweight": "bold", "lines.linewidth": 2.5, "text.parse_math": False}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "legend.edgecolor": "none", "svg.hashsalt": "llama-qna"}


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
        metrics, *logs, published = (json.loads(path.read_text(encoding="utf-8")) for path in paths.values())
        source = _run(metrics) | {"logs": dict(zip(STAGES, logs, strict=True)), "published": published, "about": about}
        note = f"{variant.name}: {about}, the text and questions that it was trained on (in-sample)"
        return {"figures": [_save(folder, name, {"note": note} | make(source)).name for name, make in FIGURES.items()]}

    inputs = {verb: records.sha256(path) for verb, path in paths.items()}
    records.once(variant, "figures", recipe={"description": about}, inputs=inputs, work=work)
    return [variant.figures / f"{name}.png" for name in FIGURES]


def draw_published(folder: Path) -> list[Path]:
    """Redraw the study's curves from `data/published_results.json` into a folder; returns the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    published = json.loads((REPOSITORY / "data" / "published_results.json").read_text(encoding="utf-8"))
    return [_save(folder, name, make(published)) for name, make in PUBLISHED_FIGURES.items()]


def results_table(metrics: dict, published: dict, about: str = "") -> str:
    """A run beside the study as a Markdown table; `about` (model, text, machine) goes into the head of the run."""
    known = [_run(metrics)] + [_study(published, key) for key in STUDY]
    heads = [f"{metrics['variant']} ({about or metrics['base_model']})"]
    heads += [f"{m['variant']} ({m['base_model']}, {m['text']}, {HARDWARE})" for m in known[1:]]
    rows = [(f"Text perplexity, {STATES[stage]}", "domain", stage) for stage in ("base", "pretraining")]
    rows += [(f"{name}, {state}", key, stage) for key, name in ROUGE.items() for stage, state in STATES.items()]
    rows += [(f"General-text perplexity, {state}", "general", stage) for stage, state in STATES.items()]
    table = [(name, 3 if key in ROUGE else 2, [_last(m, stage, key) for m in known]) for name, key, stage in rows]
    factors = [before / after for before, after in zip(table[0][2], table[1][2], strict=True)]
    table.insert(2, ("Text perplexity falls by a factor of", 2, factors))
    lines = [["trained on what is scored, save for general text", *heads], ["---"] * (len(heads) + 1)]
    lines += [[name] + ["-" if v is None else f"{v:.{digits}f}" for v in values] for name, digits, values in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_results_block(readme: Path, table: str) -> None:
    """Replace what stands between the two results marks of a README; UserError if the marks are not there."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise UserError(f"{readme.name} has no `{BEGIN}` followed by `{END}`")
    readme.write_text(f"{before}{BEGIN}\n{table.strip()}\n{END}{after}", encoding="utf-8")


def _run(metrics: dict) -> dict:
    """A run whose systems are flat: stage, step, perplexity on the `domain` and the `general` text, and the ROUGEs."""
    systems = []
    for system in metrics["systems"]:
        texts = {text: measured["perplexity"] for text, measured in system["perplexity"].items()}
        systems.append({"stage": system["stage"], "step": system["step"]} | texts | system["rouge"])
    return metrics | {"systems": systems}


def _study(published: dict, key: str) -> dict:
    """One model of the study in the shape of `_run`; what was not measured is not there."""
    (name, text, base), perplexity = STUDY[key], published["perplexity"]
    general = perplexity.get(f"{key}_on_wikitext2", {})
    systems = [{"stage": "base", "step": 0, "domain": perplexity["base_model"][base]}]
    for step, value in perplexity[key].items():
        more = {"general": general[step]} if step in general else {}
        systems.append({"stage": "pretraining", "step": int(step), "domain": value} | more)
    systems += [{"stage": "finetuning", "step": int(step)} | r for step, r in published["rouge"][key].items()]
    model = published["recipe"][key]["base_model"].split("/")[-1].removesuffix("-hf")
    return {"variant": name, "base_model": model, "text": text, "systems": systems}


def _systems(metrics: dict, stage: str) -> list[dict]:
    if not (found := [system for system in metrics["systems"] if system["stage"] == stage]):
        raise UserError(f"the metrics of {metrics['variant']} hold no {stage} system; evaluate the whole run")
    return found


def _last(metrics: dict, stage: str, what: str) -> float | None:
    return _systems(metrics, stage)[-1].get(what)


def _both_stages(metrics: dict) -> tuple[list[dict], int]:
    """All systems, steps counted on through both stages, and the step at which fine-tuning starts."""
    before = _systems(metrics, "base") + _systems(metrics, "pretraining")
    start = before[-1]["step"]
    return before + [s | {"step": start + s["step"]} for s in _systems(metrics, "finetuning")], start


def _change(before: float, after: float) -> str:
    return f"{'falls' if after < before else 'rises'} from {before:.3g} to {after:.3g}"


def _curve(label: str, systems: list[dict], what: str) -> dict:
    """Steps and values of the systems, or log entries, that have the score."""
    points = {system["step"]: system[what] for system in systems if what in system}
    return {"label": label, "step": list(points), "value": list(points.values())}


def _training_loss(source: dict) -> dict:
    changes = [
        f"{_change(log[0]['loss'], log[-1]['loss'])} in {stage.replace('fine', 'fine-')}"
        for stage, log in source["logs"].items()
    ]
    curves = {stage: [_curve("loss", log, "loss")] for stage, log in source["logs"].items()}
    panels = [dict(title=shown, x=STEP, y=LOSS, curves=curves[stage]) for stage, shown in STAGES.items()]
    return {"title": f"Training loss {' and '.join(changes)}", "panels": panels}


def _perplexity(source: dict) -> dict:
    systems, start = _both_stages(source)
    curves = [_curve("domain text (trained on)", systems, "domain")]
    curves += [_curve("general text (not trained on)", systems, "general")]
    change = _change(*(_last(source, stage, "domain") for stage in ("base", "pretraining")))
    panel = dict(title="", x=BOTH, y=PERPLEXITY, curves=curves, start=start)
    return {"title": f"Perplexity on the domain text {change} in pretraining", "panels": [panel]}


def _rouge(source: dict) -> dict:
    panels = []
    for key, name in ROUGE.items():
        levels = {STATES[stage]: _last(source, stage, key) for stage in ("pretraining", "base")}
        curve = _curve("fine-tuned", _systems(source, "finetuning"), key)
        panels.append(dict(title=name, x=STEP, y=SCORE, curves=[curve], levels=levels))
    change = _change(*(_last(source, stage, "rougeL") for stage in STAGES))
    return {"title": f"ROUGE-L {change} in fine-tuning", "panels": panels}


def _general_text(source: dict) -> dict:
    systems, start = _both_stages(source)
    curve = _curve("general text (not trained on)", systems, "general")
    curve["value"] = percent = [100 * (value / curve["value"][0] - 1) for value in curve["value"]]
    ends = f"{percent[curve['step'].index(start)]:+.0f}% after pretraining, {percent[-1]:+.0f}% after fine-tuning"
    panel = dict(title="", x=BOTH, y="perplexity above base (%)", curves=[curve], start=start)
    return {"title": f"Perplexity on general text: {ends}", "panels": [panel]}


def _ours_and_published(source: dict) -> dict:
    """A group of bars for each model; the last checkpoint is also the one that the study chose as its best."""
    known = [source] + [_study(source["published"], key) for key in STUDY]
    names = [f"{source['variant']}: ours, {source['about']}, in-sample"]
    names += [f"{m['variant']}: study, {m['base_model']} on the {m['text']}, in-sample" for m in known[1:]]
    bars = {STATES[stage]: [_last(m, stage, "domain") for m in known] for stage in ("base", "pretraining")}
    panels = [dict(title="Perplexity", x=PERPLEXITY, y="", names=names, bars=bars)]
    for key, name in ROUGE.items():
        bars = {STATES["finetuning"]: [_last(m, "finetuning", key) for m in known]}
        panels.append(dict(title=name, x=SCORE, y="", names=names, bars=bars))
    note = "last checkpoint of each stage; texts, questions and tokenizers differ: compare a model with its own base"
    return {"title": "Ours beside the study, each scored on its training data", "note": note, "panels": panels}


def _summary(source: dict) -> dict:
    before = _systems(source, "base") + _systems(source, "pretraining")
    after = [before[-1] | {"step": 0}] + _systems(source, "finetuning")  # where fine-tuning starts
    left, right = [_curve("domain text", before, "domain")], [_curve(name, after, key) for key, name in ROUGE.items()]
    falls, rises = (_change(curve["value"][0], curve["value"][-1]) for curve in (left[0], right[-1]))
    panels = [dict(title=f"1. {STAGES['pretraining']}", x=STEP, y=PERPLEXITY, curves=left)]
    panels += [dict(title=f"2. {STAGES['finetuning']}", x=STEP, y=SCORE, curves=right)]
    return {"title": f"Perplexity {falls}, then ROUGE-L {rises}", "panels": panels}


def _published(y: str, scores: dict[str, str], keys: list[str], published: dict) -> dict:
    """The study's checkpoints: a panel a model, a curve a score."""
    panels, changes = [], []
    for study in (_study(published, key) for key in keys):
        curves = [_curve(f"{study['variant']}, {name}", study["systems"], what) for what, name in scores.items()]
        panels.append(dict(title=f"{study['variant']}: {study['text']}", x=STEP, y=y, curves=curves))
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


MAKERS = (_training_loss, _perplexity, _rouge, _general_text, _ours_and_published, _summary)
FIGURES = {make.__name__.removeprefix("_"): make for make in MAKERS}  # name -> the function that picks its numbers
TEXTS = {"domain": "perplexity on its text", "general": "perplexity on WikiText-2 (not trained on)"}
PUBLISHED_FIGURES = {
    "published_perplexity": partial(_published, PERPLEXITY, {"domain": TEXTS["domain"]}, [*STUDY]),
    "published_general_text": partial(_published, PERPLEXITY, TEXTS, ["paper_7b"]),
    "published_rouge": partial(_published, SCORE, ROUGE, [*STUDY]),
    "published_training_loss": _published_loss,
}


def _save(folder: Path, name: str, numbers: dict) -> Path:
    """Write the numbers, and the picture that they make as PNG and SVG; returns the PNG."""
    records.write_json(folder / f"{name}.json", numbers)
    figure, png = plot(numbers), folder / f"{name}.png"
    with style.context(["default", STYLE]):  # no date and no version inside: same numbers, same files
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(png.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    return png


def plot(numbers: dict) -> Figure:
    """Draw the content of a `<name>.json`; the figure belongs to no pyplot state."""
    panels, columns = numbers["panels"], numbers.get("columns", len(numbers["panels"]))
    rows, width = len(panels) // columns, 11 if columns == 1 else 15
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, 6.4 if rows == 1 else 9.2), layout="constrained")
        alike = rows == 1 and len({panel["y"] for panel in panels}) == 1
        axes = figure.subplots(rows, columns, sharey=alike, squeeze=False)
        for axis, panel in zip(axes.flat, panels, strict=True):
            label = panel["y"] if axis is axes[0, 0] or not alike else ""
            axis.set(title=panel["title"], xlabel=panel["x"], ylabel=label)
            (_draw_bars if "bars" in panel else _draw_curves)(axis, panel)
        figure.suptitle("\n".join(textwrap.fill(line, 7 * width) for line in numbers["title"].split("\n")), fontsize=18)
        figure.supxlabel(textwrap.fill(numbers.get("note", ""), 9 * width), fontsize=13, color="0.3")
    return figure


def _draw_curves(axis, panel: dict) -> None:
    """Curves with their first and last value in the legend, levels as broken lines, the start of fine-tuning marked."""
    for curve, (colour, marker) in zip(panel["curves"], LOOKS, strict=False):
        steps, values = curve["step"], curve["value"]
        label = f"{curve['label']}: {values[0]:.3g} → {values[-1]:.3g}"
        axis.plot(steps, values, color=colour, marker=marker if len(steps) < 40 else "", label=label)
    for (name, level), dashes in zip(panel.get("levels", {}).items(), ("--", ":"), strict=False):
        axis.axhline(level, color="black", linestyle=dashes, label=f"{name}: {level:.3g}")
    if "start" in panel:
        axis.axvline(panel["start"], color="0.5", linestyle="-.", label="fine-tuning starts")
    axis.grid(color="0.9")
    if panel["y"] in (PERPLEXITY, LOSS) and axis.dataLim.ymax > 6 * axis.dataLim.ymin > 0:
        axis.set_yscale("log", subs=[])
        axis.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axis.yaxis.set_major_formatter("{x:g}")
    elif panel["y"] == SCORE:
        axis.set_ylim(0, 1)
    axis.legend()


def _draw_bars(axis, panel: dict) -> None:
    """Horizontal bars, a group a model, each with its value written beside it; the last bar of a group stands out."""
    names, height = panel["names"], 0.8 / len(panel["bars"])
    for n, (label, values) in enumerate(panel["bars"].items(), start=-len(panel["bars"])):
        places = [model + (n + 0.5) * height for model in range(1, len(names) + 1)]
        bars = axis.barh(places, values, 0.9 * height, label=label, color=("#999999", LOOKS[0][0])[n])
        axis.bar_label(bars, fmt="%.3g", padding=3)
    shown = [textwrap.fill(name, 24, break_on_hyphens=False) for name in names]
    axis.set_yticks([model + 0.6 for model in range(len(names))], shown)
    axis.set_ylim(len(names) + 0.7, 0)
    axis.set_xlim(right=1.05 if panel["x"] == SCORE else 1.3 * axis.dataLim.xmax)
    axis.locator_params(axis="x", nbins=3)
    axis.legend(loc="lower right")
