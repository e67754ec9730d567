"""Tests of llama_qna/serving/engine.py and of stacked adapters: the engine's command line, its template. What
needs the engine itself is in test_engine.py."""

import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_qna import UserError
from llama_qna.models import lineage, prompts
from llama_qna.models.adapters import attach_adapter, stack
from llama_qna.models.base import EMBEDDED, load_base, load_tokenizer, model_path
from llama_qna.models.device import GIB
from llama_qna.models.safety import read_adapter_config
from llama_qna.models.shapes import KNOWN
from llama_qna.project.recipe import Quantization, Serving
from llama_qna.serving import engine, lora_on_cpu
from tests import fixtures_models as shared
from tests.fixtures_models import shallow_folder_fixture, small_run_fixture  # noqa: F401

QUESTION = "Who wrote the manual?"


@pytest.fixture
def served(small_run, tmp_path):
    """The small run, trained with `stacking: merge`, in a place of its own where files may be written."""
    run, merged = tmp_path / "runs" / "small", "pretraining_paper/merged"
    shutil.copytree(small_run.variant.run, run, ignore=shutil.ignore_patterns("merged"))
    shutil.copytree(small_run.variant.run / merged, run / merged, copy_function=os.link)  # 270 MB, only read
    return replace(small_run.variant, root=tmp_path)


def option(command, name):
    return command.arguments[command.arguments.index(name) + 1]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_of_one_variant(served, monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    limits = Serving(max_model_len=512, concurrency=7, cache_gb=3)
    served = replace(served, recipe=served.recipe.model_copy(update={"serving": limits}))
    command = engine.command([served], port=8123)
    assert command.arguments[1:4] == ["-P", "-m", "vllm.entrypoints.openai.api_server"]
    wanted = {"--served-model-name": "base", "--max-model-len": "512", "--max-num-seqs": "7", "--host": "127.0.0.1"}
    wanted |= {"--port": "8123", "--max-loras": "2", "--max-lora-rank": "16", "--dtype": "bfloat16"}
    assert {name: option(command, name) for name in wanted} == wanted
    assert option(command, "--model") == engine.measured_base(served)
    assert json.loads(option(command, "--override-generation-config")) == {"temperature": 0, "max_new_tokens": 4}
    adapters = dict(part.split("=", 1) for part in command.arguments[command.arguments.index("--lora-modules") + 1 :])
    assert adapters["pretrained"] == str(served.pretraining / "checkpoint-3")
    chosen = lineage.shipped_checkpoint(served).name
    assert adapters["finetuned"] == str(served.run / "serving" / f"checkpoint-3+{chosen}")
    assert command.environment["VLLM_CPU_KVCACHE_SPACE"] == "3" and command.environment["HF_HUB_OFFLINE"] == "1"


def test_what_the_caller_has_set_stands(served, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "9")
    assert engine.command([served]).environment["VLLM_CPU_KVCACHE_SPACE"] == "9"


def test_several_variants_share_one_engine(served):
    other = replace(served, name="other")
    shutil.copytree(served.run, other.run)
    command = engine.command([served, other])
    names = [part.split("=")[0] for part in command.arguments[command.arguments.index("--lora-modules") + 1 :]]
    assert names == ["small-pretrained", "small-finetuned", "other-pretrained", "other-finetuned"]
    assert option(command, "--max-loras") == "4"
    with pytest.raises(UserError, match="named twice"):
        engine.command([served, served])
    foreign = replace(other, recipe=other.recipe.model_copy(update={"base_model": "meta-llama/Llama-2-7b-chat-hf"}))
    with pytest.raises(UserError, match="one engine has one base.*serve them on two ports"):
        engine.command([served, foreign])
    quantization = Quantization(double_quantization=True)
    foreign = replace(other, recipe=other.recipe.model_copy(update={"quantization": quantization}))
    with pytest.raises(UserError, match="quantize their base differently"):
        engine.command([served, foreign])


def test_the_printed_command_holds_no_key(served, monkeypatch):
    monkeypatch.setenv(engine.KEY_VARIABLE, "my-secret-key")
    monkeypatch.setenv("VLLM_API_KEY", "my-secret-key")
    printed = str(engine.command([served]))
    assert "my-secret-key" not in printed and printed.startswith("HF_HUB_OFFLINE=1 ")
    assert '\'{"temperature": 0' in printed, "quoted for a shell"


@pytest.mark.parametrize(
    ("name", "free", "quantized", "share"),
    [("small", 21, False, "0.9"), ("small", 11, False, "0.5"), ("7b", 21, False, "0.9"), ("13b", 21, True, "0.9")],
)
def test_weights_that_do_not_fit_a_gpu_are_served_in_4_bits(name, free, quantized, share, served, monkeypatch):
    """A stand-in for 22 GiB of memory, of which some are free; elsewhere no option of a GPU is given."""
    assert "--gpu-memory-utilization" not in engine.command([served]).arguments
    monkeypatch.setattr(engine, "device", lambda: "cuda:0")
    monkeypatch.setattr(engine, "compute_dtype", lambda quantization: torch.float16)
    monkeypatch.setattr(engine, "measured_base", lambda variant: "measured")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free * GIB, 22 * GIB))
    base = {"small": EMBEDDED, "7b": "meta-llama/Llama-2-7b-chat-hf", "13b": "meta-llama/Llama-2-13b-chat-hf"}[name]
    monkeypatch.setattr(engine, "shapes_of", lambda _: (KNOWN[base], ""))
    command = engine.command([served])
    assert (option(command, "--gpu-memory-utilization"), option(command, "--dtype")) == (share, "float16")
    assert ("--quantization" in command.arguments) == quantized
    # in 4 bits the engine rounds the base itself
    assert option(command, "--model") == (model_path(EMBEDDED) if quantized else "measured")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org", ""])
