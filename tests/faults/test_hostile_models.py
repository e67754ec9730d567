"""`models.safety`: code and pickles in folders of strangers are never run, what does not fit is one line."""

import ast
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_qna import UserError
from llama_qna.models import adapters
from llama_qna.models.adapters import attach_adapter, lora_config, swap_adapter
from llama_qna.models.base import load_base, load_tokenizer
from llama_qna.models.safety import adapter_of
from llama_qna.project.recipe import EMBEDDED, HUB_NAMES, Lora
from llama_qna.project.variant import REPOSITORY
from tests.fixtures_models import tiny_llama

LORA = Lora(r=2, alpha=4, target_modules=["q_proj", "v_proj"])


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.write_text, (self.mark, "ran")


@pytest.fixture
def folder(tmp_path):
    """A whole model with its tokenizer's files, as a stranger may hand it over."""
    tiny_llama(vocabulary=64).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def adapter(folder):
    """An adapter of that model, and nothing wrong with it."""
    from peft import get_peft_model

    model = get_peft_model(load_base(str(folder), None), lora_config(LORA))
    model.save_pretrained(folder.parent / "adapter", save_embedding_layers=False)
    adapters.name_base_in_adapter(folder.parent / "adapter", str(folder))
    return folder.parent / "adapter"


@pytest.fixture
def mark(tmp_path):
    """A file that must not be there at the end: code of a stranger would write it."""
    path = tmp_path / "code_has_run"
    yield path
    assert not path.exists()


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def complaint(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def evil_code(folder, mark, classes):
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').write('ran')\nclass Evil: pass\n")
    return {"auto_map": {name: "evil.Evil" for name in classes}}


# --- models ----------------------------------------------------------------------------------------------------------


def test_code_of_an_unknown_architecture_is_refused_and_not_asked_about(folder, mark, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asked whether to run the code"))
    auto_map = evil_code(folder, mark, ["AutoConfig", "AutoModelForCausalLM"])
    edit(folder / "config.json", model_type="evil", **auto_map)
    assert "comes with code of its own, which is never run" in complaint(load_base, str(folder), None)


def test_code_beside_a_known_architecture_is_not_run(folder, mark):
    edit(folder / "config.json", **evil_code(folder, mark, ["AutoConfig", "AutoModelForCausalLM"]))
    assert type(load_base(str(folder), None)).__name__ == "LlamaForCausalLM"


def test_code_of_a_tokenizer_is_not_run(folder, mark):
    load_tokenizer(EMBEDDED).save_pretrained(folder)
    auto_map = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    evil_code(folder, mark, [])
    edit(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map=auto_map)
    try:
        load_tokenizer(str(folder))
    except UserError as error:
        assert "\n" not in str(error)


def test_chat_template_cannot_reach_python(folder, mark):
    """Jinja's sandbox is the tokenizer's; what a template tries beyond it fails."""
    from jinja2.exceptions import SecurityError

    from llama_qna.models import prompts

    tokenizer = load_tokenizer(EMBEDDED)
    tokenizer.chat_template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(SecurityError):
        prompts.question_ids(tokenizer, "What?")


def test_pickled_weights_are_refused(folder, mark):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"w": Bomb(mark)}))
    assert "no model could be loaded" in complaint(load_base, str(folder), None)


def test_pickled_weights_beside_safetensors_are_not_opened(folder, mark):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"w": Bomb(mark)}))
    assert load_base(str(folder), None).num_parameters() > 0


def test_pickle_named_safetensors_is_refused(folder, mark):
    (folder / "model.safetensors").write_bytes(pickle.dumps({"w": Bomb(mark)}))
    assert "no model could be loaded" in complaint(load_base, str(folder), None)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000])
def test_truncated_weights_are_refused(kept, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "no model could be loaded" in complaint(load_base, str(folder), None)


def test_header_that_claims_more_than_the_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    assert "no model could be loaded" in complaint(load_base, str(folder), None)


def test_tensor_of_another_shape_is_refused(folder):
    edit_tensors(folder / "model.safetensors", lambda t: t.update({"model.norm.weight": torch.ones(7)}))
    assert "no model could be loaded" in complaint(load_base, str(folder), None)


def test_missing_tensor_is_not_made_up(folder):
    edit_tensors(folder / "model.safetensors", lambda t: t.pop("model.layers.0.mlp.up_proj.weight"))
    said = complaint(load_base, str(folder), None)
    assert said.endswith("1 tensors are missing in its weights, such as model.layers.0.mlp.up_proj.weight")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": 3}', '{"model_type": "llama", "hidden_size": -1}'])
def test_config_that_is_no_good_is_refused(content, folder):
    (folder / "config.json").write_text(content)
    assert str(folder) in complaint(load_base, str(folder), None)


# --- adapters --------------------------------------------------------------------------------------------------------


def attach(folder, adapter):
    return attach_adapter(load_base(str(folder), None), adapter)


def test_whole_adapter_is_attached(folder, adapter):
    assert attach(folder, adapter).peft_config["default"].r == 2


def test_pickled_adapter_is_refused(folder, adapter, mark):
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps({"w": Bomb(mark)}))
    assert "only pickled weights, which are never loaded" in complaint(attach, folder, adapter)


