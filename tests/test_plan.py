"""The plan of a training stage: shapes, memory by part, what is chosen, and what it refuses."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from llama_qna import UserError, machine, models, plan, planning, shapes
from llama_qna.machine import GIB
from llama_qna.plan import Batch
from llama_qna.recipes import Quantization
from llama_qna.shapes import KNOWN, Shapes, shapes_of
from llama_qna.training import finetune, pretrain
from llama_qna.variants import REPOSITORY, Variant
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, shallow_variant_fixture  # noqa: F401

SMALL = Shapes(2, 64, 128, 4, 2, 16, 512, False)
SHIPPED = ["paper_135m", "physics_books_135m"]


@pytest.fixture(autouse=True)
def repository_root(monkeypatch):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(REPOSITORY))


# --- shapes ----------------------------------------------------------------------------------------------------------


def test_known_shapes_have_the_published_numbers_of_weights():
    """6.74 and 13.02 billion by the models' cards; the embedded model's are in its file."""
    counts = {name.rsplit("/")[-1]: found.linear_weights + found.other_weights for name, found in KNOWN.items()}
    assert counts["Llama-2-7b-chat-hf"] == 6_738_415_616
    assert counts["Llama-2-13b-chat-hf"] == 13_015_864_320
    with safe_open(models.EMBEDDED_FOLDER / "model.safetensors", "pt") as file:
        stored = sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())
    assert counts["smollm2-135m-instruct"] == stored


def test_shapes_are_those_of_the_config_file(shallow_folder):
    found, source = shapes_of(str(shallow_folder))
    assert found == replace(KNOWN[models.EMBEDDED], layers=2)
    assert source == "config.json of the model"
    assert shapes_of(models.EMBEDDED)[0] == KNOWN[models.EMBEDDED]


def test_unknown_shapes_are_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="base_model someone/else: its shapes are not known without the hub"):
        shapes_of("someone/else")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64}))
    with pytest.raises(UserError, match="config.json is not that of a Llama"):
        shapes_of(str(tmp_path))


def test_adapter_targets_that_a_llama_does_not_have():
    lora = Variant.load("paper_7b").recipe.lora.model_copy(update={"target_modules": ["query_key_value"]})
    with pytest.raises(UserError, match="a Llama layer has no query_key_value"):
        SMALL.targets(lora)


# --- memory by part --------------------------------------------------------------------------------------------------


def small_model(lora, quantization):
    from peft import get_peft_model

    from llama_qna.rehearsal import random_model

    model = get_peft_model(random_model(SMALL, quantization), models.lora_config(lora)).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    return model


def recipe_with(**lora):
    recipe = Variant.load("paper_135m").recipe
    return recipe.model_copy(update={"lora": recipe.lora.model_copy(update={"r": 8} | lora)})


@pytest.mark.parametrize("double", [False, True])
def test_weights_are_counted_as_they_are_stored(double):
    recipe = recipe_with().model_copy(update={"quantization": Quantization(double_quantization=double)})
    model = small_model(recipe.lora, recipe.quantization)
    parts = plan.memory(SMALL, recipe, recipe.pretraining, Batch(1, 8, 1, False), "cpu")
    stored = {"weights, NF4": 0, "weights, 16-bit (embedding, head, norms)": 0, "adapters": 0}
    for parameter in model.parameters():
        kind = "adapters" if parameter.requires_grad else "weights, 16-bit (embedding, head, norms)"
        if hasattr(parameter, "quant_state"):
            kind, state = "weights, NF4", parameter.quant_state
            stored[kind] += state.absmax.nbytes + (state.state2.absmax.nbytes if double else 0)
        stored[kind] += parameter.nbytes
    assert {name: parts[name] for name in stored} == pytest.approx(stored, rel=0.01)


@pytest.mark.parametrize(
    ("lora", "length", "padded"),
    [
        ({}, 128, False),
        ({}, 300, False),
        ({}, 300, True),
        ({}, 600, False),
        ({"target_modules": ["q_proj", "v_proj"]}, 128, False),
        ({"dropout": 0.1}, 128, False),
    ],
)
def test_activations_are_what_autograd_keeps(lora, length, padded):
    """Every tensor kept for backward in the layers, without those that all layers share."""
    from llama_qna import quick_layers

    recipe = recipe_with(**lora)
    model = small_model(recipe.lora, recipe.quantization)
    quick_layers.quicken(model)
    rows = 2
    ids, mask = torch.randint(3, 512, (rows, length)), torch.ones(rows, length, dtype=torch.long)
    if padded:
        mask[0, length // 2 :] = 0
    lasting = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}

    def kept(layers):
        found = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in lasting:
                found[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        inner = model.get_base_model().model
        every, inner.layers = inner.layers, inner.layers[:layers]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            (output,) = quick_layers.hidden_states(model.get_base_model(), (ids, mask))
        inner.layers = every
        assert output.requires_grad
        return sum(size for size, _ in found.values())

    found = kept(2) - kept(1)
    planned = plan.activations(SMALL, recipe, Batch(rows, length, 1, False, padded=padded), "cpu")
    if padded:  # counted as if every row were a long one
        assert found < 0.8 * planned
    else:
        assert found == pytest.approx(planned, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["8x64", "8x256, checkpointing", "8x256, replay"])
def test_peak_is_predicted_within_a_tenth(name):
    from benchmarks import memory

    assert memory.predicted(name) == pytest.approx(memory.measured(name), rel=0.1)


# --- what is chosen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [24, 8])
@pytest.mark.parametrize("stage", ["pretraining", "finetuning"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_variants_train_with_whole_batches(name, stage, memory):
    chosen = plan.plan_stage(Variant.load(name), stage, memory * GIB, "cpu")
    assert (chosen.batch.rows, chosen.batch.accumulation, chosen.batch.checkpointing) == (8, 1, False)
    assert sum(chosen.parts.values()) == chosen.peak < memory * GIB


def test_less_memory_smaller_batches_then_checkpointing_then_refusal():
    variant, ways = Variant.load("paper_135m"), []
    for memory in (8, 4, 3.3, 2, 1.5):
        batch = plan.plan_stage(variant, "pretraining", int(memory * GIB), "cpu").batch
        ways.append((batch.rows, batch.checkpointing))
        assert batch.rows * batch.accumulation == 8
    assert ways[0] == (8, False) and ways[-1][1]
    assert ways == sorted(ways, key=lambda way: (way[1], -way[0]))
    with pytest.raises(UserError, match="does not fit: one row of 512 tokens at a time, with gradient checkpointing"):
        plan.plan_stage(variant, "pretraining", GIB // 2, "cpu")


def test_a_recipe_that_asks_for_checkpointing_gets_it():
    assert plan.plan_stage(Variant.load("paper_7b"), "pretraining", 80 * GIB, "cuda").batch.checkpointing


@pytest.mark.parametrize("name", ["paper_7b", "paper_13b"])
def test_the_studys_models_fit_an_l4_with_their_batch(name):
    variant = Variant.load(name)
    stage = variant.recipe.pretraining
    wide = variant.recipe.model_copy(update={"pretraining": stage.model_copy(update={"batch_size": 8})})
    chosen = plan.plan_stage(replace(variant, recipe=wide), "pretraining", 22 * GIB, "cuda")
    assert chosen.batch.rows * chosen.batch.accumulation == 8
    assert chosen.peak <= 22 * GIB


def test_time_follows_the_steps_and_the_limit():
    variant = Variant.load("paper_135m")
    chosen = plan.plan_stage(variant, "pretraining", 24 * GIB, "cpu", [300] * 20)
    assert chosen.steps == 3 * variant.recipe.pretraining.epochs
    assert chosen.seconds_per_step(1e12) == pytest.approx(2 * chosen.seconds_per_step(2e12))
    weights = shapes_of(variant.recipe.base_model)[0].linear_weights
    assert chosen.flops > 8 * 300 * 4 * weights


# --- the stages ------------------------------------------------------------------------------------------------------


def losses(folder):
    return [row["loss"] for row in json.loads((folder / "log.json").read_text())]


def test_stage_in_little_memory_takes_the_same_steps(shallow_variant, monkeypatch, capsys):
    """Half of the rows at once, twice a step: the same losses, with replay too, as all at once."""
    found, counted = [], plan.memory

    def too_much_at_once(shapes, recipe, stage, batch, device):
        return counted(shapes, recipe, stage, batch, device) | ({"more": 2**50} if batch.rows > 8 else {})

    variant = shared.write_variant(shallow_variant.root, shallow_variant.recipe.base_model, replay_tokens=128)
    for halved in (False, True):
        if halved:
            monkeypatch.setattr(plan, "memory", too_much_at_once)
            monkeypatch.setattr(plan, "WHOLE_ENOUGH", 1)
            (variant.pretraining / "run.json").unlink()
        pretrain(variant)
        found.append(losses(variant.pretraining))
    printed = capsys.readouterr().out
    assert "16 rows of up to 64 tokens at once (steps of 16 rows)" in printed
    assert "8 rows of up to 64 tokens at once, 2 times a step (steps of 16 rows)" in printed
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_stage_that_does_not_fit_is_refused_before_loading(shallow_variant, monkeypatch):
    monkeypatch.setattr(machine, "main_memory", lambda: 2**28)
    monkeypatch.setattr(models, "load_base", lambda *_, **__: pytest.fail("loaded"))
    for stage in (pretrain, lambda variant: finetune(variant, only=True)):
        with pytest.raises(UserError, match="does not fit"):
            stage(shallow_variant)


def test_merging_that_does_not_fit_is_refused_before_training():
    recipe = Variant.load("paper_13b").recipe
    assert "set `stacking: continue`" in planning.merging_refused(recipe, 16 * GIB)
    assert planning.merging_refused(recipe, 32 * GIB) is None
    assert planning.merging_refused(recipe.model_copy(update={"stacking": "continue"}), 16 * GIB) is None


def test_model_of_unknown_shapes_trains_as_its_recipe_says(monkeypatch, capsys):
    variant = Variant.load("paper_135m")
    variant = replace(variant, recipe=variant.recipe.model_copy(update={"base_model": "someone/else"}))
    assert planning.for_stage(variant, "pretraining", []) == Batch(8, 512, 1, False)
    assert "no plan: base_model someone/else" in capsys.readouterr().out
    monkeypatch.setattr("llama_qna.distributed.sharded", lambda: True)
    assert planning.for_stage(Variant.load("paper_135m"), "pretraining", []) == Batch(8, 512, 1, False)


def test_processes_on_one_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(machine, "main_memory", lambda: 24 * GIB)
    assert machine.memory("cpu") == 24 * GIB
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert machine.memory("cpu") == 12 * GIB
    split = plan.plan_stage(Variant.load("paper_135m"), "pretraining", 12 * GIB, "cpu")
    assert (split.batch.rows, split.batch.accumulation, split.batch_size) == (2, 1, 8)


# --- machines that lack something ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"), [("24GiB", 24 * GIB), ("22.5 GB", 22_500_000_000), ("8g", 8 * GIB), ("512MiB", GIB // 2)]
)
def test_sizes(size, expected):
    assert machine.parse_memory(size) == expected


@pytest.mark.parametrize("size", ["", "24", "GiB", "1.2.3G", "0GiB", "-4GiB"])
def test_sizes_that_are_none(size):
    with pytest.raises(UserError, match="give a size such as 24GiB"):
        machine.parse_memory(size)


@pytest.mark.skipif(models.compute_dtype(None) is not torch.bfloat16, reason="this CPU has no bfloat16 instructions")
def test_cpu_without_avx512_computes_in_float32():
    """oneDNN held to AVX2 is the machine that it would be without AVX512."""
    code = "from llama_qna import models, plan; print(models.compute_dtype(None), plan.value_bytes('cpu'))"
    held = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "CUDA_VISIBLE_DEVICES": ""}
    found = subprocess.run([sys.executable, "-c", code], env=held, cwd=REPOSITORY, capture_output=True, text=True)
    assert found.stdout.split() == ["torch.float32", "4"]
    assert found.stderr.count("this CPU has no AVX512: computing in float32") == 1


def test_training_in_float32_where_bfloat16_is_slow(shallow_variant, monkeypatch):
    pretrain(shallow_variant)
    expected = losses(shallow_variant.pretraining)
    (shallow_variant.pretraining / "run.json").unlink()
    for module in (machine, plan):
        monkeypatch.setattr(module, "bfloat16_is_fast", lambda: False)
    model = models.load_base(shallow_variant.recipe.base_model, shallow_variant.recipe.quantization)
    assert model.dtype is torch.float32
    pretrain(shallow_variant)
    assert losses(shallow_variant.pretraining) == pytest.approx(expected, rel=0.05)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of a compute capability, as far as torch would tell."""

    def forget():
        machine.check_gpu.cache_clear()
        machine.gpu_has_bfloat16.cache_clear()

    def pretend(major, minor):
        forget()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (major, minor))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("Found", (), {"major": major}))
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70", "sm_75", "sm_80", "sm_90a", "compute_90"])

    yield pretend
    forget()


