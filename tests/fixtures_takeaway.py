"""What the tests of exports share: random adapters on the embedded model's first layers, and one export of them."""

import json
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from llama_qna.documents.chunks import load
from llama_qna.models import adapters
from llama_qna.models.base import load_base
from llama_qna.serving import exports
from tests.fixtures_models import GOLD, write_variant

QUESTION = "What is the traffic of a stage?"
TESTED = [row[1] for row in GOLD if row[6] == "test"]


def random_adapter(base, folder, seed):
    """An adapter that changes what the base says, saved as a checkpoint of a stage."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = get_peft_model(load_base(str(base), None), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(folder)
    return folder


@cache
def _trained(root: Path, base: Path, stacking: str):
    variant = write_variant(root / stacking, str(base), {"stacking": stacking})
    load(variant)
    first = random_adapter(base, variant.pretraining / "checkpoint-3", 1)
    if stacking == "merge":
        base = adapters.merge_adapter(str(base), variant.recipe.quantization, first, variant.pretraining / "merged")
    random_adapter(base, variant.finetuning / "checkpoint-3", 2)
    return variant


@pytest.fixture(scope="session", name="trained")
def trained_fixture(shallow_folder, tmp_path_factory):
    """Make a variant that looks trained: `trained("continue")`, with gold questions about its one page."""
    return partial(_trained, tmp_path_factory.getbasetemp() / "trained", shallow_folder)


@pytest.fixture(scope="session", name="merged")
def merged_fixture(trained):
    """Its export, whole; the second file that asks finds it written. None may change it."""
    return exports.export(trained("continue"), "merged")


def read(folder):
    return json.loads((folder / exports.RECORD).read_text())
