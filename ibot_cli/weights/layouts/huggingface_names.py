"""Names of Hugging Face's vision transformers, of any version of the library, as timm's.

Source:
    The transformers library: names as it saves them and as its version 5 calls them in memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ibot_cli.errors import WeightsError

PREFIXES = r"(vit|dinov2|dinov2_with_registers|swin|beit)\."
# What a task put on top of the backbone, and tables that the network computes itself.
UNUSED = re.compile(
    r"(pooler\.dense|classifier|decoder|lm_head)\..+|(.+\.)?(relative_position_index|attn_mask|position_ids)"
)
PATCHES = "patch_embed.proj.weight"
MASK_TOKEN = "embeddings.mask_token"
_TOGETHER = {
    "attn.q": ("attn.qkv", ("attn.q", "attn.k", "attn.v")),
    "mlp.gate_proj": ("mlp.w12", ("mlp.gate_proj", "mlp.up_proj")),
}
_STEPS = (
    (rf"^{PREFIXES}", ""),
    # Swin: the stages reduce at their end, in timm at the start of the next one.
    (r"^encoder\.layers\.(\d+)\.blocks\.(\d+)\.", r"layers.\1.blocks.\2."),
    (r"^encoder\.layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample."),
    (r"^(encoder\.layer|layers)\.(\d+)\.(?!blocks\.|downsample\.)", r"blocks.\2."),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "register_tokens"),
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"^layernorm\.", "norm."),
    (r"^(encoder\.relative_position_bias|shared_position_bias)\.", "rel_pos_bias."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(attention|self)\.", ".attention."),
    (r"\.(attention\.)?relative_position_bias\.relative_position_bias_table$", ".attn.relative_position_bias_table"),
    (r"\.attention\.relative_position_bias_table$", ".attn.relative_position_bias_table"),
    (r"\.attention\.(q_proj|query)\.", ".attn.q."),
    (r"\.attention\.(k_proj|key)\.", ".attn.k."),
    (r"\.attention\.(v_proj|value)\.", ".attn.v."),
    (r"\.attention\.(o_proj|output\.dense)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.(weights_out|down_proj)\.", ".mlp.w3."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.lambda_([12])$", r".gamma_\1"),
)


def timm_name(name: str) -> str:
    """One name; those that are not known stay as they are."""
    for pattern, replacement in _STEPS:
        name = re.sub(pattern, replacement, name)
    return name


def translate(state: Mapping[str, Tensor], *, missing_bias: bool) -> tuple[dict[str, Tensor], list[str], Tensor | None]:
    """A model's tensors in timm's names, query, key and value joined.

    Args:
        state: As in the file.
        missing_bias: Whether the model has no bias for query, key and value; zeros are put in their place.

    Returns:
        The tensors, the names that are known and not needed, and the mask token `[1, D]` if there is one.

    Raises:
        WeightsError: A part of a joined layer is missing.
    """
    tensors: dict[str, Tensor] = {}
    unused, mask_token = [], None
    for name, tensor in state.items():
        bare = re.sub(rf"^{PREFIXES}", "", name)
        if bare == MASK_TOKEN:
            mask_token = tensor.detach().float().reshape(1, -1).clone()
        elif UNUSED.fullmatch(bare):
            unused.append(name)
        else:
            tensors[timm_name(name)] = tensor
    return _joined(tensors, missing_bias), unused, mask_token


def _joined(tensors: Mapping[str, Tensor], missing_bias: bool) -> dict[str, Tensor]:
    """Layers that timm has as one, in place of their parts."""
    joined = dict(tensors)
    for name in tensors:
        match = re.fullmatch(r"(blocks\..+\.|layers\..+\.)(attn\.q|mlp\.gate_proj)\.(weight|bias)", name)
        if match is None:
            continue
        block, first, kind = match.groups()
        whole, parts = _TOGETHER[first]
        names = [f"{block}{part}.{kind}" for part in parts]
        if kind == "bias" and f"{block}attn.k.bias" not in tensors:  # BEiT: zero, and not in its files either
            joined[f"{block}attn.q_bias"] = joined.pop(f"{block}attn.q.bias")
            joined[f"{block}attn.v_bias"] = joined.pop(f"{block}attn.v.bias")
            continue
        lost = [part for part in names if part not in tensors]
        if lost:
            raise WeightsError(
                f"A block is incomplete: {', '.join(lost)} is missing beside {name}.",
                "Download or copy the weights again.",
            )
        joined[f"{block}{whole}.{kind}"] = torch.cat([joined.pop(part) for part in names])
    if missing_bias:
        weights = {name: tensor for name, tensor in joined.items() if name.endswith(".attn.qkv.weight")}
        for name, tensor in weights.items():
            joined.setdefault(f"{name.removesuffix('weight')}bias", torch.zeros_like(tensor[:, 0]))
    return joined
