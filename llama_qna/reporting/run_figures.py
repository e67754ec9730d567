"""The numbers of each figure of a run.

A maker gets the run, flat as `results.our_run` makes it, with its `logs`, `progress` and `results`
(`figures.numbers`), and returns the content of one `<name>.json`, or None where its scores were not measured.
"""

from llama_qna.reporting.plot import LOSS, PERPLEXITY, SCORE, SHARE
from llama_qna.reporting.results import STAGES, asked_of, best_of, last, of_stage

STEP, BOTH = "optimizer step", "optimizer step, counted through both stages"
READ = {"domain": "trained text", "heldout": "held-out sections", "general": "general text", "wikitext2": "WikiText-2"}
# of the many systems those that tell the story in one picture; what a run has not is left out
SHORT = ("question", "best_sentence", "base", "finetuned", "base+passages", "finetuned+passages", "reader")
SHORT += ("gold_evidence",)
TRAINING = {"pretraining": "pretrain", "finetuning": "finetune"}  # name in recipe and figures -> of the stage


# --- what the makers share


def curve_of(label: str, checkpoints: list[dict], what: str) -> dict:
    """Steps and values of the checkpoints, or log entries, that have the score; the ends of its intervals, if any."""
    points = [checkpoint for checkpoint in checkpoints if checkpoint.get(what) is not None]
    curve = {"label": label, "step": [point["step"] for point in points], "value": [point[what] for point in points]}
    if points and f"{what}_low" in points[0]:
        curve |= {end: [point[f"{what}_{end}"] for point in points] for end in ("low", "high")}
    return curve


def _both_stages(run: dict) -> tuple[list[dict], dict[str, int]]:
    """All checkpoints, steps counted on through both stages, and the steps at which something happens."""
    before = of_stage(run, "base") + of_stage(run, "pretraining")
    start = before[-1]["step"]
    after = [checkpoint | {"step": start + checkpoint["step"]} for checkpoint in of_stage(run, "finetuning")]
    ships = next(checkpoint["step"] for checkpoint in before + after if checkpoint["name"] == run["chosen"])
    return before + after, {"fine-tuning starts": start, "shipped checkpoint": ships}


def _perplexity_panel(run: dict, title: str, x: str) -> dict:
    checkpoints, marks = _both_stages(run)
    curves = [curve_of(name, checkpoints, text) for text, name in READ.items() if text in checkpoints[0]]
    return {"title": title, "x": x, "y": PERPLEXITY, "curves": curves, "marks": marks}


def _right_or_wrong(systems: list[dict], title: str) -> dict:
    """The answerable questions: how many a system answers right, how many it declines, how many it gets wrong."""
    rows = []
    for system in systems:
        right, says_so = system["scores"]["right"], system["scores"]["says_so"]["mean"]
        parts = {"right": right["mean"], "says so": says_so, "wrong": max(0.0, 1 - right["mean"] - says_so)}
        rows.append({"name": system["label"], "parts": parts, "low": right["low"], "high": right["high"]})
        if shown := system["scores"].get("evidence_right"):
            rows[-1]["dot"] = shown["mean"]
    return {"title": title, "x": SHARE, "shares": rows, "dot": "shows the right evidence"}


def _best(run: dict) -> str:
    """The model that is right most often, beside the sentence that a search finds."""
    found = [best_of(run["systems"]), *(system for system in run["systems"] if system["name"] == "best_sentence")]
    return "Right: " + ", ".join(f"{system['label']} {system['scores']['right']['mean']:.0%}" for system in found)


def _questions(run: dict) -> str:
    return f"{run['questions']['test']} {asked_of(run)} that nothing was trained on"


def _asked(run: dict) -> str:
    """What the questions and the words in a figure of systems are."""
    return f'{_questions(run)}; whiskers: 95% intervals; says so: "The documents do not say."'


# --- the figures


def _way(run: dict) -> dict | None:
    """From PDF to score, with what this run made at each place."""
    if len(found := run["results"]) < 4:
        return None
    load, pairs, read, tuned = (found[stage] for stage in ("load", "generate", *TRAINING.values()))
    rows = [
        {
            "PDF": "1 document" if load["documents"] == 1 else f"{load['documents']} documents",
            "Clean text": f"{load['chunks']} chunks, {load['tokens']:,} tokens",
            "Pairs": f"{pairs['pairs']} questions with answers, {pairs['rejected']} rejected",
            "Gold questions": f"{run['questions']['test']} that nothing is trained on",
        },
        {
            "Base model": f"{run['base_model'].split('/')[-1]}, its weights frozen",
            "Pretraining": f"{read['steps']} steps on the text; {read['trained_parameters'] / 1e6:.1f} M trained",
            "Fine-tuning": f"{tuned['steps']} steps on the pairs",
            "Score": "right, wrong or says so, with intervals",
        },
        {
            "Question": "in your own words",
            "Passages": "what a search finds in the text",
            "Model": "the reader, or the one that was trained",
            "Answer": "the reader's with its sentence and its page",
        },
    ]
    arrows = [["PDF", "Clean text"], ["Clean text", "Pairs"], ["Base model", "Pretraining"]]
    arrows += [["Pretraining", "Fine-tuning"], ["Clean text", "Pretraining"], ["Pairs", "Fine-tuning"]]
    arrows += [["Question", "Passages"], ["Passages", "Model"], ["Fine-tuning", "Model"], ["Model", "Answer"]]
    arrows += [["Answer", "Score"], ["Gold questions", "Score"]]
    boxes = [[{"name": name, "text": text} for name, text in row.items()] for row in rows]
    note = "top: what is made of the documents; middle: what is trained; bottom: what is asked"
    panel = {"title": "", "boxes": boxes, "arrows": arrows}
    return {"title": "From a PDF to an answer with its page", "note": note, "panels": [panel]}


