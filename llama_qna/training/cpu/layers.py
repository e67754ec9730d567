"""A Llama's layers while it trains on a CPU: all rows of a step side by side, in the few passes of `kernels`.

A row is a run of tokens among others: norms, matrices and gates do not care where one ends, attention is told. So
nothing is computed for padding, a quarter of the tokens of a batch of chunks, and general text that is replayed beside
every step (`loss.Replay`) shares the step's matrix products, which with its 128 tokens alone would reach half their
speed.
"""

from __future__ import annotations

import torch

from llama_qna.training.cpu import attention, kernels


class Layers:
    """Matrices of one input, each by itself: one without a kept copy of its weights, or with dropout, stays peft's."""

    def __init__(self, layers):
        self.layers = layers

    def __call__(self, x):
        """The outputs side by side, (N, sum of O), of x, (N, I)."""
        return torch.cat([layer(x) for layer in self.layers], -1) if len(self.layers) > 1 else self.layers[0](x)


class Side(Layers):
    """The matrices on one side of a block, such as queries', keys' and values', below one another.

    Args:
        layers: they have the same input; their kept copies become parts of one.
    """

    def __init__(self, layers):
        super().__init__(layers)
        bases = [_base(layer) for layer in layers]
        self.weight = torch.cat([base.dequantized for base in bases]) if len(bases) > 1 else bases[0].dequantized
        self.columns = kernels.side_by_side(len(base.dequantized) for base in bases)
        for base, rows in zip(bases, self.columns, strict=True):
            base.dequantized = self.weight[rows]

    def adapters(self) -> list[tuple] | None:
        """For `kernels.linears`; None where an adapter is switched off, merged or one of several."""
        found = []
        for layer, columns in zip(self.layers, self.columns, strict=True):
            if hasattr(layer, "lora_A"):
                if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
                    return None
                name = layer.active_adapters[0]
                # parameters may be float32, so that small steps are not rounded away; products are in 16 bits
                down, up = (part[name].weight.to(self.weight.dtype) for part in (layer.lora_A, layer.lora_B))
                found.append((columns, down, up, layer.scaling[name]))
        return found

    def __call__(self, x):
        adapters = self.adapters() if torch.is_grad_enabled() and self.layers[0].training else None
        if adapters is None or x.dtype != self.weight.dtype:
            return super().__call__(x)
        return kernels.linears(x, self.weight, adapters)


def _base(layer):
    return getattr(layer, "base_layer", layer)


def _side(*layers):
    """The layers as a `Side` where they can be one."""
    plain = all(hasattr(_base(layer), "dequantized") and _base(layer).bias is None for layer in layers)
    drops = (drop for layer in layers if hasattr(layer, "lora_A") for drop in layer.lora_dropout.values())
    return Side(layers) if plain and all(isinstance(drop, torch.nn.Identity) for drop in drops) else Layers(layers)


def quicken(model) -> None:
    """Let the layers of a Llama compute as this module does where `hidden_states` runs it; all else stays as it was.

    A matrix without a kept 16-bit copy (`models.nf4.dequantize_once`), or with dropout, stays with peft.

    Args:
        model: the trained one, with its adapters.
    """
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

    base = model.get_base_model()
    for module in base.modules():
        if isinstance(module, LlamaRMSNorm):
            _replace(module, _norm)
        elif isinstance(module, LlamaAttention):
            module.inputs, module.outputs = _side(module.q_proj, module.k_proj, module.v_proj), _side(module.o_proj)
            _replace(module, _attention)
            base.rows_side_by_side = True
        elif isinstance(module, LlamaMLP) and module.config.hidden_act == "silu":
            module.inputs, module.outputs = _side(module.gate_proj, module.up_proj), _side(module.down_proj)
            _replace(module, _mlp)


def _replace(module, forward) -> None:
    module.plain_forward = module.forward
    module.forward = forward.__get__(module)


def hidden_states(model, *parts):
    """The last hidden states of the tokens of several batches, in one pass if the model was quickened.

    Args:
        model: a causal language model, without peft's wrapper.
        parts: `input_ids`, (B, T), and `attention_mask`, (B, T) or None where nothing is padded.

    Returns:
        For each batch (tokens, D): its rows one after the other without their padding.
    """
    told = [torch.ones_like(ids).bool() if mask is None else mask.bool() for ids, mask in parts]
    if not hasattr(model, "rows_side_by_side"):
        passes = (model.base_model(input_ids=ids, attention_mask=mask, use_cache=False) for ids, mask in parts)
        return [found.last_hidden_state[tokens] for found, tokens in zip(passes, told, strict=True)]
    lengths = [length for tokens in told for length in tokens.sum(1).tolist()]
    found = model.base_model(
        input_ids=torch.cat([ids[tokens] for (ids, _), tokens in zip(parts, told, strict=True)])[None],
        position_ids=torch.arange(max(lengths))[None],  # of the longest row; attention knows the others'
        attention_mask=torch.empty(1, 1, 1, 1),  # stands for a mask that is made already, or transformers makes one
        use_cache=False,
        rows=attention.Rows(lengths, model.config.num_attention_heads, model.config.num_key_value_heads),
    ).last_hidden_state[0]
    return found.split([int(tokens.sum()) for tokens in told])


def _norm(self, hidden_states):
    if not (torch.is_grad_enabled() and hidden_states.requires_grad) or self.weight.requires_grad:
        return self.plain_forward(hidden_states)
    return kernels.norm(hidden_states, self.weight, self.variance_epsilon)


def _mlp(self, hidden_states):
    found = self.outputs(kernels.gate(self.inputs(hidden_states.flatten(0, -2))))
    return found.view(hidden_states.shape)


def _attention(self, hidden_states, position_embeddings=None, attention_mask=None, rows=None, **kwargs):
    if rows is None:
        return self.plain_forward(hidden_states, position_embeddings, attention_mask, **kwargs)
    cos, sin = (each[0] for each in position_embeddings)
    found = self.inputs(hidden_states[0]).unflatten(-1, (-1, self.head_dim))  # (tokens, heads of all three, D)
    return self.outputs(attention.attention(found, cos, sin, rows, self.scaling).flatten(1))[None], None
