"""Draws the figures of a run and of the study: `run_figures` and `study_figures` pick the numbers, `plot` draws them.

The numbers of each figure are the content of one `<name>.json`. The picture is drawn from that file and nothing else,
so that every one can be rebuilt from the file beside it.
"""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from llama_qna import UserError
from llama_qna.project.files import digest, read_json
from llama_qna.project.stage import once
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.reporting import plot
from llama_qna.reporting.results import STAGES, of_stage, our_run, published_records
from llama_qna.reporting.run_figures import FIGURES, TRAINING
from llama_qna.reporting.study_figures import PUBLISHED_FIGURES

AROUND = 60  # points of a page above and below a mark


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
    folders = variant.stage_folders
    for stage, name in {"evaluate": "metrics", **dict.fromkeys(TRAINING.values(), "log")}.items():
        if not (folders[stage] / f"{name}.json").is_file():
            raise UserError(f"no {name} yet for {variant.name}: run `llama-qna {stage} {variant.name}` first")
    records = {stage: folders[stage] / "run.json" for stage in ("load", "generate", *TRAINING.values())}
    return _gathered(folders["evaluate"], records)


def committed_sources(root: Path, name: str) -> dict:
    """The same of the committed results of a variant."""
    return _gathered(root / name, published_records(root, name))


def _gathered(evaluation: Path, records: dict[str, Path]) -> dict:
    """Read all of it; a record or a `progress.json` that is not there is left out."""
    folders = {part: records[stage].parent for part, stage in TRAINING.items()}
    progress = {part: folder / "progress.json" for part, folder in folders.items()}
    return {
        "metrics": read_json(evaluation / "metrics.json"),
        "logs": {part: read_json(folder / "log.json") for part, folder in folders.items()},
        "progress": {part: read_json(path) for part, path in progress.items() if path.is_file()},
        "results": {stage: read_json(path)["results"] for stage, path in records.items() if path.is_file()},
    }


def numbers(sources: dict, about: str) -> dict[str, dict]:
    """The content of every `<name>.json` of a run, by name; a figure whose scores were not measured is left out.

    Args:
        sources: `metrics` (content of `metrics.json`), `logs` and `progress` (of each stage of training), and `results`
            (what the record of each stage says of itself), as `sources_of` reads them.
        about: model and text, for the notes below the figures.

    Raises:
        UserError: metrics of an older form, or without a stage.
    """
    run = our_run(sources["metrics"], sampled=True) | sources
    for stage in STAGES:
        of_stage(run, stage)
    made = {name: make(run) for name, make in FIGURES.items()}
    whose = f"{run['variant']}: {about}"
    return {name: found | {"note": f"{whose}; {found['note']}"} for name, found in made.items() if found}


def published_numbers(published: dict) -> dict[str, dict]:
    """The content of every `<name>.json` of the study's figures, by name."""
    return {name: make(published) for name, make in PUBLISHED_FIGURES.items()}


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
