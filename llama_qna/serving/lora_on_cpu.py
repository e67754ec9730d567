"""A plugin for vLLM 0.32 on CPUs: the product of an adapter is computed once for all tokens that use it.

vLLM's own way (`vllm.lora.ops.torch_ops`) copies the adapter's matrices once for every token, so that a batch costs as
much as its tokens one by one; and where requests for the base and for an adapter share a batch, the base's tokens,
marked -1, get the last adapter. vLLM loads this module by its entry point, in any environment that has this package; it
acts only in the engine that `engine.serve` starts. See
https://docs.vllm.ai/en/stable/design/plugin_system/.
"""

from __future__ import annotations

import os

OURS = "LLAMA_QNA_ENGINE"  # in the environment of an engine that we start


def register() -> None:
    """Put the functions of this module in the place of vLLM's, in our own engine; on a GPU nobody calls them."""
    if OURS not in os.environ:
        return
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    for module in (lora_ops, punica_cpu):  # the first holds those for prompts, which call these
        module.bgmv_shrink, module.bgmv_expand, module.bgmv_expand_slice = shrink, expand, expand_slice


def product(inputs, weights, adapters):
    """x W^T of each row with the weights of its adapter, and zero of a row without one.

    Args:
        inputs: x, (T, in).
        weights: of all adapters, (L, out, in) or (L, 1, out, in).
        adapters: the adapter of each row, 0 to L - 1; -1: none; (T,).

    Returns:
        (T, out), in the type of the weights.
    """
    weights = weights.flatten(1, 2) if weights.dim() == 4 else weights
    inputs = inputs.to(weights.dtype)
    used = adapters.unique().tolist()
    if len(used) == 1 and used[0] >= 0:
        return inputs @ weights[used[0]].T
    result = inputs.new_zeros(len(inputs), weights.shape[1])
    for adapter in used:
        if adapter >= 0:
            rows = (adapters == adapter).nonzero().squeeze(1)
            result[rows] = inputs[rows] @ weights[adapter].T
    return result


def shrink(inputs, lora_b_weights, output_tensor, lora_indices_tensor, scaling=1.0):
    """`bgmv_shrink`: x A^T times the scale, into the first columns."""
    found = product(inputs, lora_b_weights, lora_indices_tensor)
    output_tensor[:, : found.shape[1]] = scaling * found


def expand(inputs, lora_b_weights, output_tensor, lora_indices_tensor, add_inputs=True):
    """`bgmv_expand`: (x A^T) B^T, added to the output or in its place."""
    columns = min(lora_b_weights.shape[-2], output_tensor.shape[1])  # the two may be padded differently
    expand_slice(inputs, lora_b_weights, output_tensor, lora_indices_tensor, 0, columns, add_inputs)


def expand_slice(inputs, lora_b_weights, output_tensor, lora_indices_tensor, slice_offset, slice_size, add_inputs=True):
    """`bgmv_expand_slice`: as `expand`, on some columns of the output."""
    found = product(inputs, lora_b_weights, lora_indices_tensor)[:, :slice_size].to(output_tensor.dtype)
    columns = output_tensor[: len(found), slice_offset : slice_offset + slice_size]
    if add_inputs:
        columns += found
    else:
        columns.copy_(found)
