"""A variant is a folder with one `variant.yaml`, the whole recipe of a model; this module knows where its files lie.

Committed files (recipe, published results) and the files of a run on this machine never share a folder: a run writes
below `runs/<variant>/`, which git ignores, and `llama-qna publish` copies its records over (see `publish`).
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from llama_qna import UserError
from llama_qna.project.recipe import ReaderRecipe, Recipe, read_recipe

REPOSITORY = Path(__file__).resolve().parents[2]
# of each training, the part of the recipe that it follows
SETTINGS = {"read": "finetuning", "pretrain": "pretraining", "finetune": "finetuning", "finetune_only": "finetuning"}


@dataclass
class Variant:
    """A recipe with its name and its place, and where all its files lie."""

    name: str
    root: Path
    recipe: Recipe
    repeats_another: bool = False  # with its chunks and pairs, another seed, and a folder of its own for the rest

    @classmethod
    def load(cls, name: str) -> Variant:
        """Read `variant.yaml` in the folder of that name.

        Raises:
            UserError: no such variant, YAML that cannot be read, or a recipe with an unknown key or a bad value.
        """
        root = root_in_use()
        name = os.path.normpath(name)  # a shell completes a folder with a slash
        if Path(name).name != name or name in ("", ".", "..", "runs"):
            raise UserError(f"a variant is named by its folder beside README.md, such as paper_135m; not {name!r}")
        path = root / name / "variant.yaml"
        if not path.is_file():
            known = variant_names(root)
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
            raise UserError(f"there is no variant {name!r} (no {name}/variant.yaml); {hint}")
        return cls(name, root, read_recipe(path))

    def __post_init__(self):
        recipe = self.recipe
        self.folder = self.root / self.name  # committed: recipe and published results
        self.pdfs = self.root / "data" / "pdfs" / recipe.corpus
        self.gold = self.root / "data" / recipe.corpus / "gold.csv"
        self.unanswerable = self.gold.with_name("unanswerable.csv")
        # fine-tuning shows passages, so that its model answers from them as a reader does
        self.learns_to_read = recipe.finetuning.passages is not None
        run = self.root / "runs" / self.name  # what this machine makes of the variant
        self.chunks = run / "chunks"
        self.qna = run / "qna"
        self.run = run / "seeds" / str(recipe.seed) if self.repeats_another else run
        self.pretraining = self.run / recipe.pretraining.folder
        self.finetuning = self.run / recipe.finetuning.folder
        self.finetuning_only = self.run / f"{recipe.finetuning.folder}_only"
        self.repeats = self.run / "repeats"
        self.evaluation = self.run / "evaluation"
        self.figures = self.run / "figs"
        self.stage_folders = {  # the stages in the order of the data, each with the folder that it writes
            "load": self.chunks,
            "generate": self.qna,
            "pretrain": self.pretraining,
            "finetune": self.finetuning,
            "finetune_only": self.finetuning_only,  # for comparison, where it is asked for
            "repeat": self.repeats,  # with other seeds, likewise
            "evaluate": self.evaluation,
            "figures": self.figures,
        }

    def again(self, stage: str) -> str:
        """The command that does a stage, or goes on with one that was stopped."""
        if self.repeats_another:
            return f"llama-qna repeat {self.name} --seeds {self.recipe.seed}"
        return f"llama-qna {stage.replace('finetune_only', 'finetune --without-pretraining')} {self.name}"


@dataclass
class Reader:
    """A base model's skill of reading: a recipe, its place, and the adapter that it made, which is committed."""

    name: str
    home: Path  # the repository, where it is committed
    recipe: ReaderRecipe

    @classmethod
    def load(cls, name: str) -> Reader:
        """Read `reader.yaml` in the folder of that name.

        Raises:
            UserError: there is none, or it is no recipe of a reader.
        """
        path = REPOSITORY / name / "reader.yaml"
        if Path(name).name != name or not path.is_file():
            raise UserError(f"there is no reader {name!r} (no {name}/reader.yaml)")
        return cls(name, REPOSITORY, read_recipe(path, ReaderRecipe))

    def __post_init__(self):
        self.folder = self.home / self.name  # committed: recipe, adapter and what it was measured to do
        self.adapter = self.folder / "adapter"
        self.root = root_in_use()
        self.run = self.root / "runs" / self.name
        self.stage_folders = {"read": self.run / self.recipe.finetuning.folder}

    def again(self, stage: str) -> str:
        """As that of `Variant`."""
        return f"llama-qna reader {self.name}"


def root_in_use() -> Path:
    """The folder that LLAMA_QNA_ROOT names, or without it this repository."""
    return Path(os.environ.get("LLAMA_QNA_ROOT", REPOSITORY)).resolve()


def variant_names(root: Path) -> list[str]:
    """Every folder directly below `root` that holds a `variant.yaml`."""
    return sorted(path.parent.name for path in root.glob("*/variant.yaml"))
