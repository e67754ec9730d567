"""A variant is a folder with one `variant.yaml`, the whole recipe of a model; this module knows where its files lie.

Committed files (recipe, published results) and the files of a run on this machine never share a folder: a run writes
below `runs/<variant>/`, which git ignores, and `llama-qna publish` copies its records over (see `publish`).
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llama_qna import UserError
from llama_qna.project.recipe import ReaderRecipe, Recipe, read_recipe

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Variant:
    """A recipe with its name and its place."""

    name: str
    root: Path
    recipe: Recipe

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

    @cached_property
    def folder(self) -> Path:
        """The committed folder: recipe and published results."""
        return self.root / self.name

    @cached_property
    def run(self) -> Path:
        """What this machine makes of the variant."""
        return self.root / "runs" / self.name

    @cached_property
    def learns_to_read(self) -> bool:
        """Whether fine-tuning shows passages, so that its model answers from them as a reader does."""
        return self.recipe.finetuning.passages is not None

    @cached_property
    def pdfs(self) -> Path:
        return self.root / "data" / "pdfs" / self.recipe.corpus

    @cached_property
    def gold(self) -> Path:
        return self.root / "data" / self.recipe.corpus / "gold.csv"

    @cached_property
    def unanswerable(self) -> Path:
        return self.gold.with_name("unanswerable.csv")

    @cached_property
    def chunks(self) -> Path:
        return self.run / "chunks"

    @cached_property
    def qna(self) -> Path:
        return self.run / "qna"

    @cached_property
    def pretraining(self) -> Path:
        return self.run / self.recipe.pretraining.folder

    @cached_property
    def finetuning(self) -> Path:
        return self.run / self.recipe.finetuning.folder

    @cached_property
    def finetuning_only(self) -> Path:
        return self.run / f"{self.recipe.finetuning.folder}_only"

    @cached_property
    def repeats(self) -> Path:
        return self.run / "repeats"

    @cached_property
    def evaluation(self) -> Path:
        return self.run / "evaluation"

    @cached_property
    def figures(self) -> Path:
        return self.run / "figs"

    @cached_property
    def stage_folders(self) -> dict[str, Path]:
        """The stages in the order of the data, each with the folder that it writes."""
        return {
            "load": self.chunks,
            "generate": self.qna,
            "pretrain": self.pretraining,
            "finetune": self.finetuning,
            "finetune_only": self.finetuning_only,  # for comparison, where it is asked for
            "repeat": self.repeats,  # with other seeds, likewise
            "evaluate": self.evaluation,
            "figures": self.figures,
        }


@dataclass(frozen=True)
class Reader:
    """A base model's skill of reading: a recipe, its place, and the adapter that it made, which is committed."""

    name: str
    root: Path
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

    @cached_property
    def folder(self) -> Path:
        """The committed folder: recipe, adapter and what it was measured to do."""
        return self.root / self.name

    @cached_property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @cached_property
    def run(self) -> Path:
        return root_in_use() / "runs" / self.name

    @cached_property
    def examples(self) -> Path:
        return self.root / "data" / "reading"

    @cached_property
    def stage_folders(self) -> dict[str, Path]:
        return {"read": self.run / self.recipe.finetuning.folder}


def root_in_use() -> Path:
    """The folder that LLAMA_QNA_ROOT names, or without it this repository."""
    return Path(os.environ.get("LLAMA_QNA_ROOT", REPOSITORY)).resolve()


def variant_names(root: Path) -> list[str]:
    """Every folder directly below `root` that holds a `variant.yaml`."""
    return sorted(path.parent.name for path in root.glob("*/variant.yaml"))
