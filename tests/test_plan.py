"""`models.plan` and `models.shapes`: memory by part, what is chosen, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from llama_qna import UserError
from llama_qna.models import adapters, cards, nf4, plan
from llama_qna.models.base import EMBEDDED, EMBEDDED_FOLDER
from llama_qna.models.device import GIB
from llama_qna.models.plan import Batch, activations, plan_stage
from llama_qna.models.shapes import KNOWN, REPLAY_PIECE, Shapes, shapes_of
from llama_qna.project.recipe import Quantization
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.training.loss import Replay
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
    with safe_open(EMBEDDED_FOLDER / "model.safetensors", "pt") as file:
        stored = sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())
    assert counts["smollm2-135m-instruct"] == stored


def test_shapes_are_those_of_the_config_file(shallow_folder):
    found, source = shapes_of(str(shallow_folder))
    assert found == replace(KNOWN[EMBEDDED], layers=2)
    assert source == "config.json of the model"
    assert shapes_of(EMBEDDED)[0] == KNOWN[EMBEDDED]


def test_shapes_of_a_folder_named_from_the_root_are_found_from_anywhere(shallow_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(shallow_folder.parent))
    monkeypatch.setenv("HOME", str(shallow_folder.parent))
    monkeypatch.chdir(tmp_path)
    for name in (shallow_folder.name, f"~/{shallow_folder.name}"):
        assert shapes_of(name) == shapes_of(str(shallow_folder))


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


def small_model(lora, quantization, adapters_in=torch.bfloat16):
    from peft import get_peft_model

    from llama_qna.training.rehearsal import random_model

    model = get_peft_model(random_model(SMALL, quantization), adapters.lora_config(lora)).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(adapters_in)
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


def test_copies_in_16_bits_are_kept_where_they_leave_a_tenth_free():
    model = small_model(recipe_with().lora, Quantization()).get_base_model()
    size = plan.loaded(SMALL, Quantization(dequantize_once=True), "cuda")["kept dequantized copy"]
    assert nf4.copies_fit(model, int(1.2 * size)) and not nf4.copies_fit(model, int(1.05 * size))
    assert not nf4.keeps_copies(model)
    nf4.dequantize_once(model)
    assert nf4.keeps_copies(model)
    seven, recipe = KNOWN["meta-llama/Llama-2-7b-chat-hf"], Variant.load("paper_7b").recipe
    recipe = recipe.model_copy(update={"quantization": Quantization(dequantize_once=True)})
    for gib, kept in ((22, True), (14, False)):  # 12 GiB of copies
        rows, parts = plan.answering(seven, recipe, 128, "cuda", gib * GIB)
        assert rows and ("kept dequantized copy" in parts) == kept and sum(parts.values()) <= gib * GIB


def kept_by_a_layer(model, forward):
    """Bytes that autograd keeps for one layer: those of two layers without those of one."""
    lasting = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    inner = model.get_base_model().model
    every, sizes = inner.layers, []
    for layers in (1, 2):
        found = {}

        def keep(tensor, found=found):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in lasting:
                found[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        inner.layers = every[:layers]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            assert forward().requires_grad
        inner.layers = every
        sizes.append(sum(size for size, _ in found.values()))
    return sizes[1] - sizes[0]


@pytest.mark.parametrize("lora", [{}, {"target_modules": ["q_proj", "v_proj"]}, {"dropout": 0.1}])
@pytest.mark.parametrize(("length", "padded"), [(128, False), (300, True)])
def test_activations_on_a_gpu_are_what_transformers_keeps_under_autocast(lora, length, padded):
    """The layers that run there, adapters in float32, autocast. A CPU's dropout keeps its mask in float32."""
    recipe = recipe_with(**lora)
    model = small_model(recipe.lora, recipe.quantization, torch.float32)
    ids, mask = torch.randint(3, 512, (2, length)), torch.ones(2, length, dtype=torch.long)
    mask[0, length // 2 :] = 1 - padded
    inner = model.get_base_model().model

    def forward():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embedded = inner.embed_tokens(ids).requires_grad_()
            return inner(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state

    found = kept_by_a_layer(model, forward)
    if "dropout" in lora:
        found -= 3 * 2 * length * sum(columns for _, columns in SMALL.linears.values())
    assert found == pytest.approx(
        activations(SMALL, recipe.lora, Batch(2, length, 1, False, padded=padded), "cuda"), rel=0.05
    )


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
    from llama_qna.training.cpu.layers import hidden_states, quicken

    recipe = recipe_with(**lora)
    model = small_model(recipe.lora, recipe.quantization)
    quicken(model)
    rows = 2
    ids, mask = torch.randint(3, 512, (rows, length)), torch.ones(rows, length, dtype=torch.long)
    if padded:
        mask[0, length // 2 :] = 0
    found = kept_by_a_layer(model, lambda: hidden_states(model.get_base_model(), (ids, mask))[0])
    planned = activations(SMALL, recipe.lora, Batch(rows, length, 1, False, padded=padded), "cpu")
    if padded:  # counted as if every row were a long one
        assert found < 0.8 * planned
    else:
        assert found == pytest.approx(planned, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["8x64", "8x256, checkpointing", "8x256, replay"])
def test_peak_is_predicted_within_a_tenth(name):
    from benchmarks import memory

    assert memory.predicted(name) == pytest.approx(memory.measured(name), rel=0.1)


def test_the_batches_of_a_step_share_its_replayed_text():
    """As `Replay` gives it out: each piece beside one of them, whole pieces alone, and one at least."""
    recipe = recipe_with()

    def needed(tokens, accumulation):
        stage = recipe.pretraining.model_copy(update={"replay_tokens": tokens})
        return plan.memory(SMALL, recipe, stage, Batch(2, 64, accumulation, False), "cpu")

    for tokens in (1, 200, 512):
        replay, accumulation = Replay(shared.tokenizer(), tokens, seed=1), 2
        most = max(len(replay.take(accumulation)) for _ in range(accumulation))
        assert needed(tokens, accumulation) == needed(most * REPLAY_PIECE, 1) != needed(0, 1)


# --- what is chosen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [24, 8])
@pytest.mark.parametrize("stage", ["pretraining", "finetuning"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_variants_train_with_whole_batches(name, stage, memory):
    chosen = plan_stage(Variant.load(name), stage, memory * GIB, "cpu")
    assert (chosen.batch.rows, chosen.batch.accumulation, chosen.batch.checkpointing) == (8, 1, False)
    assert sum(chosen.parts.values()) == chosen.peak < memory * GIB


def test_less_memory_smaller_batches_then_checkpointing_then_refusal():
    variant, ways = Variant.load("paper_135m"), []
    for memory in (8, 4, 3.3, 2, 1.5):
        batch = plan_stage(variant, "pretraining", int(memory * GIB), "cpu").batch
        ways.append((batch.rows, batch.checkpointing))
        assert batch.rows * batch.accumulation == 8
    assert ways[0] == (8, False) and ways[-1][1]
    assert ways == sorted(ways, key=lambda way: (way[1], -way[0]))
    with pytest.raises(UserError, match="does not fit: one row of 512 tokens at a time, with gradient checkpointing"):
        plan_stage(variant, "pretraining", GIB // 2, "cpu")


def test_checkpointing_that_a_recipe_allows_is_used_where_memory_asks_for_it():
    ways = [
        plan_stage(Variant.load("paper_7b"), "pretraining", memory * GIB, "cuda").batch for memory in (80, 22, 12, 10)
    ]
    assert [way.checkpointing for way in ways] == [False, False, False, True]
    assert [way.rows for way in ways] == [8, 2, 1, 4]


def wide(name):
    """A variant with steps of 8 rows."""
    variant = Variant.load(name)
    stage = variant.recipe.pretraining.model_copy(update={"batch_size": 8})
    return replace(variant, recipe=variant.recipe.model_copy(update={"pretraining": stage}))


@pytest.mark.parametrize("name", ["paper_7b", "paper_13b"])
def test_the_studys_models_fit_an_l4(name):
    """Pretraining with steps of 8 rows, fine-tuning, 32 answers at once, evaluation and export."""
    found = cards.forecast(wide(name), cards.CARDS["L4"])
    assert cards.CARDS["L4"].usable == 22 * GIB
    for chosen in found.stages:
        assert chosen.batch.rows * chosen.batch.accumulation == chosen.batch_size and chosen.peak <= 22 * GIB
    assert found.stages[0].batch_size == 8
    assert found.rows == 32 and found.rows_with_passages >= 8
    assert max(sum(found.answering.values()), found.export) <= 22 * GIB


def test_time_follows_the_steps_and_the_limit():
    variant = Variant.load("paper_135m")
    chosen = plan_stage(variant, "pretraining", 24 * GIB, "cpu", [300] * 20)
    assert chosen.steps == 3 * variant.recipe.pretraining.epochs
    assert chosen.seconds_per_step(1e12) == pytest.approx(2 * chosen.seconds_per_step(2e12))
    weights = shapes_of(variant.recipe.base_model)[0].linear_weights
    assert chosen.flops > 8 * 300 * 4 * weights
