"""A run becomes the committed results: records, numbers, figures, notebooks, the tables of the pages; never weights."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from llama_qna import UserError
from llama_qna.models.lineage import READER, checkpoints
from llama_qna.project import marked
from llama_qna.project.files import read_json, read_lines, sha256, write_bytes, write_json
from llama_qna.project.provenance import place
from llama_qna.project.recipe import read_recipe
from llama_qna.project.stage import valid_record
from llama_qna.project.variant import REPOSITORY, Reader, Variant, variant_names
from llama_qna.repeat import read_seeds
from llama_qna.reporting import pages
from llama_qna.reporting.card import write_published_card
from llama_qna.reporting.reader import reader_block
from llama_qna.reporting.results import Run, our_run, results_block
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
        UserError: nothing is finished, a finished stage lacks a file, or a page has no place for the results.
    """
    finished = {stage: folder for stage, folder in variant.stage_folders.items() if valid_record(folder, stage)}
    if not finished:
        raise UserError(f"nothing to publish for {variant.name}: run `llama-qna run {variant.name}` first")
    seeds = read_seeds(variant)
    if not seeds:
        finished.pop("repeat", None)  # it is of another training than this run's
    copies = _copies(variant, finished)
    for source in copies:
        if not source.is_file():
            raise UserError(f"nothing was published: {variant.name} has no {source.parent.name}/{source.name}")
    if "evaluate" in finished:
        _check_pages(variant)
    notebooks = _notebooks(variant)
    if "evaluate" in finished and not seeds:  # those that were published before are of another training
        for name in FILES["repeat"].values():
            (variant.folder / name).unlink(missing_ok=True)
    written = [_copy(source, target) for source, target in copies.items()]
    if "figures" in finished:
        written += _publish_figures(variant)
    for target, content in notebooks.items():
        write_json(target, content)
    written += [*notebooks]
    if "evaluate" in finished:
        written += [*write_pages(variant.root), write_published_card(variant.root, variant.name)]
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
    marked.write(reader.folder / "README.md", results=reader_block(metrics))
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


def write_pages(root: Path) -> list[Path]:
    """Write the generated parts of README, docs/results.md and notebooks/README.md anew from what is published.

    Raises:
        UserError: a page lacks a mark, or a published file is missing or damaged.
    """
    texts = page_texts(root)
    for page, parts in texts.items():
        marked.write(root / page, **parts)
    return [root / page for page in texts]


def page_texts(root: Path) -> dict[str, dict[str, str]]:
    """Page -> name of a generated part -> its text; UserError where a published file is missing or damaged."""
    runs = published_runs(root)
    reader = REPOSITORY / READER
    metrics, answers = _read(reader / "metrics.json"), _read(reader / "predictions.jsonl")
    study = _read(REPOSITORY / "data" / "published_results.json")
    seconds = _published_seconds(root)
    return {
        "README.md": {
            "examples": pages.examples(answers),
            "results": pages.front(runs, metrics),
            "minutes": pages.minutes(runs, seconds),
        },
        "docs/results.md": {
            "found": pages.found(runs, metrics),
            "worth": pages.worth(runs, metrics),
            "results": results_block(runs, study),
            "samples": pages.samples(runs, answers),
        },
        "notebooks/README.md": {"minutes": pages.notebook_minutes(seconds)},
    }


def _check_pages(fresh: Variant) -> None:
    """That `write_pages` will find marks, whole files, and metrics of today's form, before anything is copied."""
    our_run(_read(fresh.evaluation / "metrics.json"))
    for page, parts in page_texts(fresh.root).items():
        for name in parts:
            marked.read(fresh.root / page, name)


def published_runs(root: Path) -> dict[str, Run]:
    """Variant -> what was published of it. One whose metrics are of an older form is left out, and a line says so.

    Raises:
        UserError: a published file is damaged.
    """
    runs = {}
    for name in variant_names(root):
        folder = root / name
        if not (folder / "metrics.json").is_file():
            continue
        metrics, recipe = _read(folder / "metrics.json"), read_recipe(folder / "variant.yaml")
        try:
            our_run(metrics)
        except UserError as error:
            print(f"left out of the pages: {error}")
            continue
        runs[name] = Run(
            metrics=metrics,
            about=f"{recipe.description}, {place(_read(folder / 'run.json')['machine'])}",
            corpus=recipe.corpus,
            answers=[row for row in _read(folder / "predictions.jsonl") if row["protocol"] == "test"],
            seeds=_read(folder / "seeds.json") if (folder / "seeds.json").is_file() else None,
        )
    return runs


def _published_seconds(root: Path) -> dict[str, dict[str, float]]:
    """Variant -> notebook -> the seconds of its published run."""
    return {
        path.parent.name: {name: entry["seconds"] for name, entry in _read(path).items()}
        for path in sorted(root.glob("*/notebooks.json"))
    }


def _read(path: Path):
    """The content of a published file of JSON, or of JSON Lines; UserError where it is missing or damaged."""
    try:
        return read_lines(path) if path.suffix == ".jsonl" else read_json(path)
    except (OSError, ValueError):
        raise UserError(f"{path.parent.name}/{path.name} is missing or damaged: it cannot be read as JSON") from None


def _notebooks(variant: Variant) -> dict[Path, dict]:
    """What is published of the executed notebooks, by where it goes: each of them, and the seconds that they took.

    Those that name this variant themselves become the course, the others stand in the variant's own folder.
    """
    folder, found = variant.run / "notebooks", {}
    for path in sorted(folder.glob("*.ipynb")):
        course = NOTEBOOKS / path.name
        if course.is_file():  # there is none for a `*.partial.ipynb`
            of_course = default_variant(course) == variant.name
            found[course if of_course else variant.folder / "notebooks" / path.name] = tidy_notebook(_read(path))
    if (folder / "record.json").is_file():
        record = _read(folder / "record.json")
        seconds = {name: {"seconds": entry["seconds"]} for name, entry in sorted(record.items())}
        found[variant.folder / "notebooks.json"] = seconds
    return found


def tidy_notebook(notebook: dict) -> dict:
    """Drop what execution leaves behind: times, papermill's marks, warnings, all but the last state of bars."""
    notebook["metadata"] = {key: notebook["metadata"][key] for key in ("kernelspec",) if key in notebook["metadata"]}
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                output["text"] = _tidy_text(output)
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if output.get("text") != ""]
    return notebook


def _tidy_text(output: dict) -> str:
    text = re.sub(r"\r+\n?$", "\n", "".join(output["text"]))
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    if output["name"] == "stderr":
        lines = [line for line in lines if "100%|" in line]
    return "".join(f"{line}\n" for line in lines if line)
