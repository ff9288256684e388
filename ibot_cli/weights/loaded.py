"""Weights as the rest of the program sees them, whatever file they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from ibot_cli.config.schema import ViewsConfig
from ibot_cli.core.classifier import Classifier
from ibot_cli.core.heads import Head
from ibot_cli.weights.origin import Origin
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.teacher_scale import TeacherScale

Which = Literal["student", "teacher"]


@dataclass(frozen=True, kw_only=True)
class LoadedBackbone:
    """A backbone with its weights and how its images are prepared.

    Attributes:
        backbone: In evaluation mode, on the CPU; images `[B, C, H, W]` to tokens `[B, 1 + N, D]`, class token first.
        head: The projection head, or None when the file has none.
        channels: C.
        image_size: Side in pixels.
        mean: Per channel, of images in 0..1.
        std: Per channel.
        crop_ratio: The image is resized to `image_size / crop_ratio`, then centre-cropped.
        description: One line for people.
        weights_hash: sha256 over the backbone's names, shapes and bytes; over the whole classifier where there is one.
        architecture: Says exactly what `rebuild` builds; equal texts mean equal networks but for their weights.
        rebuild: Makes the same network with fresh weights from the global generator.
        shape: What builds the backbone without its mask token; None for a model of timm.
        classifier: Images to class scores `[B, C]`, in evaluation mode, on the CPU, sharing the backbone's parameters;
            None where the weights were not fine-tuned.
        classes: Names of the classes, in the order of the scores; None without a classifier.
        bits: Of the levels of its images, 8 or 16.
        scale: The teacher's centres and temperatures; None where there is no head.
        views: How its training saw images; None but for pre-training by ibot.
        mask_token: float32 `[1, D]`, the student's, also where the teacher was loaded from a file that holds both;
            None where the file has none.
        origin: What the file says about itself.
        unused: Names in the file that are known and not needed, or that `--partial` left out.
        missing: Names of the network that `--partial` left at fresh values; else empty.
        notes: What the user should be told.
    """

    backbone: nn.Module
    head: Head | None
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float
    description: str
    weights_hash: str
    architecture: str
    rebuild: Callable[[], nn.Module]
    shape: BackboneShape | None = None
    classifier: Classifier | None = None
    classes: tuple[str, ...] | None = None
    bits: int = 8
    scale: TeacherScale | None = None
    views: ViewsConfig | None = None
    mask_token: Tensor | None = None
    origin: Origin = field(default_factory=lambda: Origin(layout="network in memory", path=""))
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def preparation(self) -> tuple[int, float, int, tuple[float, ...], tuple[float, ...]]:
        """The arguments of `ibot_cli.data.transform.eval_transform`."""
        return self.image_size, self.crop_ratio, self.channels, self.mean, self.std

    @property
    def preparation_key(self) -> str:
        """What a cached figure depends on: how images are prepared, as text."""
        return f"{self.preparation}" if self.bits == 8 else f"{self.preparation} of {self.bits} bits"


def weights_hash(backbone: nn.Module) -> str:
    """sha256 hex over names, types, shapes and bytes of a network's state, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
