"""LoRA adapters: attached, swapped, merged into the base, and two of them stacked into one."""

from __future__ import annotations

from pathlib import Path

from llama_qna import UserError
from llama_qna.models.base import load_base, model_path
from llama_qna.models.device import available_memory, device
from llama_qna.models.nf4 import dequantize, dequantize_once, keeps_copies
from llama_qna.models.safety import adapter_of, check_all_there, read_adapter_config
from llama_qna.project.files import whole_folder, write_json
from llama_qna.project.recipe import HUB_NAMES, Lora, Quantization
from llama_qna.project.stage import sha256_once


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


def attach_adapter(model, adapter: Path, trainable: bool = False):
    """Put a trained adapter on a base model, in eval mode; or, to go on training it, in float32, as peft loads it.

    Raises:
        UserError: it is damaged, or of another base.
    """
    from peft import PeftModel

    with adapter_of(adapter, *_names(model)):
        model = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
        check_all_there(model, adapter)
    if trainable:  # by the recipe's name of the base peft would ask the hub for its configuration at every save
        model.peft_config["default"].base_model_name_or_path = model.get_base_model().name_or_path
        return model
    _add_to_kept_copies(model)
    return model.eval()


def adapter_from(model, adapter: Path, lora: Lora, seed: int):
    """Put a new adapter on a base that computes what a smaller one does: training goes on from a skill.

    The rows of A and the columns of B beyond the smaller rank are as in a fresh adapter, A random and B zero (LoRA,
    arXiv:2106.09685, section 4.1), and the scale alpha / r is that of the smaller one, so that no logit changes.

    Args:
        lora: of the new adapter; its rank is at least the smaller one's, its alpha is not used.

    Raises:
        UserError: the smaller adapter is damaged, of another base, of a higher rank or of other modules.
    """
    import torch
    from peft import get_peft_model
    from safetensors.torch import load_file

    config = read_adapter_config(adapter)
    rank, scale = config["r"], config["lora_alpha"] / config["r"]
    if rank > lora.r:
        raise UserError(f"lora.r is {lora.r}, but {adapter.parent.name}, from which training starts, has rank {rank}")
    torch.manual_seed(seed)
    grown = get_peft_model(model, lora_config(lora.model_copy(update={"alpha": scale * lora.r})))
    places = {name.replace(".default.", "."): value for name, value in grown.named_parameters() if ".lora_" in name}
    with adapter_of(adapter, *_names(model)), torch.no_grad():
        tensors = load_file(adapter / "adapter_model.safetensors")
        if tensors.keys() != places.keys():
            raise ValueError("it does not adapt the modules that lora.target_modules names")
        for name, tensor in tensors.items():
            rows, columns = tensor.shape
            places[name][:rows, :columns] = tensor
    return grown


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
    _add_to_kept_copies(model)


class Models:
    """The models of one base: weights are loaded once, or again if they were replaced, and adapters swapped on them."""

    def __init__(self, base_model: str, quantization: Quantization):
        self.base_model, self.quantization = base_model, quantization
        self._models = {}  # by the folder of the weights: the model, its weights, and the adapter on it

    def load(self, weights: Path | None, adapter: Path | None):
        """The base, or the weights in its place, with an adapter or with none; the one before is then gone from it.

        Raises:
            UserError: the base model cannot be had, or the adapter cannot be read.
        """
        of_weights, of_adapter = _content(weights), _content(adapter)  # their paths stay when they are trained again
        if weights in self._models and self._models[weights][1] != of_weights:
            del self._models[weights]
        if weights not in self._models:
            sizes = [model.get_memory_footprint() for model, *_ in self._models.values()]
            if sizes and max(sizes) > 0.8 * available_memory(device()):  # no room for another one beside them
                self._models.clear()
            self._models[weights] = load_base(self.base_model, self.quantization, weights=weights), of_weights, None
        model, _, attached = self._models[weights]
        if attached != of_adapter:
            del self._models[weights]  # in case that the next line fails halfway
            model = _with_adapter(model, adapter)
            self._models[weights] = model, of_weights, of_adapter
        return model


def _content(folder: Path | None) -> tuple | None:
    """What tells the weights in a folder apart: where they lie, and the hashes of their files."""
    return folder and (folder, *map(sha256_once, sorted(folder.glob("*.safetensors"))))