def _systems(run: dict) -> dict | None:
    """What each system does with the questions that the documents answer, and with those that they do not."""
    if not (systems := run.get("systems")):
        return None
    panels, widths = [_right_or_wrong(systems, "Questions that the documents answer")], [2]
    if any(system["says_so"] for system in systems):
        rows = []
        for system in systems:
            rows.append({"name": system["label"], "parts": {}})  # of one that was not asked them
            if found := system["says_so"]:
                right = found["right"]
                rows[-1]["parts"] = {"says so": right["mean"], "wrong": 1 - right["mean"]}
                rows[-1] |= {"low": right["low"], "high": right["high"]}
        title = f"Unanswerable questions ({run['unanswerable']})"
        panels.append({"title": title, "x": SHARE, "shares": rows, "beside": True})
        widths.append(1)
    return {"title": _best(run), "note": _asked(run), "panels": panels, "widths": widths}


def _rouge_and_right(run: dict) -> dict | None:
    """That ROUGE is earned by an echo: the same systems by ROUGE-L and by right answers."""
    if not (systems := run.get("systems")):
        return None
    values = {
        system["name"]: {"ROUGE-L": system["scores"]["rougeL"]["mean"], "right": system["scores"]["right"]["mean"]}
        for system in systems
    }
    rows = [{"name": system["label"], "values": values[system["name"]]} for system in systems]
    panel = {"title": "", "x": "score (0-1)", "dots": rows}
    echo = values["question"]
    title = f"The question itself as the answer: ROUGE-L {echo['ROUGE-L']:.2f}, right {echo['right']:.0%}"
    return {"title": title, "note": _questions(run), "panels": [panel]}


def _memory(run: dict) -> dict | None:
    """The questions trained on beside questions of the fold dev, checkpoint by checkpoint."""
    checkpoints, marks = _both_stages(run)
    curves = {
        "trained": curve_of("training questions", checkpoints, "rougeL"),
        "held-out": curve_of("held-out questions", checkpoints, "dev"),
    }
    if not curves["held-out"]["step"]:
        return None
    panel = {"title": "", "x": BOTH, "y": SCORE, "curves": list(curves.values()), "marks": marks}
    panel["levels"] = {"the question as answer": run["dev"]["question"]["rougeL"]}
    changes = [f"{label} {curve['value'][0]:.2f} → {curve['value'][-1]:.2f}" for label, curve in curves.items()]
    note = f"{run['questions']['dev']} {asked_of(run)} of the fold dev, with 95% intervals, which choose the checkpoint"
    return {"title": f"ROUGE-L on questions: {', '.join(changes)}", "note": note, "panels": [panel]}


def _perplexity(run: dict) -> dict:
    base = run["checkpoints"][0]
    falls = [
        f"{READ[text]} {base[text]:.3g} → {last(run, 'pretraining', text):.3g}"
        for text in ("domain", "heldout")
        if text in base
    ]
    unseen = [name for text, name in READ.items() if text in base and text != "domain"]
    note = f"nothing was trained on what is read here of {' and '.join(unseen)}"
    title = f"Perplexity in pretraining: {', '.join(falls)}"
    return {"title": title, "note": note, "panels": [_perplexity_panel(run, "", BOTH)]}


def _training_loss(run: dict) -> dict:
    panels, ends = [], []
    for stage, shown in STAGES.items():
        log = run["logs"][stage]
        heldout = curve_of("held out", run["progress"].get(stage, {}).get("points", []), "heldout_loss")
        curves = [curve_of("training", log, "loss")] + ([heldout] if heldout["step"] else [])
        panels.append({"title": shown, "x": STEP, "y": LOSS, "curves": curves})
        ends.append(f"{log[0]['loss']:.3g} → {log[-1]['loss']:.3g}")
    title = f"Training loss: pretraining {ends[0]}, fine-tuning {ends[1]}"
    note = "left over every token of the text, right over the answers (and the replayed text, where there is any)"
    return {"title": title, "note": note, "panels": panels}


def _summary(run: dict) -> dict | None:
    """Answering left, reading right, by the systems that tell the story."""
    if not (systems := [system for system in run.get("systems") or [] if system["name"] in SHORT]):
        return None
    panels = [_right_or_wrong(systems, "Held-out questions"), _perplexity_panel(run, "Reading", STEP)]
    return {"title": _best(run), "note": _asked(run), "panels": panels, "widths": [1.25, 1]}


FIGURES = {  # name -> the function that picks its numbers
    "way": _way,
    "systems": _systems,
    "rouge_and_right": _rouge_and_right,
    "memory": _memory,
    "perplexity": _perplexity,
    "training_loss": _training_loss,
    "summary": _summary,
}
