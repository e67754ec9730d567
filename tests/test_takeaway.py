"""Tests of llama_qna/serving/exports.py: what an export holds answers as what was measured, loaded again for real."""

import gc
import json
import weakref
from dataclasses import replace

import pytest
import torch

from llama_qna.models import adapters, planning, prompts
from llama_qna.models.base import load_base
from llama_qna.project.files import sha256
from llama_qna.project.recipe import Quantization
from llama_qna.project.variant import REPOSITORY
from llama_qna.serving import exports
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture, tokenizer  # noqa: F401
from tests.fixtures_takeaway import QUESTION, TESTED, merged_fixture, read, trained_fixture  # noqa: F401


def answers_by_transformers(folder, model, question):
    """As a user asks who has transformers and the folder, and nothing of ours."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    asked = [{"role": "user", "content": question}]
    inputs = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return theirs.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_merged_model_answers_as_the_measured_one(trained, merged):
    record = read(merged)
    (check,) = record["checks"]
    assert [row["question"] for row in check["answers"]] == TESTED
    assert (check["same"], check["rougeL"]) == (len(TESTED), 1.0)
    assert merged == trained("continue").run / "exports" / "merged"
    assert not list(merged.parent.glob("*.partial*"))
    assert record["files"] == {path.name: sha256(path) for path in merged.iterdir() if path.name != "export.json"}


def test_merged_weights_are_those_of_nf4_and_the_adapter(trained, merged):
    """Bit-equal to the 16-bit copies that the measured model computes with, and not the base's own."""
    variant = trained("continue")
    recipe = variant.recipe
    assert recipe.quantization.dequantize_once
    measured = load_base(recipe.base_model, recipe.quantization)
    measured = adapters.attach_adapter(measured, variant.finetuning / "checkpoint-3").get_base_model()
    found, base = load_base(str(merged), None), load_base(recipe.base_model, None)
    for part in ("self_attn.q_proj", "mlp.down_proj"):
        name = f"model.layers.1.{part}"
        assert torch.equal(found.get_submodule(name).weight, measured.get_submodule(name).base_layer.dequantized)
        assert not torch.equal(found.get_submodule(name).weight, base.get_submodule(name).weight)
    assert torch.equal(found.model.norm.weight, base.model.norm.weight)


def test_merged_weights_are_loaded_in_the_recipes_type(trained, monkeypatch):
    """A card that has bfloat16 too would round a float16 base to it."""
    variant, seen = trained("continue"), []
    quantization = variant.recipe.quantization.model_copy(update={"compute_dtype": "float16"})
    variant = replace(variant, recipe=variant.recipe.model_copy(update={"quantization": quantization}))
    measured = load_base(variant.recipe.base_model, quantization)
    measured = adapters.attach_adapter(measured, variant.finetuning / "checkpoint-3")
    monkeypatch.setattr(exports, "load_base", lambda name, how, **at: seen.append(how) or load_base(name, how, **at))
    exports.merged_model(variant, measured)
    assert [(how.bits, how.compute_dtype) for how in seen] == [(16, "float16")]


def test_merged_folder_needs_nothing_of_ours(merged):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(merged, dtype="auto")
    assert model.dtype is torch.bfloat16
    rows = read(merged)["checks"][0]["answers"]
    assert [answers_by_transformers(merged, model, row["question"]) for row in rows] == [r["exported"] for r in rows]


@pytest.mark.parametrize("stacking", ["continue", "merge"])
def test_adapter_is_one_for_the_base_itself(stacking, trained):
    """In float32, where rounding hides nothing: base + exported adapter = what fine-tuning trained."""
    variant = trained(stacking)
    folder = exports.export(variant, "adapter")
    names = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"}
    assert names <= {path.name for path in folder.iterdir()}
    base = variant.recipe.base_model
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == (base, {"continue": 8, "merge": 16}[stacking])
    start = base if stacking == "continue" else variant.pretraining / "merged"
    ids = torch.tensor([prompts.question_ids(tokenizer(), QUESTION)])
    with torch.no_grad():
        wanted = adapters.attach_adapter(load_base(str(start), None).float(), variant.finetuning / "checkpoint-3")
        found = adapters.attach_adapter(load_base(base, None).float(), folder)
        plain = load_base(base, None).float()
        wanted, found, plain = (model(ids).logits for model in (wanted, found, plain))
    effect = (plain - wanted).abs().max()
    rounded = 0.0 if stacking == "continue" else 0.1 * effect  # merging rounded the weights below to bfloat16
    assert (found - wanted).abs().max() <= rounded + 1e-4 and effect > 1
    checks = read(folder)["checks"]
    assert [check["loaded"] for check in checks] == ["on the base in NF4", "on the base in 16 bits"]
    if stacking == "continue":
        assert checks[0]["same"] == len(TESTED)