def _with_adapter(model, adapter: Path | None):
    """The model with another adapter on it, or, with None, without the one that it has."""
    dequantized = keeps_copies(model)
    if adapter is None and dequantized:  # the adapter is in the 16-bit copies: make them anew
        dequantize_once(model)
    elif adapter is None:
        model.base_model.disable_adapter_layers()
    elif not hasattr(model, "peft_config"):
        return attach_adapter(model, adapter)
    else:
        if not dequantized:
            model.base_model.enable_adapter_layers()
        swap_adapter(model, adapter)
    return model


def delta(layer, name: str = "default"):
    """What an adapter adds to the weights of its layer, `alpha / r * B A`, in float32: (out, in).

    Args:
        layer: peft's layer, which holds the base's layer and its adapters.
        name: of the adapter in the layer.
    """
    a, b = layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float()  # (r, in), (out, r)
    return b @ a * layer.scaling[name]


def _add_to_kept_copies(model) -> None:
    """Add the adapter to the 16-bit copy of its weights that a layer may keep (`dequantize_once`): W + BA.

    The two small products of the adapter are then saved at every step. The 4-bit weights stay as they are, and the copy
    is made from them each time, so checkpoints can be swapped; the sum is rounded to 16 bits once.
    """
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer) and hasattr(layer.base_layer, "dequantized"):
            base, name = layer.base_layer, layer.active_adapters[0]
            base.dequantized = (dequantize(base).float() + delta(layer, name)).to(base.dequantized.dtype)
            layer.merged_adapters = [name]  # peft then leaves the layer to its base


def merge_adapter(base_model: str, quantization: Quantization, adapter: Path, folder: Path) -> Path:
    """Merge an adapter into the 16-bit base (never into 4-bit weights) and save the result as a model folder.

    Args:
        quantization: the recipe's, in whose compute type the weights are merged.
    """
    # in main memory: the 16-bit weights of 13B, 26 GB, do not fit the 24 GB card that its 4-bit weights train on
    model = attach_adapter(load_base(base_model, quantization.unquantized, on="cpu"), adapter).merge_and_unload()
    with whole_folder(folder) as new:
        model.save_pretrained(new, max_shard_size="10TB")  # one file, which fine-tuning checks
    return folder


def name_base_in_adapter(adapter: Path, base_model: str) -> None:
    """Write the recipe's name of the base into a saved adapter, in place of the folder of this machine."""
    config = read_adapter_config(adapter) | {"base_model_name_or_path": base_model}
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()  # peft writes a set, in another order in every process
    write_json(adapter / "adapter_config.json", config)


def stack(first: Path, second: Path, folder: Path) -> Path:
    """Write one adapter in place of two, of which the second was trained on the base with the first merged into it.

    The sum of two products of low rank is such a product: s1 B1 A1 + s2 B2 A2 = [s1 B1, s2 B2] [A1; A2], of rank
    r1 + r2, with s = alpha / r (LoRA, arXiv:2106.09685, section 4.1). Exact, but for the rounding of the merged weights
    on which the second was trained: it is not repeated.

    Args:
        folder: where the result is written, in place of what is there.

    Returns:
        The folder.

    Raises:
        UserError: an adapter cannot be read, or the two do not adapt the same modules.
    """
    import torch
    from safetensors.torch import save_file

    below, above = _scaled(first), _scaled(second)
    if below.keys() != above.keys():
        raise UserError(f"{first} and {second} do not adapt the same modules")
    tensors = {}
    for name in below:
        along_rank = 0 if ".lora_A." in name else 1  # A is (r, in), B is (out, r)
        tensors[name] = torch.cat([below[name], above[name]], along_rank)
    config = read_adapter_config(second)
    rank = read_adapter_config(first)["r"] + config["r"]
    with whole_folder(folder) as new:
        save_file(tensors, new / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(new / "adapter_config.json", config | {"r": rank, "lora_alpha": rank})
    return folder


def _scaled(adapter: Path) -> dict:
    """The tensors of an adapter by name, B times alpha / r, in float32."""
    from safetensors.torch import load_file

    with adapter_of(adapter) as config:
        scale, tensors = config["lora_alpha"] / config["r"], load_file(adapter / "adapter_model.safetensors")
    return {name: tensor.float() * (scale if ".lora_B." in name else 1) for name, tensor in tensors.items()}
