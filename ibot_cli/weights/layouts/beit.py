"""BEiT and BEiT v2: pre-trained with masked tokens, or fine-tuned classifiers.

Their relative position bias is not in the ViT of `ibot_cli.core`, so timm's network runs them, for evaluation. The
variant with absolute positions (BEiT's `pt1k` weights) is a plain ViT with layer scale once the bias of the
keys, which is always zero, stands between those of queries and values.

Source:
    The authors' code, github.com/microsoft/unilm (`beit`, `beit2`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibot_cli.data.transform import IMAGENET
from ibot_cli.errors import WeightsError
from ibot_cli.weights.files import tensors_in
from ibot_cli.weights.layouts.found import Found, Preparation, TimmNetwork
from ibot_cli.weights.loaded import Which
from ibot_cli.weights.origin import Origin, plain_arguments
from ibot_cli.weights.shapes import BackboneShape, backbone_shape

State = Mapping[str, Tensor]
_SHARED = "rel_pos_bias.relative_position_bias_table"
_OWN = "blocks.0.attn.relative_position_bias_table"
_TOKENIZER = "quantize.embedding.weight"
_UNUSED = re.compile(r"(lm_head|head|cls_pt_layers|cls_pt_norm|cls_pt_lm_head)\..*|(.*\.)?relative_position_index")
_CROP_RATIO = 0.875
_NO_CLASS_TOKEN = (  # linear evaluation in arXiv 2106.08254
    "BEiT trains no class token; the mean of the patches stands for what it learnt. Features of its last block tell "
    "classes apart badly: its authors probe block 9 of 12, or 14 of 24."
)
_SAME_NAMES = "Images are normalised as for BEiT, with mean and deviation 0.5; fine-tuned BEiT v2 looks the same."
_NORMS = {".gamma_1": ".ls1.gamma", ".gamma_2": ".ls2.gamma"}  # as timm's ViT calls layer scale


def matches(content: Mapping[str, Any]) -> bool:
    """Whether a loaded file has queries and values with biases of their own, or is a tokenizer of BEiT v2."""
    names = _plain(tensors_in(content)).keys()
    return "blocks.0.attn.q_bias" in names or _SHARED in names or _TOKENIZER in names


def read(content: Mapping[str, Any], path: Path, which: Which, heads: int | None) -> Found:
    """The backbone; what predicts tokens or classes is known and unused.

    Raises:
        WeightsError: It is a tokenizer, or no vision transformer.
    """
    tensors = _plain(tensors_in(content))
    if _TOKENIZER in tensors:
        raise WeightsError(
            f"{path} is a tokenizer of BEiT v2 (VQ-KD), no backbone.", "Use the weights that were pre-trained with it."
        )
    arguments = plain_arguments(content.get("args"))
    unused = tuple(name for name in tensors if _UNUSED.fullmatch(name))
    token = tensors.get("mask_token")
    wanted = {name: value for name, value in tensors.items() if name not in (*unused, "mask_token")}
    plain_vit = "pos_embed" in wanted and "norm.weight" in wanted and _SHARED not in wanted and _OWN not in wanted
    network, named = _our_vit(wanted, arguments, heads) if plain_vit else _timm(wanted, arguments, heads)
    epoch = content.get("epoch")
    finetuned = "head.weight" in unused
    method = "BEiT v2" if any(name.startswith("cls_pt_layers.") for name in unused) else "BEiT"
    prepared = _preparation(network, method, arguments)
    return Found(
        network=network,
        tensors={f"backbone.{name}": value for name, value in named.items()},
        unused=unused,
        preparation=prepared,
        mask_token=None if token is None else token.detach().float().reshape(1, -1).clone(),
        notes=tuple(_notes(method, finetuned, prepared, arguments)),
        origin=Origin(
            layout=f"{'fine-tuned' if finetuned else 'pre-trained'} {method} checkpoint",
            path=str(path),
            method=method,
            epoch=epoch if isinstance(epoch, int) else None,
            arguments=arguments,
        ),
    )


def _plain(tensors: State) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def _our_vit(tensors: State, arguments: Mapping[str, Any], heads: int | None) -> tuple[BackboneShape, State]:
    """Absolute positions only."""
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith(".q_bias"):
            queries, values = value, tensors[name.replace(".q_bias", ".v_bias")]
            named[name.replace(".q_bias", ".qkv.bias")] = torch.cat([queries, torch.zeros_like(queries), values])
        elif not name.endswith(".v_bias"):
            end = name[name.rfind(".") :]
            named[name.removesuffix(end) + _NORMS.get(end, end)] = value
    prefixed = {f"backbone.{name}": value for name, value in named.items()}
    return backbone_shape(prefixed, arguments, heads), named


def _timm(tensors: State, arguments: Mapping[str, Any], heads: int | None) -> tuple[TimmNetwork, State]:
    """The arguments of timm's BEiT that make the network of these tensors."""
    projection, table = tensors.get("patch_embed.proj.weight"), tensors.get(_SHARED, tensors.get(_OWN))
    hidden = tensors.get("blocks.0.mlp.fc1.weight")
    if projection is None or projection.ndim != 4 or hidden is None:
        raise WeightsError(
            "The weights are no BEiT that is known: patch_embed.proj.weight or blocks.0.mlp.fc1.weight is missing.",
            "Supported are pre-trained and fine-tuned BEiT and BEiT v2 of the authors.",
        )
    width, channels, patch_size, _ = projection.shape
    if table is None:
        shape, _ = _our_vit(tensors, arguments, heads)
        side, num_heads = shape.image_size // patch_size, shape.heads
    else:
        side, num_heads = (round((len(table) - 3) ** 0.5) + 1) // 2, table.shape[1]
    kwargs = {
        "img_size": side * patch_size,
        "patch_size": patch_size,
        "in_chans": channels,
        "embed_dim": width,
        "depth": len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        "num_heads": num_heads,
        "mlp_ratio": len(hidden) / width,
        "init_values": 0.1 if "blocks.0.gamma_1" in tensors else 0.0,  # as published; timm takes None for its default
        "use_abs_pos_emb": "pos_embed" in tensors,
        "use_rel_pos_bias": _OWN in tensors,
        "use_shared_rel_pos_bias": _SHARED in tensors,
        "global_pool": "avg" if "fc_norm.weight" in tensors else "token",
        "num_classes": 0,
    }
    return TimmNetwork(name="beit_base_patch16_224", kwargs=kwargs), tensors


