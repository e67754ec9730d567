"""Weights of strangers are data: nothing that is loaded runs code, and what does not fit is refused in one line.

Only safetensors are read, since a pickle can run anything when it is opened; code that comes with a model is never run
(`trust_remote_code` is always False); tensors that are missing are no reason to go on with random ones.
"""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from pathlib import Path

from llama_qna import UserError, first_line, one_line
from llama_qna.models.device import is_out_of_memory
from llama_qna.project.recipe import EMBEDDED


def from_pretrained(auto_class, base_model: str, name: str, **options):
    """`from_pretrained` whose failures are one clear line.

    Args:
        base_model: what the recipe calls it.
        name: the folder or hub name to load from.

    Raises:
        UserError: it cannot be reached, is gated, is damaged, or asks for code of its own to be run.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)  # what goes wrong is said once, below
    try:
        return auto_class.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # a damaged folder makes transformers raise whatever it pleases
        if is_out_of_memory(error):
            raise
        raise UserError(f"base_model {base_model}{_what_is_wrong(error, base_model, name)}") from None


def _what_is_wrong(error: Exception, base_model: str, name: str) -> str:
    """The end of the line that begins with the model's name, from what transformers and the hub's client raised."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    causes, cause = [], error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, GatedRepoError) for cause in causes) or "gated repo" in str(error):
        return f" is gated: ask for access at https://huggingface.co/{base_model}, then run `hf auth login`"
    if "trust_remote_code" in str(error):
        return (
            " comes with code of its own, which is never run here: choose a model whose architecture is part of "
            "transformers"
        )
    if Path(name).exists() or not isinstance(error, (OSError, HfHubHTTPError, ValueError)):
        return f": no model could be loaded from this folder ({first_line(error)})"
    return f" cannot be reached: check the name and the network, or set base_model to {EMBEDDED} or to a local folder"


def whole_model(auto_class, base_model: str, name: str, **options):
    """A model from safetensors that hold every one of its tensors; transformers makes missing ones up at random.

    Raises:
        UserError: as `from_pretrained`, and where a tensor is missing.
    """
    model, found = from_pretrained(
        auto_class, base_model, name, use_safetensors=True, output_loading_info=True, **options
    )
    if found["missing_keys"]:
        raise UserError(
            f"base_model {base_model}: {len(found['missing_keys'])} tensors are missing in its weights, such as "
            f"{min(found['missing_keys'])}"
        )
    return model


@contextmanager
def adapter_of(adapter: Path, *bases: str | None):
    """Load an adapter inside this, which gives its configuration; whatever is wrong with it is one line.

    Args:
        bases: the names of the base that it is put on. An adapter that names another one is refused.

    Raises:
        UserError: the adapter is not LoRA in safetensors, of another base, damaged, or of other shapes than the base.
    """
    shown, config = f"{adapter.parent.name}/{adapter.name}", read_adapter_config(adapter)
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    if kind != "LORA" or config.get("megatron_config"):  # which makes peft import a module that the file names
        raise UserError(f"adapter {shown}: {one_line(str(kind or 'it'))} is no plain LoRA adapter")
    names = [name for name in bases if name]
    if base and names and base not in names:
        raise UserError(f"adapter {shown} was trained on {one_line(str(base))}, but the base is {names[0]}")
    if not (adapter / "adapter_model.safetensors").is_file():
        pickled = "only pickled weights, which are never loaded" if any(adapter.glob("*.bin")) else "no weights"
        raise UserError(f"adapter {shown}: there are {pickled}; adapter_model.safetensors is needed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield config
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"adapter {shown}: it is damaged, or of another base ({first_line(error)})") from None


def read_adapter_config(adapter: Path) -> dict:
    """The content of `adapter_config.json`.

    Raises:
        UserError: it is not there, or damaged.
    """
    try:
        return dict(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        shown = f"{adapter.parent.name}/{adapter.name}"
        raise UserError(f"adapter {shown}: adapter_config.json is missing or damaged; train it again") from None


def check_all_there(model, adapter: Path) -> None:
    """Refuse an adapter file that lacks tensors of the adapter, or has others; peft goes on with untrained ones.

    Raises:
        ValueError: the first of them.
    """
    from peft.utils import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        odd = set(file.keys()) ^ set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if odd:
        raise ValueError(f"{len(odd)} tensors are missing or of no use, such as {min(odd)}")
