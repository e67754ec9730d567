"""Weights in 4 bits (bitsandbytes NF4) that train on a CPU, and that may keep their 16-bit copy; 16 bits likewise."""

from __future__ import annotations


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
    costs two bytes a weight and saves the dequantization, most of the time of a step with short rows. Where the base
    was loaded in 16 bits its own weights are the copy.
    """
    import torch.nn.functional as F
    from torch.nn import Linear

    def forward(self, x):
        return F.linear(x.to(self.dequantized.dtype), self.dequantized, self.bias).to(x.dtype)

    for name, module in model.get_decoder().named_modules():
        if isinstance(module, Linear) and ".lora_" not in name:
            module.register_buffer("dequantized", dequantize(module), persistent=False)
            module.forward = forward.__get__(module)


def keeps_copies(model) -> bool:
    """Whether a model computes with kept 16-bit copies of its weights."""
    return any(hasattr(module, "dequantized") for module in model.modules())


def copies_fit(model, free: int) -> bool:
    """Whether the 16-bit copies of a model's 4-bit weights leave a tenth of so many bytes free for its work."""
    from bitsandbytes.nn import Linear4bit

    weights = sum(m.in_features * m.out_features for m in model.modules() if isinstance(m, Linear4bit))
    return model.dtype.itemsize * weights < 0.9 * free


def dequantize(layer):
    """The weights of a `Linear4bit` in its 16-bit compute type, or those of a 16-bit layer: (out, in)."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    if not isinstance(layer, Linear4bit):
        return layer.weight.data
    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype)
