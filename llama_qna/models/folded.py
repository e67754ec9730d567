"""A base with a trained adapter folded into its 16-bit weights, where it has them: a model that only answers.

peft and bitsandbytes, which training needs, take longer to import than the embedded model takes to answer.
"""

from __future__ import annotations

from pathlib import Path

from llama_qna.models.adapters import attach_adapter
from llama_qna.models.base import load_base
from llama_qna.models.safety import adapter_of
from llama_qna.project.variant import Reader

PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"  # of peft's names


def load_reader(reader: Reader):
    """The base with a reader's adapter.

    Raises:
        UserError: as `load_folded`.
    """
    recipe = reader.recipe
    if recipe.quantization.bits == 16:
        return load_folded(recipe.base_model, reader.adapter)
    # folding would round the sum to 4 bits
    return attach_adapter(load_base(recipe.base_model, recipe.quantization), reader.adapter)


def load_folded(base_model: str, adapter: Path):
    """The base in 16 bits with W + alpha / r * B A in place of W (LoRA, arXiv:2106.09685, section 4.1), in eval mode.

    It computes what `adapters.attach_adapter` does on a base whose weights are kept in 16 bits.

    Raises:
        UserError: the base cannot be had; the adapter is damaged, of another base, or more than plain LoRA.
    """
    import torch
    from safetensors.torch import load_file

    model = load_base(base_model, None)
    with adapter_of(adapter, base_model) as config, torch.no_grad():
        tensors = load_file(adapter / "adapter_model.safetensors")
        names = {name.removeprefix(PREFIX).removesuffix(A).removesuffix(B) for name in tensors}
        odd = [key for key in ("use_dora", "use_rslora", "alpha_pattern", "rank_pattern") if config.get(key)]
        if odd or len(tensors) != 2 * len(names):
            raise ValueError(f"not plain LoRA: {', '.join(odd) or 'tensors without their partner'}")
        for name in names:
            weight = model.get_submodule(name).weight
            a, b = (tensors[f"{PREFIX}{name}{end}"].to(weight.device).float() for end in (A, B))  # (r, in), (out, r)
            weight.copy_(weight.float() + b @ a * (config["lora_alpha"] / config["r"]))
    return model