def test_gpu_without_bfloat16_computes_in_float16(gpu, capsys):
    gpu(7, 5)
    assert [models.compute_dtype(Quantization()) for _ in range(2)] == [torch.float16] * 2
    assert capsys.readouterr().err == "llama-qna: Old GPU has no bfloat16: computing in float16, its losses scaled\n"


def test_gpu_with_bfloat16_computes_as_the_recipe_says(gpu, capsys):
    gpu(8, 9)
    assert models.compute_dtype(Quantization()) is torch.bfloat16
    assert models.compute_dtype(Quantization(compute_dtype="float16")) is torch.float16
    assert capsys.readouterr().err == ""


def test_gpu_that_torch_has_no_kernels_for_is_refused(gpu):
    gpu(5, 2)
    with pytest.raises(UserError, match=r"Old GPU \(compute capability 5.2\) is too old for this PyTorch.* at 7.0"):
        models.compute_dtype(Quantization(compute_dtype="float16"))


def test_freed_memory_is_given_back_only_above_the_plan():
    def held():
        return machine._kilobytes("/proc/self/status", "VmRSS") * 1024

    blocks = [bytearray(b"x" * 60_000) for _ in range(2000)]
    kept = blocks[::2]  # holes between them
    del blocks
    before = held()
    machine.give_back_freed(2**50)
    assert held() == pytest.approx(before, abs=2**21)
    machine.give_back_freed(0)
    assert held() < before - 30 * 2**20
    assert len(kept) == 1000


# --- the terminal ----------------------------------------------------------------------------------------------------


def test_report_of_another_machine_needs_nothing_of_this_one(monkeypatch):
    from llama_qna.planning import report

    monkeypatch.setattr(machine, "measure", lambda *_: pytest.fail("measured"))
    text = report(Variant.load("paper_13b"), 22 * GIB, "cuda")
    assert "13.0 billion weights, 40 layers, by the shapes known by that name" in text
    assert "cache of keys and values" in text and "plan: finetuning: 4 rows of up to 1024 tokens at once" in text


def test_report_measures_the_limit_here(monkeypatch):
    from llama_qna.planning import report

    found = Variant.load("paper_135m")
    monkeypatch.setattr(shapes, "EMBEDDED_FOLDER", REPOSITORY / "nowhere")  # not even the model has to be there
    text = report(found, 24 * GIB, seconds=0.1)
    assert "TFLOP/s in matrix products" in text and "8 rows of up to" in text


def test_plan_that_does_not_fit_is_status_2(run_cli):
    found = run_cli("plan", "paper_135m", "--memory", "500MiB")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("llama-qna: embedded/smollm2-135m-instruct does not fit: one row of")
    assert found.stderr.count("\n") == 1