def test_adapter_without_weights_is_refused(folder, adapter):
    (adapter / "adapter_model.safetensors").unlink()
    assert "there are no weights; adapter_model.safetensors is needed" in complaint(attach, folder, adapter)


@pytest.mark.parametrize("kept", [0, 7, 300, 2000])
def test_truncated_adapter_is_refused(kept, folder, adapter):
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "it is damaged, or of another base" in complaint(attach, folder, adapter)


def test_adapter_may_name_the_embedded_base_as_the_hub_does(tmp_path):
    """As the exported ones do, so that others can load them."""
    config = {"peft_type": "LORA", "base_model_name_or_path": HUB_NAMES[EMBEDDED]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").touch()
    with adapter_of(tmp_path, *adapters._names(SimpleNamespace(recipe_name=EMBEDDED, name_or_path="here"))):
        pass


def test_adapter_that_names_another_base_is_refused(folder, adapter):
    edit(adapter / "adapter_config.json", base_model_name_or_path="somebody/else")
    assert complaint(attach, folder, adapter).endswith(f"was trained on somebody/else, but the base is {folder}")


def test_adapter_of_another_shape_is_refused(folder, adapter):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    edit_tensors(adapter / "adapter_model.safetensors", lambda t: t.update({name: torch.zeros(2, 99)}))
    assert "it is damaged, or of another base" in complaint(attach, folder, adapter)


def test_adapter_that_lacks_a_tensor_is_refused(folder, adapter):
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    edit_tensors(adapter / "adapter_model.safetensors", lambda t: t.pop(name))
    assert f"1 tensors are missing or of no use, such as {name}" in complaint(attach, folder, adapter)


@pytest.mark.parametrize("change", [{"peft_type": "PROMPT_TUNING"}, {"megatron_config": {}, "megatron_core": "evil"}])
def test_adapter_that_is_no_plain_lora_is_refused(change, folder, adapter):
    if "megatron_config" in change:
        change["megatron_config"] = {"tensor_model_parallel_size": 1}
    edit(adapter / "adapter_config.json", **change)
    assert "no plain LoRA adapter" in complaint(attach, folder, adapter)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff\xfe", b'{"peft_type": "LORA", "r": "many"}'])
def test_adapter_config_that_is_no_good_is_refused(content, folder, adapter):
    path = adapter / "adapter_config.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert "adapter" in complaint(attach, folder, adapter)


def test_adapter_that_is_swapped_in_is_checked_too(folder, adapter):
    model = attach(folder, adapter)
    other = shutil.copytree(adapter, adapter.with_name("other"))
    edit_tensors(other / "adapter_model.safetensors", lambda t: t.pop(min(t)))
    assert "tensors are missing" in complaint(swap_adapter, model, other)
    (other / "adapter_model.safetensors").unlink()
    assert "there are no weights" in complaint(swap_adapter, model, other)


# --- the package -----------------------------------------------------------------------------------------------------


def test_nothing_in_the_package_opens_a_pickle_or_trusts_code():
    """Nothing that runs code of a file; `torch.load` is weights-only, YAML has the loader of the recipes.

    `halves.py` hands lists from a fork of a file's reader to that reader: both have the same rights.
    """
    odd = []
    for path in sorted((REPOSITORY / "llama_qna").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {getattr(node, "module", None)}
                odd += [
                    f"{path.name} imports {name}" for name in names & {"pickle", "dill", "joblib", "shelve", "marshal"}
                ]
            elif isinstance(node, ast.Call):
                function = ast.unparse(node.func)
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                unsafe = function in ("eval", "exec", "yaml.unsafe_load", "yaml.full_load")
                unsafe |= function == "yaml.load" and options.get("Loader") != "_Plain"
                unsafe |= function == "torch.load" and options.get("weights_only") != "True"
                unsafe |= options.get("trust_remote_code", "False") != "False"
                odd += [f"{path.name}: {ast.unparse(node)}"] * unsafe
    assert odd == ["halves.py imports pickle"]
