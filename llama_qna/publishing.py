"""A run becomes the committed results: records, numbers, figures, notebooks, the README's tables; never weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from llama_qna import UserError, records
from llama_qna.model_cards import write_published_card
from llama_qna.runs import NOTEBOOKS, default_variant
from llama_qna.variants import REPOSITORY, Variant, read_recipe, variant_names

# what is copied of each stage, and where to
FILES = {
    "load": ["chunks.csv", "documents.json"],
    "generate": ["qna.csv", "qna_rejected.csv"],
    "pretrain": ["log.json"],
    "finetune": ["log.json"],
    "finetune_only": ["log.json"],
    "evaluate": ["metrics.json", "predictions.jsonl"],
}


def publish(variant: Variant) -> list[Path]:
    """Copy what this machine has finished of a variant into the tracked folders.

    Returns:
        The files written.

    Raises:
        UserError: nothing is finished.
    """
    finished = {stage: folder for stage, folder in variant.stage_folders.items() if records.valid_record(folder, stage)}
    if not finished:
        raise UserError(f"nothing to publish for {variant.name}: run `llama-qna run {variant.name}` first")
    data = variant.root / "data" / variant.recipe.corpus
    written = []
    for stage, source in finished.items():
        if stage == "figures":
            continue
        on_data = stage in ("load", "generate")
        target = data if on_data else variant.folder if stage == "evaluate" else variant.folder / source.name
        target.mkdir(parents=True, exist_ok=True)
        written += [_copy(source / name, target / name) for name in FILES[stage]]
        written.append(_copy(source / "run.json", target / (f"{stage}.run.json" if on_data else "run.json")))
    if "figures" in finished:
        written += _publish_figures(variant)
    written += _publish_notebooks(variant)
    if "evaluate" in finished:
        written += [_publish_results(variant.root), write_published_card(variant.root, variant.name)]
    return written


def _copy(source: Path, target: Path) -> Path:
    shutil.copyfile(source, target)
    return target


def _publish_figures(variant: Variant) -> list[Path]:
    from llama_qna import figures

    target = variant.root / "figs" / variant.name
    shutil.rmtree(target, ignore_errors=True)  # a figure that is drawn no more goes
    target.mkdir(parents=True)
    written = [_copy(path, target / path.name) for path in sorted(variant.figures.glob("*")) if path.name != "run.json"]
    return written + figures.draw_published(variant.root / "figs" / "published")


def _publish_results(root: Path) -> Path:
    from llama_qna.results import write_results_block

    readme = root / "README.md"
    write_results_block(readme, readme_results(root))
    return readme


def readme_results(root: Path) -> str:
    """The README's results block, from the published `metrics.json` of every variant that has one."""
    from llama_qna.results import results_block

    metrics, abouts = {}, {}
    for name in variant_names(root):
        if (root / name / "metrics.json").is_file():
            metrics[name] = _read_json(root / name / "metrics.json")
            machine = _read_json(root / name / "run.json")["machine"]
            ran_on = machine["gpu"] or f"{machine['cores']} CPU cores"
            abouts[name] = f"{read_recipe(root / name / 'variant.yaml').description}, {ran_on}"
    return results_block(metrics, _read_json(REPOSITORY / "data" / "published_results.json"), abouts)


def _read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def _publish_notebooks(variant: Variant) -> list[Path]:
    """The executed notebooks, those that name this variant themselves, and the seconds that each took."""
    written, folder = [], variant.run / "notebooks"
    for path in sorted(folder.glob("*.ipynb")):
        target = NOTEBOOKS / path.name
        if target.is_file() and default_variant(target) == variant.name and not path.stem.endswith(".partial"):
            records.write_json(target, tidy_notebook(_read_json(path)))
            written.append(target)
    if (folder / "record.json").is_file():
        seconds = _read_json(folder / "record.json")
        target = variant.folder / "notebooks.json"
        records.write_json(target, {name: {"seconds": entry["seconds"]} for name, entry in sorted(seconds.items())})
        written.append(target)
        _write_minutes(variant.root / "README.md", seconds)
    return written


def _write_minutes(readme: Path, seconds: dict) -> None:
    """Put the measured minutes into the README's table of notebooks: the cell after a notebook's description."""
    text = readme.read_text(encoding="utf-8")
    for name, entry in seconds.items():
        row = re.compile(rf"(\(notebooks/{re.escape(name)}\.ipynb\) \|[^|]*\|)[^|]*\|")
        text = row.sub(rf"\g<1> {entry['seconds'] / 60:.1f} min |", text)
    readme.write_text(text, encoding="utf-8")


def tidy_notebook(notebook: dict) -> dict:
    """Drop what execution leaves behind: times, papermill's marks, warnings, all but the last state of bars."""
    notebook["metadata"] = {key: notebook["metadata"][key] for key in ("kernelspec",) if key in notebook["metadata"]}
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        outputs = []
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                text = "".join(output["text"])
                lines = [line.rsplit("\r", 1)[-1].rstrip() for line in re.sub(r"\r+\n?$", "\n", text).split("\n")]
                if output["name"] == "stderr":
                    lines = [line for line in lines if "100%|" in line]
                output["text"] = "".join(f"{line}\n" for line in lines if line)
                if not output["text"]:
                    continue
            outputs.append(output)
        if "outputs" in cell:
            cell["outputs"] = outputs
    return notebook
