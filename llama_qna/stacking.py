"""Two adapters on top of each other become one, so that an engine serves both models on one base."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from llama_qna import UserError, records

MADE_OF = "made_of.json"  # the hashes of the two adapters, beside the result


def read_config(adapter: Path) -> dict:
    """The content of `adapter_config.json`.

    Raises:
        UserError: it is not there, or damaged.
    """
    path = adapter / "adapter_config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); train the adapter again") from None


def stack(first: Path, second: Path, folder: Path) -> Path:
    """Write one adapter in place of two, of which the second was trained on the base with the first merged into it.

    The sum of two products of low rank is such a product: s1 B1 A1 + s2 B2 A2 = [s1 B1, s2 B2] [A1; A2], of rank
    r1 + r2, with s = alpha / r (LoRA, arXiv:2106.09685, section 4.1). Exact, but for the rounding of the merged weights
    on which the second was trained: it is not repeated.

    Args:
        folder: where the result is written, unless it is there already, made of the same two.

    Returns:
        The folder.

    Raises:
        UserError: an adapter cannot be read, or the two do not adapt the same modules.
    """
    made_of = [records.sha256(adapter / "adapter_model.safetensors") for adapter in (first, second)]
    if (folder / MADE_OF).is_file() and json.loads((folder / MADE_OF).read_text()) == made_of:
        return folder
    import torch
    from safetensors.torch import save_file

    below, above = _scaled(first), _scaled(second)
    if below.keys() != above.keys():
        raise UserError(f"{first} and {second} do not adapt the same modules")
    tensors = {
        name: torch.cat(
            [below[name], above[name]], 0 if ".lora_A." in name else 1
        ).contiguous()  # A (r, in), B (out, r)
        for name in below
    }
    rank = read_config(first)["r"] + read_config(second)["r"]
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
    records.write_json(partial / "adapter_config.json", read_config(second) | {"r": rank, "lora_alpha": rank})
    records.write_json(partial / MADE_OF, made_of)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _scaled(adapter: Path) -> dict:
    """The tensors of an adapter by name, B times alpha / r, in float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = adapter / "adapter_model.safetensors"
    config = read_config(adapter)
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); train the adapter again") from None
    scale = config["lora_alpha"] / config["r"]
    return {name: tensor * scale if ".lora_B." in name else tensor for name, tensor in tensors.items()}
