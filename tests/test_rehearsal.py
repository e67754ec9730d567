"""A rehearsal with random weights: the model, the steps, what is reported. Real shapes are too large for tests."""

import json
from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit

from llama_qna import UserError, cli
from llama_qna.models import shapes
from llama_qna.models.device import GIB, device
from llama_qna.models.shapes import KNOWN, Shapes
from llama_qna.project.recipe import Quantization
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.training import rehearsal
from llama_qna.training.rehearsal import random_model, rehearse, table

SMALL = Shapes(2, 64, 128, 4, 4, 16, 512, False)


@pytest.fixture
def small_13b(tmp_path, monkeypatch):
    """The recipe of paper_13b on a small model of that name."""
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(REPOSITORY))
    monkeypatch.setitem(shapes.KNOWN, "meta-llama/Llama-2-13b-chat-hf", SMALL)
    return replace(Variant.load("paper_13b"), root=tmp_path)


def test_random_model_is_loaded_as_a_base_is():
    model = random_model(SMALL, Quantization(dequantize_once=True))
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 2 * 7
    for layer in layers:
        assert layer.weight.dtype is torch.uint8
        assert layer.dequantized.float().std().item() == pytest.approx(0.02, rel=0.1)
        assert not layer.support_avx512bf16_for_cpu
    assert not any(parameter.is_meta or parameter.requires_grad for parameter in model.parameters())
    assert model(torch.tensor([[3, 4, 5]])).logits.isfinite().all()


def test_no_matrix_is_kept_in_16_bits(monkeypatch):
    """Each is quantized before the next is drawn: what exists at once beside NF4 is one matrix."""
    import weakref

    alive, largest, quantize = [], [], Params4bit.to

    def watch(weight, *rest):
        if not weight.bnb_quantized:
            alive.append(weakref.ref(weight.data.untyped_storage()))
            largest.append(sum(storage() is not None for storage in alive))
        return quantize(weight, *rest)

    monkeypatch.setattr(Params4bit, "to", watch)
    random_model(SMALL, Quantization())
    assert len(largest) == 14 and max(largest) <= 1


def test_rehearsal_trains_generates_and_reports(small_13b, monkeypatch, capsys):
    written, write = [], rehearsal.continue_prompts
    monkeypatch.setattr(rehearsal, "continue_prompts", lambda *given, **how: written.extend(write(*given, **how)))
    found = rehearse(small_13b, 4 * GIB, rows=2, length=16)
    assert len(written) == 1 and not written[0].ended, "answers are written by what writes answers, to full length"
    assert found == json.loads((small_13b.run / "rehearsal.json").read_text())
    assert len(found["seconds_of_steps"]) == 2 and all(seconds > 0 for seconds in found["seconds_of_steps"])
    assert (found["rows"], found["length"], found["generated_tokens"]) == (2, 16, 8)
    assert found["peak"] > 0 and found["planned_peak"] == sum(found["parts"].values())
    assert found["batch"]["rows"] * found["batch"]["accumulation"] == 2
    assert "plan: pretraining: 2 rows of up to 16 tokens at once (steps of 2 rows)" in capsys.readouterr().out
    text = table(found)
    assert "the steps were shortened; the recipe's own: --rows 2 --length 1024" in text
    assert "peak, measured" in text and "two training steps of 2 x 16 tokens" in text
    assert not list(small_13b.run.glob("*/checkpoint-*"))


@pytest.mark.parametrize("option, value", [("--rows", "-1"), ("--rows", "0"), ("--length", "1")])
def test_rows_that_there_cannot_be_are_refused(option, value, small_13b, capsys):
    assert cli.main(["plan", "paper_13b", "--rehearse", option, value]) == 2
    assert f"{option} must be at least" in capsys.readouterr().err
    assert cli.main(["plan", "paper_13b", option, value]) == 2
    assert "--rows and --length belong to --rehearse" in capsys.readouterr().err


def test_rehearsal_that_does_not_fit_builds_nothing(small_13b, monkeypatch):
    monkeypatch.setitem(shapes.KNOWN, "meta-llama/Llama-2-13b-chat-hf", KNOWN["meta-llama/Llama-2-7b-chat-hf"])
    monkeypatch.setattr("llama_qna.training.rehearsal.random_model", lambda *_: pytest.fail("built"))
    with pytest.raises(UserError, match="Llama-2-13b-chat-hf does not fit"):
        rehearse(small_13b, 2 * GIB)


@pytest.mark.slow
def test_two_layers_of_7b_take_what_was_planned(small_13b, monkeypatch):
    """In a process of its own, since a peak cannot be taken back."""
    import subprocess
    import sys

    code = (
        "from dataclasses import replace; from pathlib import Path\n"
        "from llama_qna.models import shapes; from llama_qna.training import rehearsal\n"
        "from llama_qna.project.variant import Variant\n"
        "name = 'meta-llama/Llama-2-7b-chat-hf'\n"
        "shapes.KNOWN[name] = replace(shapes.KNOWN[name], layers=2)\n"
        f"found = rehearsal.rehearse(replace(Variant.load('paper_7b'), root=Path({str(small_13b.root)!r})))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True)
    found = json.loads((small_13b.root / "runs/paper_7b/rehearsal.json").read_text())
    assert found["planned_peak"] == pytest.approx(found["peak"], rel=0.1)
    assert device() != "cpu" or (found["rows"], found["length"]) == (1, 64)