def _preparation(network: BackboneShape | TimmNetwork, method: str, arguments: Mapping[str, Any]) -> Preparation:
    """BEiT's published weights saw images of mean and deviation 0.5, those with absolute positions and v2 ImageNet's.

    A checkpoint of a training says it itself.
    """
    ours = isinstance(network, BackboneShape)
    channels = network.channels if isinstance(network, BackboneShape) else network.kwargs["in_chans"]
    size = network.image_size if isinstance(network, BackboneShape) else network.kwargs["img_size"]
    imagenet = arguments.get("imagenet_default_mean_and_std", ours or method == "BEiT v2")
    half = ((0.5,) * channels, (0.5,) * channels)
    mean, std = IMAGENET.get(channels, half) if imagenet else half
    return Preparation(mean=mean, std=std, image_size=size, crop_ratio=_CROP_RATIO)


def _notes(method: str, finetuned: bool, prepared: Preparation, arguments: Mapping[str, Any]) -> list[str]:
    if not finetuned:
        return [] if method == "BEiT v2" else [_NO_CLASS_TOKEN]
    guessed = "imagenet_default_mean_and_std" not in arguments and prepared.mean[0] == 0.5
    return ["The classifier was left out: evaluations use the backbone.", *([_SAME_NAMES] if guessed else [])]