def test_only_this_machine(served, host):
    with pytest.raises(UserError, match="listens on this machine alone"):
        engine.command([served], host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_addresses_of_this_machine(served, host):
    assert option(engine.command([served], host), "--host") == host


def test_an_adapter_of_too_high_a_rank(served):
    path = served.pretraining / "checkpoint-3" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 600}))
    with pytest.raises(UserError, match="rank 512 at most; this one has 60"):
        engine._rank([path.parent])


# --- the start -------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A vLLM that only looks installed; what would be started is written down."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(engine, "ENVIRONMENT", tmp_path / "venv")
    started = []
    monkeypatch.setattr(engine.os, "execve", lambda *arguments: started.append(arguments))
    return started


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def test_a_key_is_made_and_printed_once(served, installed, capsys, monkeypatch):
    monkeypatch.delenv(engine.KEY_VARIABLE, raising=False)
    for _ in range(2):
        engine.serve([served], port=0)
    keys = [environment["VLLM_API_KEY"] for _, _, environment in installed]
    assert len(set(keys)) == 2 and min(map(len, keys)) >= 32
    out = capsys.readouterr().out
    assert [out.count(key) for key in keys] == [1, 1]
    assert not any(key in part for _, arguments, _ in installed for part in arguments for key in keys)


def test_a_key_of_the_environment_is_not_printed(served, installed, capsys, monkeypatch):
    monkeypatch.setenv(engine.KEY_VARIABLE, "my-secret-key")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    engine.serve([served], port=0)
    ((_, _, environment),) = installed
    assert environment["VLLM_API_KEY"] == "my-secret-key" and "PYTHONPATH" not in environment
    out = capsys.readouterr().out
    assert "my-secret-key" not in out and "base, pretrained, finetuned at http://127.0.0.1:0/v1" in out


def test_a_port_in_use(served, installed, port):
    with pytest.raises(UserError, match=f"--port {port}: Address already in use"):
        engine.serve([served], port=port)
    with pytest.raises(UserError, match="--port 70000"):
        engine.serve([served], port=70000)
    assert not installed


def test_no_engine_installed(served, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "ENVIRONMENT", tmp_path / "none")
    with pytest.raises(UserError, match="`make serve` sets up its environment"):
        engine.serve([served])


# --- the template ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat_template", [True, False])
def test_a_bare_question_gets_the_prompt_of_training(served, chat_template):
    tokenizer = load_tokenizer(served.recipe.base_model)
    if not chat_template:
        tokenizer.chat_template = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "load_tokenizer", lambda base: tokenizer)
        template = engine._write_template(served).read_text()

    def rendered(*messages):
        return tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=True, add_generation_prompt=True, return_dict=False
        )

    user = {"role": "user", "content": f"  {QUESTION}\n"}
    assert rendered(user) == prompts.question_ids(tokenizer, QUESTION)
    pirate = {"role": "system", "content": "Answer as a pirate."}
    assert rendered(pirate, user) == prompts.chat_ids(tokenizer, [pirate, user])
    turns = [user, {"role": "assistant", "content": "Ilse."}, user]
    system = {"role": "system", "content": prompts.SYSTEM}
    assert rendered(*turns) == prompts.chat_ids(tokenizer, [system, *turns])


# --- the base that it serves -----------------------------------------------------------------------------------------


