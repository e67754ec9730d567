"""A run becomes the committed results: records, numbers, figures, notebooks, the README's tables; never weights."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from llama_qna import UserError
from llama_qna.models.lineage import checkpoints
from llama_qna.project.files import read_json, sha256, write_bytes, write_json, write_text
from llama_qna.project.provenance import place
from llama_qna.project.recipe import read_recipe
from llama_qna.project.stage import valid_record
from llama_qna.project.variant import REPOSITORY, Reader, Variant, variant_names
from llama_qna.repeat import read_seeds
from llama_qna.reporting.card import write_published_card
from llama_qna.reporting.reader import reader_block
from llama_qna.reporting.results import results_block, with_results_block, write_results_block
from llama_qna.run import NOTEBOOKS, default_variant

PROGRESS = "progress.json"  # notebooks 06 and 07 write it: a run without notebooks has none
# what is copied of each stage, with its name there
FILES = {
    "load": {"chunks.csv": "chunks.csv", "documents.json": "documents.json", "run.json": "load.run.json"},
    "generate": {"qna.csv": "qna.csv", "qna_rejected.csv": "qna_rejected.csv", "run.json": "generate.run.json"},
    "pretrain": {"log.json": "log.json", "run.json": "run.json", PROGRESS: PROGRESS},
    "finetune": {"log.json": "log.json", "run.json": "run.json", PROGRESS: PROGRESS},
    "finetune_only": {"log.json": "log.json", "run.json": "run.json"},
    "repeat": {
        "seeds.json": "seeds.json",
        "predictions.jsonl": "seeds.predictions.jsonl",
        "run.json": "seeds.run.json",
    },
    "evaluate": {"metrics.json": "metrics.json", "predictions.jsonl": "predictions.jsonl", "run.json": "run.json"},
}
WEIGHTS = "adapter_model.safetensors"


def publish(variant: Variant) -> list[Path]:
    """Copy what this machine has finished of a variant into the tracked folders.

    Everything is read and checked before the first file is copied, so that nothing is half published.

    Returns:
        The files written.

    Raises:
        UserError: nothing is finished, a finished stage lacks a file, or the README has no place for the results.
    """
    finished = {stage: folder for stage, folder in variant.stage_folders.items() if valid_record(folder, stage)}
    if not finished:
        raise UserError(f"nothing to publish for {variant.name}: run `llama-qna run {variant.name}` first")
    seeds, readme = read_seeds(variant), variant.root / "README.md"
    if not seeds:
        finished.pop("repeat", None)  # it is of another training than this run's
    copies = _copies(variant, finished)
    for source in copies:
        if not source.is_file():
            raise UserError(f"nothing was published: {variant.name} has no {source.parent.name}/{source.name}")
    if "evaluate" in finished:
        results = readme_results(variant.root, variant, seeds)
        with_results_block(readme, results)
    notebooks, seconds = _read_notebooks(variant)
    if "evaluate" in finished and not seeds:
        _remove_seeds(variant)
    written = [_copy(source, target) for source, target in copies.items()]
    if "figures" in finished:
        written += _publish_figures(variant)
    written += _publish_notebooks(variant, notebooks, seconds)
    if "evaluate" in finished:
        write_results_block(readme, results)
        written += [readme, write_published_card(variant.root, variant.name)]
    return written


def publish_reader(reader: Reader) -> dict:
    """Make what this machine trained the reader's own adapter, in 16 bits, and measure it.

    Returns:
        What `evaluation.reading.measure` found.

    Raises:
        UserError: the reader is not trained on this machine.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from llama_qna.evaluation.reading import measure

    folder = reader.stage_folders["read"]
    if not (folder / "run.json").is_file():
        raise UserError(f"nothing to publish for {reader.name}: run `llama-qna reader {reader.name}` first")
    record, trained = read_json(folder / "run.json"), checkpoints(folder)[-1]
    if sha256(trained / WEIGHTS) != record["outputs"][f"{trained.name}/{WEIGHTS}"]:
        raise UserError(f"{trained}: these are not the weights that the training wrote; train the reader again")
    reader.adapter.mkdir(exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(trained / WEIGHTS).items()}
    save_file(tensors, reader.adapter / WEIGHTS, metadata={"format": "pt"})
    _copy(trained / "adapter_config.json", reader.adapter / "adapter_config.json")
    _copy(folder / "log.json", reader.folder / "log.json")
    record |= {"outputs": {f"adapter/{WEIGHTS}": sha256(reader.adapter / WEIGHTS)}}
    write_json(reader.folder / "run.json", record)
    metrics = measure(reader, reader.folder)
    write_results_block(reader.folder / "README.md", reader_block(metrics))
    return metrics


