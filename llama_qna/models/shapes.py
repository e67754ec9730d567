"""The shapes of a Llama model, from its `config.json` or known by name, before any weight is loaded.

And the sizes in which `training` cuts up its work: they decide what a plan has to count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llama_qna import UserError
from llama_qna.models.base import EMBEDDED, EMBEDDED_FOLDER, local_folder
from llama_qna.project.recipe import Lora

HEAD_TILE = 256  # positions whose scores over the vocabulary exist at once: 25 MB in 16 bits for 49,152 tokens
ATTENTION_QUERIES = 128  # queries at once in attention on a CPU
LONGEST_ROW = 512  # tokens; for longer rows PyTorch's own attention is quicker, and needs no (T, T) scores
REPLAY_PIECE = 128  # tokens of a piece of general text (`training.loss.Replay`)


def replay_pieces(tokens: int) -> int:
    """Pieces of general text that stand beside a step, of so many tokens at most but one at least; none without any."""
    return max(1, tokens // REPLAY_PIECE) if tokens else 0


@dataclass(frozen=True)
class Shapes:
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    tied: bool  # the output head is the embedding

    @property
    def query_width(self) -> int:
        """Values of a token's queries, of all heads."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Values of a token's keys, and of its values."""
        return self.key_value_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The matrices of one layer: name to (out, in)."""
        return {
            "q_proj": (self.query_width, self.hidden),
            "k_proj": (self.key_width, self.hidden),
            "v_proj": (self.key_width, self.hidden),
            "o_proj": (self.hidden, self.query_width),
            "gate_proj": (self.intermediate, self.hidden),
            "up_proj": (self.intermediate, self.hidden),
            "down_proj": (self.hidden, self.intermediate),
        }

    @property
    def linear_weights(self) -> int:
        """Weights that become 4-bit: those of all layers' matrices."""
        return self.layers * sum(rows * columns for rows, columns in self.linears.values())

    @property
    def other_weights(self) -> int:
        """Weights that stay in 16 bits: embedding, head, norms."""
        tables = 1 if self.tied else 2
        return tables * self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden

    def targets(self, lora: Lora) -> list[str]:
        """The matrices of a layer that get an adapter.

        Raises:
            UserError: a target that a Llama layer does not have.
        """
        if lora.target_modules == "all-linear":
            return list(self.linears)
        unknown = set(lora.target_modules) - set(self.linears)
        if unknown:
            raise UserError(f"lora.target_modules: a Llama layer has no {sorted(unknown)[0]}")
        return list(lora.target_modules)

    def adapter_weights(self, lora: Lora) -> int:
        return self.layers * sum(lora.r * sum(self.linears[name]) for name in self.targets(lora))


# From the models' public config.json, so that a plan needs no model hub.
KNOWN = {
    EMBEDDED: Shapes(30, 576, 1536, 9, 3, 64, 49152, True),
    "meta-llama/Llama-2-7b-chat-hf": Shapes(32, 4096, 11008, 32, 32, 128, 32000, False),
    "meta-llama/Llama-2-13b-chat-hf": Shapes(40, 5120, 13824, 40, 40, 128, 32000, False),
}


def shapes_of(base_model: str) -> tuple[Shapes, str]:
    """The shapes of a base model and where they were read; nothing is downloaded.

    Raises:
        UserError: a folder whose config.json is no Llama's, or a hub name that is neither known nor downloaded before.
    """
    folder = EMBEDDED_FOLDER if base_model == EMBEDDED else local_folder(base_model)
    if (folder / "config.json").is_file():
        return _from_config(folder / "config.json", base_model), "config.json of the model"
    if base_model in KNOWN:
        return KNOWN[base_model], "the shapes known by that name"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(base_model, "config.json")
    except HFValidationError:
        cached = None
    if isinstance(cached, str):
        return _from_config(Path(cached), base_model), "config.json, downloaded before"
    raise UserError(
        f"base_model {base_model}: its shapes are not known without the hub; known are {', '.join(KNOWN)}, local "
        "folders and what was downloaded before"
    )


def _from_config(path: Path, base_model: str) -> Shapes:
    try:
        return shapes_in(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"base_model {base_model}: {path.name} is not that of a Llama ({error})") from None


def shapes_in(config: dict) -> Shapes:
    """The shapes in the content of a Llama's `config.json`."""
    heads = config["num_attention_heads"]
    return Shapes(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
    )
