"""A network in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ibot_cli.core import swin
from ibot_cli.core.vit import ViT
from ibot_cli.weights.loaded import LoadedBackbone


class _Named(NamedTuple):
    width: int
    depth: int
    heads: int


# Ti, S, B, L of DeiT and ViT (arXiv 2012.12877, 2010.11929), H of ViT, g of DINOv2 (arXiv 2304.07193)
_VITS = {
    "Ti": _Named(192, 12, 3),
    "S": _Named(384, 12, 6),
    "B": _Named(768, 12, 12),
    "L": _Named(1024, 24, 16),
    "H": _Named(1280, 32, 16),
    "g": _Named(1536, 40, 24),
}
_SCALES = (".ls1.gamma", ".gamma_1")
_SWINS = {"swin_tiny": "Swin-T", "swin_small": "Swin-S", "swin_base": "Swin-B", "swin_large": "Swin-L"}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A backbone.

    Attributes:
        kind: `ViT`, `Swin`, or the class of a network that only timm builds.
        name: The published one that it is: `ViT-S/16`; None for others.
        nearest: The published one of the most similar width; None if it is one.
        width: D of the output tokens.
        depth: Blocks; None where timm does not show them.
        heads: Attention heads of a block, of Swin's last; None where they are not known.
        patch_size: Pixels; None where there is no patch embedding of square patches.
        window_size: Of Swin.
        registers: Tokens besides the class token that are in no output.
        layer_scale: Whether learned factors scale the residual branches.
        image_size: Pixels.
        channels: C.
    """

    kind: str
    name: str | None
    nearest: str | None
    width: int
    depth: int | None
    heads: int | None
    patch_size: int | None
    window_size: int | None
    registers: int
    layer_scale: bool
    image_size: int
    channels: int

    def sentence(self) -> str:
        """In words."""
        registers = f"{self.registers} registers" if self.registers else ""
        scale = "layer scale" if self.layer_scale else ""
        window = f"windows of {self.window_size}" if self.window_size else ""
        patch = f"patches of {self.patch_size} px" if self.patch_size and self.name is None else ""
        depth = f"depth {self.depth}" if self.depth else ""
        heads = f"{self.heads} heads" if self.heads and self.kind != "Swin" else ""
        channels = f"{self.channels} channel{'s' if self.channels != 1 else ''}"
        parts = [self.name or self.kind, f"{self.image_size} px", channels, patch, window, f"width {self.width}"]
        nearest = f"; the nearest that has a name is {self.nearest}" if self.nearest else ""
        return ", ".join(part for part in (*parts, depth, heads, registers, scale) if part) + nearest


def describe_architecture(loaded: LoadedBackbone) -> Architecture:
    """The architecture of loaded weights."""
    backbone, shape = loaded.backbone, loaded.shape
    if shape is not None and shape.arch in swin.SIZES:
        size = swin.SIZES[shape.arch]
        return Architecture(
            kind="Swin", name=_SWINS[shape.arch], nearest=None, width=size.width * 8, depth=sum(size.depths),
            heads=size.heads[-1], patch_size=swin.PATCH_SIZE, window_size=shape.window_size, registers=0,
            layer_scale=False, image_size=loaded.image_size, channels=loaded.channels,
        )  # fmt: skip
    if isinstance(backbone, ViT):
        found = _Named(backbone.dim, backbone.num_blocks, backbone.heads)
        name = next((key for key, size in _VITS.items() if size == found), None)
        return Architecture(
            kind="ViT", name=f"ViT-{name}/{backbone.stride}" if name else None,
            nearest=None if name else _nearest(found), width=found.width, depth=found.depth, heads=found.heads,
            patch_size=backbone.stride, window_size=None, registers=0 if shape is None else shape.registers,
            layer_scale=shape is not None and shape.layer_scale > 0,
            image_size=loaded.image_size, channels=loaded.channels,
        )  # fmt: skip
    return _of_timm(loaded)


def _nearest(found: _Named) -> str:
    """By width, then by depth, on a scale of ratios."""

    def apart(name: str) -> tuple[float, int]:
        size = _VITS[name]
        return max(size.width / found.width, found.width / size.width), abs(size.depth - found.depth)

    return f"ViT-{min(_VITS, key=apart)}"


def _of_timm(loaded: LoadedBackbone) -> Architecture:
    model = getattr(loaded.backbone, "model", loaded.backbone)
    settings = getattr(model, "pretrained_cfg", None) or {}
    registers = int(getattr(model, "num_reg_tokens", 0) or 0)
    heads = getattr(loaded.backbone, "heads", None)
    depth = getattr(loaded.backbone, "num_blocks", 0) or None
    stride = getattr(loaded.backbone, "stride", None)
    name = settings.get("architecture")
    return Architecture(
        kind=type(model).__name__, name=f"{name} of timm" if name else None, nearest=None,
        width=int(getattr(loaded.backbone, "dim", 0)), depth=depth, heads=heads, patch_size=stride, window_size=None,
        registers=registers, layer_scale=any(name.endswith(_SCALES) for name, _ in model.named_parameters()),
        image_size=loaded.image_size, channels=loaded.channels,
    )  # fmt: skip
