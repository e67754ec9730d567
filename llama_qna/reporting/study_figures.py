"""The numbers of each figure of the study, from what it published."""

from functools import partial

from llama_qna.reporting.plot import LOSS, PERPLEXITY, SCORE
from llama_qna.reporting.results import HARDWARE, ROUGE, STAGES, STUDY, study
from llama_qna.reporting.run_figures import STEP, curve_of

NOTE = f"published by the study: {HARDWARE}, scored on training data, save for WikiText-2"
TEXTS = {"domain": "its text", "general": "WikiText-2, not trained on"}


def _checkpoints(what: str, y: str, scores: dict[str, str], published: dict) -> dict:
    """A panel a model, a curve a score."""
    panels, changes = [], []
    for model in (study(published, key) for key in STUDY):
        curves = [curve_of(name, model["checkpoints"], key) for key, name in scores.items()]
        curves = [curve for curve in curves if curve["step"]]
        panels.append({"title": f"{model['variant']}: {model['text']}", "x": STEP, "y": y, "curves": curves})
        shown = curves[-1 if scores is ROUGE else 0]["value"]
        changes.append(f"{model['variant']} {shown[0]:.3g} → {shown[-1]:.3g}")
    return {"title": f"{what}: {', '.join(changes)}", "note": NOTE, "panels": panels}


def _training_loss(published: dict) -> dict:
    """The study's logs give no step: the n-th entry, counted from 1, was logged at step n * logging_steps."""
    panels = []
    for key, (name, _, _) in STUDY.items():
        for stage, shown in STAGES.items():
            every = published["recipe"][key][stage]["logging_steps"]
            entries = enumerate(published["training_loss"][key][stage], start=1)
            curve = curve_of("loss", [entry | {"step": every * n} for n, entry in entries], "loss")
            panels.append({"title": f"{name}: {shown}", "x": STEP, "y": LOSS, "curves": [curve]})
    return {"title": "The study's training losses", "note": NOTE, "columns": 2, "panels": panels}


PUBLISHED_FIGURES = {  # name -> the function that picks its numbers
    "published_perplexity": partial(_checkpoints, "The study's perplexity", PERPLEXITY, TEXTS),
    "published_rouge": partial(_checkpoints, "The study's ROUGE-L", SCORE, ROUGE),
    "published_training_loss": _training_loss,
}
