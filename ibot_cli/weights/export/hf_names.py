"""Our tensors in the names of Hugging Face's transformers library, as its versions 4 and 5 save them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ibot_cli.weights.export.hf_config import model_class
from ibot_cli.weights.export.official_names import position_index
from ibot_cli.weights.export.subject import Subject
from ibot_cli.weights.norm_epsilon import LIBRARIES, OURS, swin_at_epsilon

BASES = {
    "ViTForImageClassification": "vit.",
    "BeitForImageClassification": "beit.",
    "SwinForImageClassification": "swin.",
    "Dinov2ForImageClassification": "dinov2.",
    "Dinov2WithRegistersForImageClassification": "dinov2_with_registers.",
}
_SHARED = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^register_tokens$", "embeddings.register_tokens"),
    (r"^norm\.", "layernorm."),
    (r"^layers\.(\d+)\.blocks\.", r"encoder.layers.\1.blocks."),
    # timm reduces before a stage, Hugging Face after the one before it.
    (r"^layers\.(\d+)\.downsample\.", lambda match: f"encoder.layers.{int(match[1]) - 1}.downsample."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.attn\.relative_position_bias_table$", ".attention.self.relative_position_bias_table"),
)
_PLAIN = (
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_PARTS = ("query", "key", "value")


def tensors_of(subject: Subject) -> dict[str, Tensor]:
    """The state dict of `model_class(subject)`."""
    kind = model_class(subject)
    tensors = dict(subject.tensors)
    if kind.startswith("Swin"):
        tensors = swin_at_epsilon(tensors, OURS, LIBRARIES)
    found = _translated(tensors, kind)
    if kind.startswith("Swin"):
        found |= _window_tables(found)
    elif kind.startswith("Dinov2"):
        found |= _of_dinov2(subject, found)
    elif kind.startswith("Beit"):
        # Adds the same to every score of a query, so the softmax does not see it.
        found = {
            re.sub(r"\.layer_scale([12])\.lambda1$", r".lambda_\1", name): value
            for name, value in found.items()
            if not name.endswith(".key.bias")
        }
    found |= _pooled(subject, kind)
    base = BASES.get(kind, "")
    whole = {f"{base}{name}": value for name, value in found.items()} | _head(subject, kind)
    return {name: (value if value.dtype == torch.int64 else value.detach().float()).contiguous().clone()
            for name, value in whole.items()}  # fmt: skip


def _translated(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Names of blocks and embeddings; query, key and value taken apart."""
    steps = _SHARED if kind.startswith("Dinov2") else _SHARED + _PLAIN
    inner = "self" if kind.startswith("Swin") else "attention"
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        for pattern, replacement in steps:
            name = re.sub(pattern, replacement, name)
        if ".attn.qkv." in name:
            for part, rows in zip(_PARTS, value.chunk(3), strict=True):
                found[name.replace(".attn.qkv.", f".attention.{inner}.{part}.")] = rows
        else:
            found[name] = value
    return found


def _window_tables(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where each pair of tokens of a window looks up its bias: version 4 of the library expects it in the file."""
    name = ".attention.self.relative_position_bias_table"
    tables = {key: value for key, value in found.items() if key.endswith(name)}
    return {key.replace("bias_table", "index"): position_index(table) for key, table in tables.items()}


def _of_dinov2(subject: Subject, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What its class has besides: a mask token, and layer scale, which is 1 where the network has none."""
    width = found["layernorm.weight"]
    token = subject.loaded.mask_token
    depth = sum(name.endswith(".norm1.weight") for name in found)
    ones = {
        f"encoder.layer.{index}.layer_scale{branch}.lambda1": torch.ones_like(width)
        for index in range(depth)
        for branch in (1, 2)
        if f"encoder.layer.{index}.layer_scale{branch}.lambda1" not in found
    }
    return ones | {"embeddings.mask_token": torch.zeros_like(width)[None] if token is None else token}


def _pooled(subject: Subject, kind: str) -> dict[str, Tensor]:
    """The pooling layers: of `ViTModel` one that hands on the class token, so that no random one is made up."""
    classifier = subject.classifier
    if kind == "ViTModel":
        bias = torch.zeros_like(subject.tensors["norm.bias"])
        return {"pooler.dense.weight": torch.eye(len(bias)), "pooler.dense.bias": bias}
    if classifier is not None and classifier.fc_norm is not None:
        return {f"pooler.layernorm.{name}": value for name, value in classifier.fc_norm.state_dict().items()}
    return {}


def _head(subject: Subject, kind: str) -> dict[str, Tensor]:
    if subject.classifier is None:
        return {}
    head = subject.classifier.head
    weight = head.weight.detach()
    if kind.startswith("Dinov2"):  # its head also sees the mean of the patches, here with zeros
        weight = torch.cat([weight, torch.zeros_like(weight)], dim=1)
    return {"classifier.weight": weight, "classifier.bias": head.bias.detach()}
