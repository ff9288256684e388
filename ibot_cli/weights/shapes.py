"""Networks built from nothing but the names and shapes of their tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ibot_cli.config.schema import Config
from ibot_cli.core import swin, vit
from ibot_cli.core.backbone import Backbone, build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.errors import WeightsError

_LARGEST, _DEEPEST = 65536, 999  # of what a file may say
# Width to heads of published networks besides ours: huge, giant, gigantic (ViT, arXiv 2106.04560), DINOv2's giant, and
# timm's medium. Not every width is 64 per head, so no other is guessed.
_OTHER_HEADS = {512: 8, 1280: 16, 1408: 16, 1536: 24, 1664: 16}


@dataclass(frozen=True, kw_only=True)
class BackboneShape:
    """The arguments of `build_backbone`.

    Where tensors with layer scale tell the shape, its initial value is not known, and 1 stands for it.
    """

    arch: str
    image_size: int
    channels: int = 3
    patch_size: int = 16
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    window_size: int = 7
    mask_token: bool = False
    registers: int = 0
    layer_scale: float = 0.0

    @classmethod
    def configured(cls, config: Config, mask_token: bool) -> BackboneShape:
        """That of a run of `ibot pretrain`."""
        model = config.model
        return cls(
            arch=model.arch,
            image_size=config.views.global_size,
            channels=config.data.channels,
            patch_size=model.patch_size,
            width=model.width,
            depth=model.depth,
            heads=model.heads,
            window_size=model.window_size,
            mask_token=mask_token,
            registers=model.registers,
            layer_scale=model.layer_scale,
        )

    @classmethod
    def stated(cls, fields: Mapping[str, Any]) -> BackboneShape:
        """What a file says about its network.

        Raises:
            TypeError: A field is not known, or missing.
            ValueError: No network is like this.
        """
        shape = cls(**fields)
        size = swin.SIZES.get(shape.arch) or vit.SIZES.get(shape.arch)
        if size is None:
            raise ValueError(f"there is no network {shape.arch!r}")
        scaled = isinstance(shape.layer_scale, int | float) and 0 <= shape.layer_scale < math.inf
        numbers = asdict(shape) | {"registers": shape.registers + 1, "mask_token": 1, "layer_scale": int(scaled)}
        wrong = [
            f"{name} {getattr(shape, name)!r}"
            for name, value in numbers.items()
            if name != "arch" and value is not None and not (isinstance(value, int) and 0 < value <= _LARGEST)
        ]
        if wrong or (shape.depth or 0) > _DEEPEST:
            raise ValueError(f"no network has {', '.join(wrong) or f'{shape.depth} blocks'}")
        if isinstance(size, vit.Size) and (shape.width or size.width) % (shape.heads or size.heads):
            raise ValueError(f"{shape.heads} heads do not divide the width")
        return shape

    def build(self) -> Backbone:
        """A backbone of this shape with fresh weights."""
        return build_backbone(**asdict(self))


def backbone_shape(tensors: Mapping[str, Tensor], arguments: Mapping[str, Any], heads: int | None) -> BackboneShape:
    """Read the shape of a backbone from its tensors (`backbone.*`).

    Args:
        tensors: Names and tensors.
        arguments: What the checkpoint says about its training; `num_heads` is used if it is there.
        heads: Attention heads of a ViT when the caller knows them; no tensor shows them.

    Raises:
        WeightsError: It is neither a ViT nor a Swin, or its attention heads cannot be known.
    """
    projection = tensors.get("backbone.patch_embed.proj.weight")
    if projection is None or projection.ndim != 4:
        raise WeightsError(
            "The weights are no vision transformer: patch_embed.proj.weight is missing.",
            "Supported are ViT and Swin backbones.",
        )
    width, channels, patch_size, _ = projection.shape
    mask_token = "backbone.masked_embed" in tensors
    if any(name.startswith("backbone.layers.") for name in tensors):
        return _swin_shape(tensors, width, channels, mask_token)
    positions = tensors.get("backbone.pos_embed")
    if positions is None:
        raise WeightsError(
            "The weights are no known vision transformer: pos_embed is missing.",
            "Supported are ViT with learned positions, and Swin.",
        )
    if positions.ndim != 3 or positions.shape[1] < 2:
        raise WeightsError(
            f"The positions of the weights have shape {list(positions.shape)}, not [1, 1 + patches, width].",
            "Supported are ViT with learned positions, and Swin.",
        )
    side = round((positions.shape[1] - 1) ** 0.5)
    depth = _count(tensors, r"backbone\.blocks\.(\d{1,3})\.")
    registers = tensors.get("backbone.register_tokens")
    return BackboneShape(
        arch="vit_small",
        image_size=side * patch_size,
        channels=channels,
        patch_size=patch_size,
        width=width,
        depth=depth,
        heads=_heads(width, arguments) if heads is None else _checked_heads(heads, width),
        mask_token=mask_token,
        registers=0 if registers is None else registers.shape[1],
        layer_scale=float("backbone.blocks.0.ls1.gamma" in tensors),
    )


def build_head(tensors: Mapping[str, Tensor], activation: str) -> Head | None:
    """A projection head that fits `head.*` of `tensors`; None when there is none, or one of a kind we do not have."""
    sizes = {
        int(match[1]): tensor.shape
        for name, tensor in tensors.items()
        if (match := re.fullmatch(r"head\.mlp\.(\d+)\.weight", name))
    }
    linear = [sizes[index] for index in sorted(sizes) if len(sizes[index]) == 2]
    prototypes = tensors.get("head.last_layer.weight_v")
    batch_norm = any(name.endswith("running_mean") for name in tensors if name.startswith("head.mlp."))
    if not linear or prototypes is None or (len(linear) < len(sizes) and not batch_norm):
        return None
    separate = tensors.get("head.last_layer2.weight_v")
    return Head(
        linear[0][1],
        prototypes.shape[0],
        None if separate is None else separate.shape[0],
        hidden_size=linear[0][0],
        bottleneck_size=linear[-1][0],
        num_layers=len(linear),
        activation=activation,
        norm="batch" if batch_norm else "none",
        separate_mlp="head.mlp2.0.weight" in tensors,
    )


def _swin_shape(tensors: Mapping[str, Tensor], width: int, channels: int, mask_token: bool) -> BackboneShape:
    depths = tuple(_count(tensors, rf"backbone\.layers\.{stage}\.blocks\.(\d{{1,3}})\.") for stage in range(4))
    arch = next((name for name, size in swin.SIZES.items() if (size.width, size.depths) == (width, depths)), None)
    table = tensors.get("backbone.layers.0.blocks.0.attn.relative_position_bias_table")
    if arch is None or table is None:
        raise WeightsError(
            f"The weights are an unknown Swin: width {width}, depths {list(depths)}.",
            f"Known are {', '.join(swin.SIZES)}.",
        )
    window_size = (round(table.shape[0] ** 0.5) + 1) // 2
    # nothing in the tensors shows the image size; every published Swin was trained at 224
    return BackboneShape(arch=arch, image_size=224, channels=channels, window_size=window_size, mask_token=mask_token)


def _heads(width: int, arguments: Mapping[str, Any]) -> int:
    stated = arguments.get("num_heads")
    if isinstance(stated, int) and stated > 0 and width % stated == 0:
        return stated
    named = {size.width: size.heads for size in vit.SIZES.values()} | _OTHER_HEADS
    if width in named:
        return named[width]
    raise WeightsError(
        f"The number of attention heads cannot be told from the weights (width {width}).", "Say it with --heads N."
    )


def _checked_heads(heads: int, width: int) -> int:
    if width % heads:
        fitting = ", ".join(str(number) for number in range(1, 33) if width % number == 0)
        raise WeightsError(
            f"--heads {heads} does not fit the weights: their width {width} is no multiple of it.",
            f"Attention heads share the width evenly; possible are {fitting}.",
        )
    return heads


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)
