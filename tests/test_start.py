"""Training that starts from a smaller adapter: nothing changes at its beginning, and what does not fit is refused."""

import pytest
import torch

from llama_qna import UserError
from llama_qna.models.adapters import adapter_from, attach_adapter, lora_config
from llama_qna.models.lineage import check_reader, start_of_training
from llama_qna.project.files import sha256, write_json
from llama_qna.project.recipe import Lora, Quantization
from llama_qna.project.variant import Reader, Variant
from tests.fixtures_models import tiny_llama

SMALL = Lora(r=3, alpha=6, target_modules="all-linear")
IDS = torch.arange(24).view(2, 12)


@pytest.fixture
def skill(tmp_path):
    """A small adapter that changes logits."""
    from peft import get_peft_model

    model = get_peft_model(tiny_llama(64), lora_config(SMALL))
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "skill" / "adapter")
    return tmp_path / "skill" / "adapter"


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize("rank", [3, 8])
def test_a_larger_adapter_begins_with_the_same_logits(skill, rank):
    expected = logits(attach_adapter(tiny_llama(64), skill))
    grown = adapter_from(tiny_llama(64), skill, Lora(r=rank, alpha=1, target_modules="all-linear"), seed=1)
    assert torch.allclose(logits(grown), expected, atol=1e-5)
    assert not torch.allclose(expected, logits(tiny_llama(64)), atol=1e-2)
    trainable = [parameter for parameter in grown.parameters() if parameter.requires_grad]
    assert all(rank in parameter.shape for parameter in trainable)


def test_the_new_rows_can_learn(skill):
    grown = adapter_from(tiny_llama(64), skill, Lora(r=8, alpha=1, target_modules="all-linear"), seed=1)
    grown(IDS, labels=IDS).loss.backward()
    found = {name: p.grad for name, p in grown.named_parameters() if ".lora_B." in name}
    assert all(gradient[:, 3:].abs().max() > 0 for gradient in found.values())


@pytest.mark.parametrize(
    "lora", [Lora(r=2, alpha=1, target_modules="all-linear"), Lora(r=8, alpha=1, target_modules=["q_proj"])]
)
def test_a_lower_rank_or_other_modules_are_refused(skill, lora):
    with pytest.raises(UserError):
        adapter_from(tiny_llama(64), skill, lora, seed=1)


def test_a_damaged_adapter_is_named(skill):
    weights = skill / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="skill"):
        adapter_from(tiny_llama(64), skill, Lora(r=8, alpha=1, target_modules="all-linear"), seed=1)


@pytest.fixture
def reader(skill, monkeypatch):
    """The shipped reader with the small adapter in place of its own."""
    recipe = Reader.load("reader_135m").recipe
    found = Reader("skill", skill.parent.parent, recipe)
    weights = skill / "adapter_model.safetensors"
    write_json(found.folder / "run.json", {"outputs": {"adapter/adapter_model.safetensors": sha256(weights)}})
    monkeypatch.setattr(Reader, "load", lambda name: found)
    return found


def variant_with(reader, **changed):
    recipe = Variant.load("paper_135m").recipe.model_copy(update={"start": "skill"} | changed)
    return Variant("mine", reader.home, recipe)


def test_a_start_on_another_quantization_or_base_is_refused(reader):
    same = variant_with(reader, quantization=reader.recipe.quantization)
    assert start_of_training(same) == reader.adapter
    assert start_of_training(variant_with(reader, start=None)) is None
    for changed in ({"quantization": Quantization(bits=4)}, {"base_model": "other/base"}):
        with pytest.raises(UserError):
            start_of_training(variant_with(reader, **{"quantization": reader.recipe.quantization} | changed))


def test_a_reader_that_is_not_the_one_that_was_made_is_refused(reader):
    check_reader(reader)
    weights = reader.adapter / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(UserError, match="damaged"):
        check_reader(reader)
    weights.unlink()
    with pytest.raises(UserError, match="no adapter"):
        check_reader(reader)
