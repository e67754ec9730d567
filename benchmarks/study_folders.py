"""The study's variants, which we have not run: what it published of each stage, and what each card would take by plan.

python -m benchmarks.study_folders     writes <variant>/<stage>/published.json, the READMEs of these folders, and
                                       the table of cards in the variant's own README
"""

from __future__ import annotations

import json
from pathlib import Path

from llama_qna.models import cards
from llama_qna.project import marked
from llama_qna.project.files import read_json, write_text
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.text.tables import markdown

VARIANTS = ("paper_7b", "paper_13b", "physics_mk_books_7b")
STAGES = ("pretraining", "finetuning")
PUBLISHED = REPOSITORY / "data" / "published_results.json"
SPEED = {  # in `speed_on_one_l4`, by variant and stage
    ("paper_7b", "pretraining"): "pretraining_paper_total_s_for_182_steps_with_evaluations",
    ("paper_7b", "finetuning"): "finetuning_paper_total_s_for_385_steps_with_evaluations",
    ("physics_mk_books_7b", "pretraining"): "pretraining_physics_seconds_per_step_of_8x1024_tokens",
}


def published(variant: Variant, stage: str) -> dict:
    """What the study published of a stage; only what it has."""
    every, name = read_json(PUBLISHED), variant.name
    own = every["recipe"][name]
    found = {"about": "of data/published_results.json what belongs to this stage; measured on what was trained on"}
    found |= {"recipe": own[stage]} | ({"outcome": own["outcome"]} if "outcome" in own else {})
    found |= {"training_loss": every["training_loss"].get(name, {}).get(stage)}
    if stage == "pretraining":
        corpus = "physics" if name.startswith("physics") else "paper"
        scores = every["perplexity"]
        base = scores["base_model"][corpus] if name in scores else None
        found |= {"perplexity_of_the_base": base, "perplexity_by_step": scores.get(name)}
        found |= {"perplexity_of_wikitext2_by_step": scores.get(f"{name}_on_wikitext2")}
        found |= {"protocol": scores["protocol"] if name in scores else None}
    else:
        found |= {"rouge_by_step": every["rouge"].get(name)}
        found |= {"protocol": every["rouge"]["protocol"] if name in every["rouge"] else None}
    key = SPEED.get((name, stage))
    found |= {key: every["speed_on_one_l4"][key]} if key else {}
    return {key: value for key, value in found.items() if value is not None}


def readme(variant: Variant, stage: str) -> str:
    """The README of a stage's folder: the study's numbers, ours beside them where there are some."""
    found, folder = published(variant, stage), variant.folder / getattr(variant, stage).name
    log = folder / "log.json"
    ours = f"{read_json(log)[-1]['loss']:.2f}" if log.is_file() else "not run"
    scores = "in `../metrics.json`" if (variant.folder / "metrics.json").is_file() else "not run"
    rows = []
    if losses := found.get("training_loss"):
        rows.append(["training loss, last line of the log", f"{losses[-1]['loss']:.2f}", ours])
    if steps := found.get("perplexity_by_step"):
        rows.append(["perplexity of the base", f"{found['perplexity_of_the_base']:.2f}", scores])
        step, value = list(steps.items())[-1]
        printed = read_json(PUBLISHED)["perplexity"]["printed"].get(variant.name, {})
        rows.append([f"perplexity of the text after step {step}", printed.get(step, f"{value:.2f}"), scores])
    if steps := found.get("rouge_by_step"):
        step, value = list(steps.items())[-1]
        rows.append([f"ROUGE-L on training pairs after step {step}", f"{value['rougeL']:.3f}", scores])
    table = markdown(["figure", "the study", "ours"], rows) if rows else "The study reported no figure of this stage."
    return (
        f"# {variant.name}: {folder.name}\n\n"
        f"{table}\n\n"
        "- `published.json`: what the study published of this stage, all of it measured on what the model had been "
        "trained\n  on.\n"
        f"- After a run, `llama-qna publish {variant.name}` puts `run.json` (what was read, what it took and on which "
        "machine)\n  and `log.json` (step, epoch, loss, learning rate, gradient norm) beside it. Scores of all "
        "checkpoints go to\n  `metrics.json` in the folder above.\n\n"
        "Made by `python -m benchmarks.study_folders`.\n"
    )


def table(variant: Variant) -> str:
    """Memory and time by card for the variant's README."""
    head, *rows = cards.table(variant)
    return markdown(head, rows) + "\n"


def files(variant: Variant) -> dict[Path, str]:
    """The files of a variant's stage folders by their paths."""
    made = {}
    for stage in STAGES:
        folder = variant.folder / getattr(variant, stage).name
        made[folder / "README.md"] = readme(variant, stage)
        content = json.dumps(published(variant, stage), indent=1, ensure_ascii=False)
        made[folder / "published.json"] = content + "\n"
    return made


def write() -> None:
    for name in VARIANTS:
        variant = Variant.load(name)
        for path, text in files(variant).items():
            path.parent.mkdir(exist_ok=True)
            write_text(path, text)
        marked.write(variant.folder / "README.md", cards=table(variant))


if __name__ == "__main__":
    write()
