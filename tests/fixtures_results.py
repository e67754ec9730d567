"""What the tests of results share: a root with two published variants, and the tables of a page."""

import json
import shutil

import pytest

from llama_qna.project.variant import REPOSITORY
from tests import fixtures_metrics as made_up


@pytest.fixture(name="root")
def root_fixture(tmp_path):
    """A root with two published variants and a recipe that nothing was published of."""
    for name in ("paper_135m", "physics_books_135m", "paper_7b"):
        (tmp_path / name).mkdir()
        shutil.copy(REPOSITORY / name / "variant.yaml", tmp_path / name)
    for name, machine in (("paper_135m", {"gpu": None, "cores": 2}), ("physics_books_135m", {"gpu": "L4", "cores": 8})):
        (tmp_path / name / "metrics.json").write_text(json.dumps(made_up.metrics(name)))
        (tmp_path / name / "run.json").write_text(json.dumps({"machine": machine}))
        (tmp_path / name / "predictions.jsonl").write_text("")
    made_up.pages(tmp_path)
    return tmp_path


def tables(text):
    """The Markdown tables of a text: a list of rows each, each row a list of cells."""
    parts = [part for part in text.split("\n\n") if part.startswith("|")]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()] for part in parts]
