"""Tables for the terminal and the notebooks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pandas as pd

from llama_qna import UserError
from llama_qna.project.files import read_json
from llama_qna.project.provenance import place
from llama_qna.project.recipe import read_recipe
from llama_qna.project.stage import seconds_of
from llama_qna.project.variant import variant_names
from llama_qna.reporting.results import HELDOUT, ROUGE, TEXTS, asked_of, cells, is_generated, our_run, seeds_rows
from llama_qna.text.tables import aligned


def checkpoints_table(metrics: dict):
    """One row a checkpoint: perplexities, ROUGE on the training questions, ROUGE-L on the gold dev questions if any."""
    rows = []
    for found in our_run(metrics)["checkpoints"]:
        row = {"checkpoint": found["name"]}
        row |= {f"perplexity, {name}": round(found[text], 2) for text, name in TEXTS.items() if text in found}
        row |= {column: round(found[key], 3) for key, column in ROUGE.items()}
        rows.append(row | ({"ROUGE-L, dev": round(found["dev"], 3)} if "dev" in found else {}))
    return pd.DataFrame(rows)


def systems_table(metrics: dict):
    """One row a system: what leads on the test questions, and ROUGE-L, each with its 95% interval.

    The first column says where the questions are from if nobody has checked them; the last, where a model judged the
    answers, which share it found right and partly right.
    """
    columns = {key: f"{HELDOUT[key]} [95% interval]" for key in ("right", "new_words_f1", "rougeL")}
    head = [f"system, on {asked_of(metrics)}" if is_generated(metrics) else "system", *columns.values()]
    systems = metrics.get("systems") or []
    rows = [[system["label"], *cells(system["scores"], columns)] for system in systems]
    if judge := metrics.get("judge"):
        head.append(f"{judge['model']}: right + partly")
        for row, system in zip(rows, systems, strict=True):
            row.append(f"{system['judged']['right']:.3f} + {system['judged']['partly']:.3f}")
    return pd.DataFrame(rows, columns=head)


def seeds_table(content: dict):
    """One row a seed, then mean and standard deviation; a column a score. `content`: that of `seeds.json`."""
    head, *rows = seeds_rows(content)
    return pd.DataFrame(rows, columns=head)


def times_table(root: Path, stage: str):
    """One row a variant: the minutes that a stage of training took on a CPU and on a GPU, by its committed record.

    A variant that cannot be read is left out.

    Args:
        root: the folder of the variants.
        stage: `pretraining` or `finetuning`.
    """
    rows = {}
    for name in variant_names(root):
        with suppress(UserError, OSError, ValueError, KeyError, TypeError):  # of its recipe, and of its record
            rows[name] = _times(root / name, stage)
    return pd.DataFrame(rows).T


def _times(folder: Path, stage: str) -> dict[str, str]:
    recipe = read_recipe(folder / "variant.yaml")
    row = {"base model": recipe.base_model.split("/")[-1]}
    row |= {"CPU, minutes": "not measured", "GPU, minutes": "not measured"}
    record = folder / getattr(recipe, stage).folder / "run.json"
    if record.is_file():
        found = read_json(record)
        device = "GPU" if found["machine"]["gpu"] else "CPU"
        row[f"{device}, minutes"] = f"{seconds_of(found) / 60:.1f} ({place(found['machine'])})"
    return row


def as_text(table) -> str:
    """A table of words for the terminal, its columns flush left."""
    return aligned([list(table.columns), *table.to_numpy().tolist()])
