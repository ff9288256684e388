"""From what a reader found to networks with their weights; every tensor is loaded, named, or an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ibot_cli.core.classifier import Classifier
from ibot_cli.core.heads import Head
from ibot_cli.data.transform import IMAGENET
from ibot_cli.errors import WeightsError
from ibot_cli.weights.fill import Fit, Network, Part, check_enough, fill, fit, listed, load_fitting, unfilled
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.layouts.found import Found, Preparation, TimmNetwork
from ibot_cli.weights.loaded import LoadedBackbone, weights_hash
from ibot_cli.weights.shapes import BackboneShape, build_head
from ibot_cli.weights.strangers import understood

EVAL_CROP_RATIO = 0.875
_LARGEST_IMAGE = 8192  # pixels and side
_SEED = 0  # of what --partial leaves at fresh values


def assemble(found: Found, *, partial: bool = False) -> LoadedBackbone:
    """Build the network, fill it and say how its images are prepared.

    Args:
        found: What a reader returned.
        partial: Load what fits and report the rest, instead of refusing.

    Raises:
        WeightsError: The tensors do not fit; with `partial`, less than half of the backbone's do.
    """
    with understood(found.origin.path):
        built = _build(found, partial)
        filled = _fill(built, found, partial)
        prepared = found.preparation or _usual_preparation(found.network, built.backbone)
        _check_preparation(prepared, built.channels, found.origin.path)
    notes = [*found.notes, *filled.notes]
    if found.preparation is None and built.channels not in IMAGENET:
        notes.append(f"How images of {built.channels} channels are normalised is a guess: mean and deviation 0.5.")
    if prepared.interpolation != "bicubic":
        notes.append(
            f"The weights were made for {prepared.interpolation} resizing of images; ibot resizes bicubically."
        )
    head = filled.head
    return LoadedBackbone(
        backbone=built.tokens.eval(),
        head=None if head is None else head.eval(),
        channels=built.channels,
        image_size=prepared.image_size,
        mean=tuple(map(float, prepared.mean)),
        std=tuple(map(float, prepared.std)),
        crop_ratio=prepared.crop_ratio,
        bits=prepared.bits,
        description=found.description or found.origin.path,
        weights_hash=weights_hash(built.hashed),
        architecture=built.architecture,
        rebuild=built.rebuild,
        shape=built.shape,
        classifier=None if built.classifier is None else built.classifier.eval(),
        classes=found.classes,
        scale=None if head is None else found.scale,
        views=found.views,
        mask_token=found.mask_token,
        origin=found.origin,
        unused=(*found.unused, *filled.unused),
        missing=filled.missing,
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True)
class _Built:
    """Networks of the right shapes."""

    backbone: nn.Module
    tokens: nn.Module
    hashed: nn.Module
    head: Head | None
    channels: int
    architecture: str
    rebuild: Callable[[], nn.Module]
    shape: BackboneShape | None = None
    classifier: Classifier | None = None


@dataclass(frozen=True)
class _Filled:
    head: Head | None
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _build(found: Found, drawn: bool) -> _Built:
    """Networks with weights that are drawn from a fixed seed, or that are still to be loaded."""
    network = found.network
    make = _as_it_is if drawn else unfilled
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        if isinstance(network, ClassifierShape):
            return _built_classifier(network, make(network.build))
        head = make(lambda: build_head(found.tensors, found.activation))
        if isinstance(network, TimmNetwork):
            timm_backbone = make(network.build)
            channels = int(timm_backbone.model.pretrained_cfg["input_size"][0])
            name = f"timm:{network.name} {dict(network.kwargs)}"
            return _Built(
                backbone=timm_backbone.model, tokens=timm_backbone, hashed=timm_backbone, head=head,
                channels=int(network.kwargs.get("in_chans", channels)), architecture=name, rebuild=network.build,
            )  # fmt: skip
        backbone, bare = make(network.build), replace(network, mask_token=False)
        return _Built(
            backbone=backbone, tokens=backbone, hashed=backbone, head=head, channels=bare.channels,
            architecture=repr(bare), rebuild=bare.build, shape=bare,
        )  # fmt: skip


def _as_it_is(build: Callable[[], Network]) -> Network:
    return build()


def _built_classifier(shape: ClassifierShape, classifier: Classifier) -> _Built:
    """The evaluated backbone has the feature that the classifier sees as token 0."""
    return _Built(
        backbone=classifier.backbone,
        tokens=classifier.token_backbone(),
        hashed=classifier,
        head=None,
        channels=shape.backbone.channels,
        architecture=f"{shape.backbone!r}, {shape.pooling} pooling",
        rebuild=lambda: shape.build().token_backbone(),
        shape=shape.backbone,
        classifier=classifier,
    )


def _fill(built: _Built, found: Found, partial: bool) -> _Filled:
    origin = found.origin.path
    above = {name: value for name, value in found.tensors.items() if name.startswith("head.")}
    parts = _parts(built, found, above)
    unread = () if built.head is not None or built.classifier is not None else tuple(above)
    first = fit(parts)
    if not partial or first.complete:
        fill(parts, origin)
        return _Filled(built.head, unread)
    inside = {name: value for name, value in found.tensors.items() if name.startswith("backbone.")}
    check_enough(Part("backbone.", built.backbone, inside), origin)
    if built.classifier is not None:
        _require_whole_classifier(first, origin)
    head = built.head
    if head is not None and not fit(parts[1:]).complete:  # half a head gives scores that mean nothing
        head, parts, unread = None, parts[:1], tuple(above)
    result = fit(parts)
    load_fitting(parts, result)
    return _Filled(head, (*unread, *result.unexpected), result.absent, _report(result, head is not built.head))


def _parts(built: _Built, found: Found, above: Mapping[str, Tensor]) -> list[Part]:
    if built.classifier is not None:
        return [Part("", built.classifier, found.tensors)]
    inside = {name: value for name, value in found.tensors.items() if name not in above}
    backbone = Part("backbone.", built.backbone, inside)
    return [backbone] if built.head is None else [backbone, Part("head.", built.head, above)]


def _require_whole_classifier(found: Fit, origin: str) -> None:
    lost = [name for name in found.absent if not name.startswith("backbone.")]
    if lost:
        raise WeightsError(
            f"The classifier of {origin} does not fit: {listed(lost)}. Its classes would be random.",
            "--partial is for the tensors of a backbone.",
        )


def _report(result: Fit, without_head: bool) -> tuple[str, ...]:
    """What `--partial` did, for people."""
    total = len(result.fitting) + len(result.absent)
    notes = [f"Partly loaded: {len(result.fitting)} of {total} tensors of the network."]
    if result.absent:
        notes.append(f"Left at fresh values: {listed(result.absent)}.")
    if result.unexpected:
        notes.append(f"In the file and not loaded: {listed(result.unexpected)}.")
    if result.reshaped:
        notes.append(f"Of another shape: {listed(tuple(result.reshaped.values()))}.")
    if without_head:
        notes.append("The projection head does not fit as a whole and was left out.")
    return tuple(notes)


def _check_preparation(prepared: Preparation, channels: int, path: str) -> None:
    numbers = (*prepared.mean, *prepared.std, prepared.crop_ratio)
    possible = (
        len(prepared.mean) == len(prepared.std) == channels
        and all(isinstance(value, int | float) and math.isfinite(value) for value in numbers)
        and min(prepared.std) > 0
        and 0 < prepared.crop_ratio <= 1
        and isinstance(prepared.image_size, int)
        and 0 < prepared.image_size <= _LARGEST_IMAGE
    )
    if not possible:
        raise WeightsError(
            f"{path} asks for images that cannot be: {prepared.image_size} pixels, crop ratio {prepared.crop_ratio}, "
            f"mean {list(prepared.mean)}, deviation {list(prepared.std)} for {channels} channels.",
            "Repair what it says about its images, or take the file where it was published.",
        )


def _usual_preparation(network: BackboneShape | ClassifierShape | TimmNetwork, backbone: nn.Module) -> Preparation:
    """Where the file says nothing: ImageNet's statistics, or what timm has for the model."""
    if isinstance(network, TimmNetwork):
        settings = backbone.pretrained_cfg
        assert isinstance(settings, dict)
        size = network.kwargs.get("img_size", settings["input_size"][1])
        channels = int(network.kwargs.get("in_chans", 3))
        guess = channels != len(settings["mean"]) and channels not in IMAGENET
        mean, std = ((0.5,) * channels,) * 2 if guess else (settings["mean"], settings["std"])
        return Preparation(
            mean=tuple(mean), std=tuple(std), image_size=int(size),
            crop_ratio=float(settings.get("crop_pct") or EVAL_CROP_RATIO),
            interpolation=str(settings.get("interpolation") or "bicubic"),
        )  # fmt: skip
    shape = network.backbone if isinstance(network, ClassifierShape) else network
    mean, std = IMAGENET.get(shape.channels, ((0.5,) * shape.channels,) * 2)
    return Preparation(mean=mean, std=std, image_size=shape.image_size, crop_ratio=EVAL_CROP_RATIO)
