"""Which model of timm an exported network is: the nearest name, and the arguments that make up the difference."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ibot_cli.core import swin
from ibot_cli.weights.export.subject import Subject, vit_sizes
from ibot_cli.weights.shapes import BackboneShape


class ViTName(NamedTuple):
    """What a name of timm stands for, at 224 pixels with 3 channels."""

    width: int
    depth: int
    heads: int
    patch_size: int


VITS = {
    "vit_tiny_patch16_224": ViTName(192, 12, 3, 16),
    "vit_small_patch8_224": ViTName(384, 12, 6, 8),
    "vit_small_patch16_224": ViTName(384, 12, 6, 16),
    "vit_small_patch32_224": ViTName(384, 12, 6, 32),
    "vit_base_patch8_224": ViTName(768, 12, 12, 8),
    "vit_base_patch16_224": ViTName(768, 12, 12, 16),
    "vit_base_patch32_224": ViTName(768, 12, 12, 32),
    "vit_large_patch14_224": ViTName(1024, 24, 16, 14),
    "vit_large_patch16_224": ViTName(1024, 24, 16, 16),
    "vit_large_patch32_224": ViTName(1024, 24, 16, 32),
    "vit_huge_patch14_224": ViTName(1280, 32, 16, 14),
}
NATIVE_SIZE, NATIVE_CHANNELS, NATIVE_WINDOW = 224, 3, 7


def base_model(subject: Subject) -> str:
    """The nearest name of timm: of a ViT by width, then patch size, then depth.

    Registers and layer scale have no names of their own here: timm's have both, or other position embeddings too.
    """
    shape = _shape(subject)
    if subject.kind == "swin":
        return f"{shape.arch}_patch4_window7_224"
    width, depth, _ = vit_sizes(shape)
    return min(
        VITS,
        key=lambda name: (
            abs(math.log(VITS[name].width / width)),
            abs(math.log(VITS[name].patch_size / shape.patch_size)),
            abs(VITS[name].depth - depth),
        ),
    )


def changed_arguments(subject: Subject) -> dict[str, Any]:
    """Arguments of `timm.create_model` that are not those of the name, as plain values that JSON can hold."""
    shape, classifier = _shape(subject), subject.classifier
    wanted: dict[str, Any] = {"img_size": subject.image_size, "in_chans": subject.channels}
    usual: dict[str, Any] = {"img_size": NATIVE_SIZE, "in_chans": NATIVE_CHANNELS}
    if subject.kind == "swin":
        wanted["window_size"], usual["window_size"] = shape.window_size, NATIVE_WINDOW
        sizes, named = swin.SIZES[shape.arch], _SWINS[shape.arch]
        wanted |= {"embed_dim": sizes.width, "depths": list(sizes.depths), "num_heads": list(sizes.heads)}
        usual |= {"embed_dim": named.width, "depths": list(named.depths), "num_heads": list(named.heads)}
    else:
        base = VITS[base_model(subject)]
        width, depth, heads = vit_sizes(shape)
        wanted |= {"patch_size": shape.patch_size, "embed_dim": width, "depth": depth, "num_heads": heads}
        usual |= {
            "patch_size": base.patch_size, "embed_dim": base.width, "depth": base.depth, "num_heads": base.heads
        }  # fmt: skip
        wanted |= {"reg_tokens": shape.registers, "no_embed_class": bool(shape.registers)}
        usual |= {"reg_tokens": 0, "no_embed_class": False}
        wanted["init_values"], usual["init_values"] = shape.layer_scale or None, None
        averages = classifier is not None and classifier.fc_norm is not None
        wanted["global_pool"], usual["global_pool"] = "avg" if averages else "token", "token"
    changed = {name: value for name, value in wanted.items() if value != usual[name]}
    return {"num_classes": 0 if classifier is None else classifier.head.out_features, **changed}


_SWINS = {
    "swin_tiny": swin.Size(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_small": swin.Size(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_base": swin.Size(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_large": swin.Size(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}  # what timm's names stand for; ours have the same sizes


def _shape(subject: Subject) -> BackboneShape:
    assert subject.shape is not None, "the form's check refuses other networks"
    return subject.shape