@pytest.mark.parametrize(("to", "loaded"), [("adapter", "on the base in 16 bits"), ("merged", "loaded in 16 bits")])
def test_a_model_that_was_measured_in_16_bits_is_called_so(to, loaded, trained, tmp_path):
    variant = trained("continue")
    quantization = Quantization(bits=16, dequantize_once=True)
    variant = replace(variant, recipe=variant.recipe.model_copy(update={"quantization": quantization}))
    folder = exports.export(variant, to, tmp_path / to)
    (check,) = read(folder)["checks"]
    assert (check["loaded"], check["same"]) == (loaded, len(TESTED))
    assert check["against"] == "the model that was measured, the adapter on the base in 16 bits"


def test_models_are_loaded_one_at_a_time_and_what_does_not_fit_is_left_out(trained, tmp_path, monkeypatch, capsys):
    """A stand-in for a card that has room for the base in NF4 alone: nothing else lives when a model is loaded."""
    loaded, load = [], exports.load_base

    def alone(*arguments, **options):
        gc.collect()
        assert options.get("on") == "cpu" or all(model() is None for model in loaded), "another model is in memory"
        model = load(*arguments, **options)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(exports, "load_base", alone)
    monkeypatch.setattr(exports.planning, "fits", lambda base, quantization: quantization is not None)
    folder = exports.export(trained("continue"), "adapter", tmp_path / "adapter")
    assert [check["loaded"] for check in read(folder)["checks"]] == ["on the base in NF4"]
    assert "adapter: not asked on the base in 16 bits" in capsys.readouterr().out
    assert read(exports.export(trained("continue"), "merged", tmp_path / "merged"))["checks"] == []
    assert (tmp_path / "merged" / "README.md").is_file()


@pytest.mark.parametrize(("gib", "fits"), [(22, (True, False)), (30, (True, True)), (6, (False, False))])
def test_what_fits_is_told_by_the_plan(gib, fits, monkeypatch):
    monkeypatch.setattr(planning, "kind_of_device", lambda: "cuda")
    monkeypatch.setattr(planning, "available_memory", lambda kind: gib * 2**30)
    thirteen = "meta-llama/Llama-2-13b-chat-hf"
    assert (planning.fits(thirteen, Quantization()), planning.fits(thirteen, None)) == fits


def test_card_of_an_export_says_what_it_was_checked_for(merged):
    card = (merged / "README.md").read_text()
    text = f"loaded in 16 bits: {len(TESTED)} of {len(TESTED)} greedy answers are those of the model that was measured"
    assert text in card
    assert "has not been evaluated" in card and "model-index" not in card
    assert exports.read_checks(merged)[0].startswith(text)


def test_without_gold_questions_those_trained_on_are_asked(shallow_variant):
    assert exports._questions(shallow_variant)[0] == "What did the first test show?"


@pytest.mark.slow
@pytest.mark.skipif(not (REPOSITORY / ".gguf").exists(), reason="needs `make gguf`")
def test_llama_cpp_answers_from_the_file(trained, tmp_path):
    import gguf

    folder = exports.export(trained("continue"), "ollama", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"small-q8_0.gguf", "Modelfile", "README.md", "export.json"}
    fields = gguf.GGUFReader(folder / "small-q8_0.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == exports.template_with_start(tokenizer())
    (check,) = read(folder)["checks"]
    assert check["loaded"].startswith("in llama.cpp") and len(check["answers"]) == len(TESTED)
    assert all(row["exported"] for row in check["answers"])
