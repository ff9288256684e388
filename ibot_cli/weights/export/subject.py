"""What is exported: one network at one image size, on the CPU, in float32, in evaluation mode."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ibot_cli.core import swin, vit
from ibot_cli.core.backbone import Backbone
from ibot_cli.core.classifier import Classifier, Pooling
from ibot_cli.core.heads import Head
from ibot_cli.core.vit import ViT
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.weights.description import describe
from ibot_cli.weights.loaded import LoadedBackbone
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.trainable import Trainable, trainable


class Reference(nn.Module):
    """The outputs that every form is compared with.

    Args:
        backbone: Images to tokens `[B, 1 + N, D]`, class token first.
        head: The projection head, or None.
        classifier: Whose last layers see token 0 of the backbone, or None.
    """

    def __init__(self, backbone: nn.Module, head: Head | None, classifier: Classifier | None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.projection = None if classifier is None else classifier.projection
        self.classes = None if classifier is None else classifier.head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images `[B, C, H, W]` to named outputs.

        Returns:
            `cls` `[B, D]` (after fine-tuning with mean pooling the feature that the classifier sees) and `patches`
            `[B, N, D]`; `logits` `[B, classes]` of a classifier; `cls_logits` `[B, K]` and `patch_logits`
            `[B, N, K']` of a projection head, before temperature.
        """
        tokens = self.backbone(images)
        cls, patches = tokens[:, 0], tokens[:, 1:]
        outputs = {"cls": cls, "patches": patches}
        if self.classes is not None:
            outputs["logits"] = self.classes(cls if self.projection is None else self.projection(cls))
        if self.head is not None:
            outputs["cls_logits"] = self.head.cls_logits(self.head.bottleneck(cls))
            outputs["patch_logits"] = self.head.patch_logits(self.head.patch_bottleneck(patches))
        return outputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The network to export, at one image size.

    Attributes:
        loaded: Where it comes from.
        shape: What builds the backbone at `image_size`, without mask token; None for networks that are not ours.
        tensors: The backbone's in our names (`blocks.0...`), float32, without mask token, positions at `image_size` by
            the interpolation of `ViT.positions`; no `norm.*` where mean pooling had taken the final norm away (then
            `classifier.fc_norm` stands for it). Empty where `shape` is None.
        network: The reference; takes other image sizes too.
        head: The projection head where it is to be exported.
        classifier: Of a fine-tuned network; its backbone is at `image_size`.
        classes: Names of the classes.
        pooling: What the classifier sees.
        image_size: Side in pixels of the images that the export takes.
        native_image_size: Side in pixels of the images that the network was trained on.
    """

    loaded: LoadedBackbone
    shape: BackboneShape | None
    tensors: Mapping[str, Tensor]
    network: Reference
    head: Head | None
    classifier: Classifier | None
    classes: tuple[str, ...] | None
    pooling: Pooling | None
    image_size: int
    native_image_size: int

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.loaded.channels

    @property
    def bits(self) -> int:
        """Of the levels of its images, 8 or 16."""
        return self.loaded.bits

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of images in 0..1."""
        return self.loaded.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, of images in 0..1."""
        return self.loaded.std

    @property
    def crop_ratio(self) -> float:
        """The image is resized to `image_size / crop_ratio`, then centre-cropped."""
        return self.loaded.crop_ratio

    @property
    def stride(self) -> int | None:
        """Image sizes are multiples of it; None for networks that are not ours."""
        return None if self.shape is None else stride_of(self.shape)

    @property
    def kind(self) -> Literal["vit", "swin", "other"]:
        """The family of the backbone."""
        if self.shape is None:
            return "other"
        return "swin" if self.shape.arch in swin.SIZES else "vit"

    def describe(self) -> dict[str, Any]:
        """The description that travels inside the exported file; see `ibot_cli.weights.description.describe`."""
        return describe(self.loaded, image_size=self.image_size, shape=self.shape)


def export_subject(loaded: LoadedBackbone, image_size: int | None = None, with_head: bool = False) -> Subject:
    """The network to export; `loaded` stays as it is.

    Args:
        loaded: The weights.
        image_size: Side in pixels of the images; default the side that the network was trained on.
        with_head: Whether the projection head goes with it.

    Raises:
        UsageError: The side is no multiple of the stride or the network cannot take it, or there is no head.
    """
    if with_head and loaded.head is None:
        raise UsageError(
            f"--with-head: there is no projection head in {loaded.description}.",
            "Leave --with-head out, or export a full checkpoint of the pre-training.",
        )
    parts = _parts(loaded)
    size = loaded.image_size if image_size is None else image_size
    if parts is None:
        return _foreign(loaded, size)
    resized = _resized(parts, size)
    classifier = _classifier(loaded, resized)
    backbone: nn.Module = _filled(resized) if classifier is None else classifier.token_backbone()
    head = copy.deepcopy(loaded.head).float().eval() if with_head and loaded.head is not None else None
    return Subject(
        loaded=loaded,
        shape=resized.shape,
        tensors=resized.tensors,
        network=Reference(backbone, head, classifier).requires_grad_(False).eval(),
        head=head,
        classifier=classifier,
        classes=loaded.classes,
        pooling=None if classifier is None else classifier.pooling,
        image_size=size,
        native_image_size=loaded.image_size,
    )


def stride_of(shape: BackboneShape) -> int:
    """Pixels per output token and side."""
    return swin.STRIDE if shape.arch in swin.SIZES else shape.patch_size


def vit_sizes(shape: BackboneShape) -> tuple[int, int, int]:
    """Width, depth and heads of a ViT."""
    size = vit.SIZES[shape.arch]
    return shape.width or size.width, shape.depth or size.depth, shape.heads or size.heads


def _parts(loaded: LoadedBackbone) -> Trainable | None:
    """The backbone in our names; None where its layers are not ours."""
    try:
        parts = trainable(loaded)
    except WeightsError:
        if loaded.shape is not None:
            raise
        return None
    tensors = {name: value.detach().float().clone() for name, value in parts.tensors.items()}
    return Trainable(shape=replace(parts.shape, mask_token=False), tensors=tensors)


def _resized(parts: Trainable, size: int) -> Trainable:
    shape, stride = parts.shape, stride_of(parts.shape)
    if size % stride:
        near = max(stride, round(size / stride) * stride)
        raise UsageError(
            f"--image-size {size} is no multiple of {stride}, the stride of the network.", f"Use for example {near}."
        )
    tensors = dict(parts.tensors)
    if size != shape.image_size and "pos_embed" in tensors:
        backbone = _filled(parts)
        assert isinstance(backbone, ViT)
        with torch.no_grad():
            tensors["pos_embed"] = backbone.positions(size // stride, size // stride).clone()
    return Trainable(shape=replace(shape, image_size=size), tensors=tensors)


def _filled(parts: Trainable) -> Backbone:
    """Built and filled; the final norm stays an identity where there is none among the tensors."""
    with torch.random.fork_rng(devices=[]):
        backbone = parts.shape.build()
    if "norm.weight" not in parts.tensors:
        backbone.norm = nn.Identity()
    try:
        backbone.load_state_dict(dict(parts.tensors))
    except RuntimeError as error:  # the windows of a Swin cannot be larger than its map of tokens
        raise UsageError(
            f"--image-size {parts.shape.image_size}: the network's windows of {parts.shape.window_size} tokens do not "
            "fit images of that side.",
            f"Use at least {parts.shape.window_size * swin.STRIDE}.",
        ) from error
    return backbone.eval()


def _classifier(loaded: LoadedBackbone, parts: Trainable) -> Classifier | None:
    if loaded.classifier is None:
        return None
    classifier = copy.deepcopy(loaded.classifier).float()
    classifier.backbone = _filled(parts)
    return classifier.eval()


def _foreign(loaded: LoadedBackbone, size: int) -> Subject:
    if size != loaded.image_size:
        raise UsageError(
            f"--image-size {size}: {loaded.description} is a network of timm that ibot cannot resize.",
            f"Leave --image-size out; it takes images of {loaded.image_size} pixels.",
        )
    backbone = copy.deepcopy(loaded.backbone).float()
    return Subject(
        loaded=loaded,
        shape=None,
        tensors={},
        network=Reference(backbone, None, None).requires_grad_(False).eval(),
        head=None,
        classifier=None,
        classes=None,
        pooling=None,
        image_size=size,
        native_image_size=size,
    )