def test_the_served_base_is_the_one_that_was_measured(served, shallow_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "EMBEDDED_FOLDER", tmp_path / "models" / "embedded")
    served = replace(served, recipe=served.recipe.model_copy(update={"base_model": str(shallow_folder)}))
    folder = Path(engine.measured_base(served))
    assert folder.parent == tmp_path / "models" and folder.name.startswith(f"{shallow_folder.name}-nf4-")
    ids = torch.tensor([prompts.question_ids(shared.tokenizer(), QUESTION)])
    measured = load_base(str(shallow_folder), served.recipe.quantization)
    plain = load_base(str(folder), None)
    with torch.inference_mode():
        assert torch.equal(plain(ids).logits, measured(ids).logits)
    assert load_tokenizer(str(folder))(QUESTION) == shared.tokenizer()(QUESTION)
    made = (folder / "config.json").stat().st_mtime_ns
    assert engine.measured_base(served) == str(folder) and (folder / "config.json").stat().st_mtime_ns == made
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_a_base_that_was_measured_in_16_bits_is_served_as_it_is(served, monkeypatch):
    """A stand-in for a GPU too small for 16 bits: rounding to 4 would serve a model that nobody measured."""
    quantization = Quantization(bits=16, dequantize_once=True)
    served = replace(served, recipe=served.recipe.model_copy(update={"quantization": quantization}))
    assert option(engine.command([served]), "--model") == model_path(EMBEDDED)
    monkeypatch.setattr(engine, "device", lambda: "cuda:0")
    monkeypatch.setattr(engine, "compute_dtype", lambda quantization: torch.float16)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**20, GIB))
    command = engine.command([served])
    assert option(command, "--model") == model_path(EMBEDDED) and "--quantization" not in command.arguments


# --- adapters on a CPU -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapters", [[0, 0, 0, 0], [1, -1, 0, 1], [-1, -1, -1, -1], [1, 1, -1, -1]])
def test_each_token_gets_its_own_adapter(adapters):
    torch.manual_seed(0)
    x, down, up = torch.randn(4, 6), torch.randn(2, 1, 3, 6), torch.randn(2, 1, 8, 3)
    indices, buffer, output = torch.tensor(adapters), torch.zeros(4, 3), torch.randn(4, 10)
    wanted = output.clone()
    for row, adapter in enumerate(adapters):
        if adapter >= 0:
            wanted[row, 1:9] += 0.5 * x[row] @ down[adapter, 0].T @ up[adapter, 0].T
    lora_on_cpu.shrink(x, down, buffer, indices, 0.5)
    whole = output.clone()
    lora_on_cpu.expand_slice(buffer, up, output, indices, 1, 8, True)
    assert torch.allclose(output, wanted, atol=1e-5)
    lora_on_cpu.expand(buffer, up, whole[:, 1:9], indices, True)
    assert torch.allclose(whole, wanted, atol=1e-5)
    lora_on_cpu.expand(buffer, up, whole, indices, False)
    assert torch.allclose(whole[:, :8], lora_on_cpu.product(buffer, up, indices), atol=1e-5)


# --- stacked adapters ------------------------------------------------------------------------------------------------


def test_a_stacked_adapter_is_the_second_on_the_merged_first(served, small_run):
    first, second = served.pretraining / "checkpoint-3", served.finetuning / "checkpoint-3"
    folder = stack(first, second, served.run / "serving" / "both")
    ids = torch.tensor([prompts.question_ids(shared.tokenizer(), QUESTION)])

    def base():
        return load_base(EMBEDDED, None).float()

    with torch.inference_mode():
        merged = attach_adapter(base(), first).merge_and_unload()
        wanted = attach_adapter(merged, second).float()(ids).logits
        found = attach_adapter(base(), folder).float()(ids).logits
        alone = attach_adapter(base(), second).float()(ids).logits
    assert torch.allclose(found, wanted, atol=1e-3) and not torch.allclose(found, alone, atol=1e-2)
    config = read_adapter_config(folder)
    assert (config["r"], config["lora_alpha"]) == (16, 16)
    assert all(tensor.shape[0 if "lora_A" in name else 1] == 16 for name, tensor in load_file(
        folder / "adapter_model.safetensors").items())  # fmt: skip


def test_a_stacked_adapter_is_made_again_after_training(served):
    first, second = served.pretraining / "checkpoint-3", served.finetuning / "checkpoint-3"
    path = stack(first, second, served.run / "both") / "adapter_model.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(second / "adapter_model.safetensors").items()}
    save_file(tensors, second / "adapter_model.safetensors")
    before = load_file(path)
    after = load_file(stack(first, second, served.run / "both") / "adapter_model.safetensors")
    assert not torch.equal(before[name := next(iter(before))], after[name])


def test_adapters_that_cannot_be_stacked(served):
    first, second = served.pretraining / "checkpoint-3", served.finetuning / "checkpoint-3"
    tensors = load_file(second / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[:-2]), second / "adapter_model.safetensors")
    with pytest.raises(UserError, match="do not adapt the same modules"):
        stack(first, second, served.run / "both")
    (second / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="checkpoint-3: it is damaged, or of another base"):
        stack(first, second, served.run / "both")
    (second / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="checkpoint-3: adapter_config.json is missing or damaged"):
        stack(first, second, served.run / "both")
    assert not (served.run / "both").exists()


def test_plugin_leaves_an_engine_alone_that_we_did_not_start(monkeypatch):
    """vLLM is not in this environment, so replacing anything of it fails with ImportError."""
    monkeypatch.delenv(lora_on_cpu.OURS, raising=False)
    lora_on_cpu.register()
    monkeypatch.setenv(lora_on_cpu.OURS, "1")
    with pytest.raises(ImportError):
        lora_on_cpu.register()
