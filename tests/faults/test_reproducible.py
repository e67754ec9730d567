"""The same recipe, seed, versions and machine give the same bytes, twice in a row, on a CPU."""

import pytest

from llama_qna.models.base import EMBEDDED
from tests.faults.harness import commands_fixture, results, tiny_folder_fixture, tiny_variant  # noqa: F401
from tests.fixtures_models import write_variant

STAGES = ("load", "generate", "pretrain", "finetune", "evaluate", "figures")


def all_stages(commands, variant, root):
    for stage in STAGES:
        status, said = commands.run(root, stage, variant.name)
        assert status == 0, said
    return results(variant)


def compare(first, second):
    assert sorted(first) == sorted(second) and len(first) > 20
    assert [name for name in first if first[name] != second[name]] == []
    kinds = ("chunks.csv", "qna.csv", "adapter_model.safetensors", "model.safetensors", "predictions.jsonl")
    assert all(any(name.endswith(kind) for name in first) for kind in (*kinds, "metrics.json", "log.json", ".png"))


@pytest.mark.slow
def test_every_stage_twice_gives_the_same_bytes(commands, tiny_folder, tmp_path):
    """On a tiny model, with dropout, replay and batches by length; two folders, two processes."""
    found = []
    for name in ("first", "second"):
        root = tmp_path / name
        root.mkdir()
        found.append(all_stages(commands, tiny_variant(root, tiny_folder), root))
    compare(*found)


@pytest.mark.slow
def test_the_embedded_model_twice_gives_the_same_bytes(commands, tmp_path):
    """The shipped model writes pairs about a page, learns them, and is scored."""
    found = []
    for name in ("first", "second"):
        root = tmp_path / name
        root.mkdir()
        variant = write_variant(root, EMBEDDED, batch_size=4)
        path = root / "small/variant.yaml"
        path.write_text(path.read_text().replace("qna_file: pairs.csv", "qna_file: null"))
        found.append(all_stages(commands, variant, root))
    compare(*found)