def _copies(variant: Variant, finished: dict[str, Path]) -> dict[Path, Path]:
    """What is copied where to."""
    targets = dict.fromkeys(("load", "generate"), variant.root / "data" / variant.recipe.corpus)
    targets |= dict.fromkeys(("repeat", "evaluate"), variant.folder)
    return {
        folder / name: targets.get(stage, variant.folder / folder.name) / new_name
        for stage, folder in finished.items()
        for name, new_name in FILES.get(stage, {}).items()
        if name != PROGRESS or (folder / name).is_file()
    }


def _remove_seeds(variant: Variant) -> None:
    """Other seeds that were published before belong to another training than the one that is published now."""
    for name in FILES["repeat"].values():
        (variant.folder / name).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, source.read_bytes())
    return target


def _publish_figures(variant: Variant) -> list[Path]:
    from llama_qna.reporting import figures

    target = variant.root / "figs" / variant.name
    shutil.rmtree(target, ignore_errors=True)  # a figure that is drawn no more goes
    target.mkdir(parents=True)
    written = [_copy(path, target / path.name) for path in sorted(variant.figures.glob("*")) if path.name != "run.json"]
    return written + figures.draw_published(variant.root / "figs" / "published")


def readme_results(root: Path, fresh: Variant | None = None, fresh_seeds: dict | None = None) -> str:
    """The README's results block, from the published `metrics.json` and `seeds.json` of every variant that has them.

    A variant whose published metrics are of an older form is left out, and a line says so.

    Args:
        fresh: a variant that is about to be published: what its run measured counts, not what was published of it.
        fresh_seeds: content of the `seeds.json` of that run, if it has one.

    Raises:
        UserError: the metrics of `fresh` are of an older form, or no stage's are there.
    """
    published = _read_json(REPOSITORY / "data" / "published_results.json")
    metrics, abouts, seeds = {}, {}, {}
    for name in variant_names(root):
        is_fresh = fresh is not None and name == fresh.name
        folder = fresh.evaluation if is_fresh else root / name
        if not (folder / "metrics.json").is_file():
            continue
        content, machine = _read_json(folder / "metrics.json"), _read_json(folder / "run.json")["machine"]
        about = f"{read_recipe(root / name / 'variant.yaml').description}, {place(machine)}"
        try:
            results_block({name: content}, published, {name: about})
        except UserError as error:
            if is_fresh:
                raise
            print(f"left out of the README's results: {error}")
            continue
        metrics[name], abouts[name] = content, about
        found = folder / "seeds.json"
        if repeated := fresh_seeds if is_fresh else found.is_file() and _read_json(found):
            seeds[name] = repeated
    return results_block(metrics, published, abouts, seeds)


def _read_json(path: Path):
    try:
        return read_json(path)
    except (OSError, ValueError):
        raise UserError(f"{path.parent.name}/{path.name} is missing or damaged: it cannot be read as JSON") from None


def _read_notebooks(variant: Variant) -> tuple[dict[Path, dict], dict]:
    """The executed notebooks that name this variant themselves, by where they go, and the seconds that each took."""
    folder, found = variant.run / "notebooks", {}
    for path in sorted(folder.glob("*.ipynb")):
        target = NOTEBOOKS / path.name
        if target.is_file() and default_variant(target) == variant.name and not path.stem.endswith(".partial"):
            found[target] = tidy_notebook(_read_json(path))
    return found, _read_json(folder / "record.json") if (folder / "record.json").is_file() else {}


def _publish_notebooks(variant: Variant, notebooks: dict[Path, dict], seconds: dict) -> list[Path]:
    for target, content in notebooks.items():
        write_json(target, content)
    if not seconds:
        return list(notebooks)
    target = variant.folder / "notebooks.json"
    write_json(target, {name: {"seconds": entry["seconds"]} for name, entry in sorted(seconds.items())})
    _write_minutes(variant.root / "README.md", seconds)
    return [*notebooks, target]


def _write_minutes(readme: Path, seconds: dict) -> None:
    """Put the measured minutes into the README's table of notebooks: the cell after a notebook's description."""
    text = readme.read_text(encoding="utf-8")
    for name, entry in seconds.items():
        row = re.compile(rf"(\(notebooks/{re.escape(name)}\.ipynb\) \|[^|]*\|)[^|]*\|")
        text = row.sub(rf"\g<1> {entry['seconds'] / 60:.1f} min |", text)
    write_text(readme, text)


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
