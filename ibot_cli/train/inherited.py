"""What a continued pre-training takes over from its weights: the network, and how it saw images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ibot_cli.config.load import Resolved, flatten
from ibot_cli.config.schema import ViewsConfig
from ibot_cli.core import swin, vit
from ibot_cli.data.transform import IMAGENET
from ibot_cli.errors import UsageError
from ibot_cli.train.choices import Choice
from ibot_cli.train.start import Start, head_settings
from ibot_cli.weights.shapes import BackboneShape

# The published sizes: a larger one has to be asked for, because it costs much.
GLOBAL_SIZE, LOCAL_SIZE = 224, 96
NETWORK = "taken from the weights"
HEAD = "taken from the weights' head"


def inherited_choices(start: Start, resolved: Resolved, *, fixed_channels: bool) -> dict[str, Choice]:
    """Settings that the weights decide where nobody else said something: dotted path to value and reason.

    The network is theirs in any case.

    Args:
        start: The weights.
        resolved: The configuration so far, in which the network may be wrong.
        fixed_channels: Whether the images have a number of channels of their own.

    Raises:
        UsageError: The user asked for another network.
    """
    choices = {path: (value, NETWORK) for path, value in network_settings(start.parts.shape).items()}
    _refuse_another_network(choices, resolved)
    choices |= _head(start, resolved)
    choices |= _images(start, resolved, fixed_channels)
    choices |= _views(start, resolved)
    return choices


def network_settings(shape: BackboneShape) -> dict[str, Any]:
    """The settings that build a backbone: dotted path to value."""
    if shape.arch in swin.SIZES:
        open_ones: dict[str, Any] = dict.fromkeys(("model.width", "model.depth", "model.heads"))
        return {
            "model.arch": shape.arch,
            "model.patch_size": swin.PATCH_SIZE,
            **open_ones,
            "model.registers": 0,
            "model.layer_scale": 0.0,
            "model.window_size": shape.window_size,
        }
    named = vit.SIZES[shape.arch]
    size = vit.Size(shape.width or named.width, shape.depth or named.depth, shape.heads or named.heads)
    return {
        "model.arch": next((name for name, one in vit.SIZES.items() if one == size), shape.arch),
        "model.patch_size": shape.patch_size,
        "model.width": size.width,
        "model.depth": size.depth,
        "model.heads": size.heads,
        "model.registers": shape.registers,
        "model.layer_scale": shape.layer_scale,
    }


def said(path: str, resolved: Resolved) -> bool:
    """Whether the user set it, in a file or on the command line."""
    return resolved.origin[path].startswith(("file ", "--"))


def _refuse_another_network(network: dict[str, Choice], resolved: Resolved) -> None:
    wrong = [
        f"{path} = {asked} was asked for ({resolved.origin[source]}), the weights have {network[path][0]}"
        for path, asked, source in _asked(network, resolved)
        if asked != network[path][0]
    ]
    if wrong:
        raise UsageError(
            f"The weights decide the network: {'; '.join(wrong)}.",
            "Leave these settings out, or start from other weights.",
        )


def _asked(network: dict[str, Choice], resolved: Resolved) -> Iterator[tuple[str, Any, str]]:
    """What the user wants of the network: path, value, and the path where it was said; an architecture says much."""
    values = flatten(resolved.config)
    arch = str(values["model.arch"] if said("model.arch", resolved) else network["model.arch"][0])
    both_vit = arch in vit.SIZES and network["model.arch"][0] in vit.SIZES
    for path in network:
        name, own = path.removeprefix("model."), said(path, resolved)
        if path == "model.arch":
            if own and not both_vit:
                yield path, arch, path
        elif name in vit.Size._fields and both_vit and (own or said("model.arch", resolved)):
            implied = getattr(vit.SIZES[arch], name)
            given = values[path] if own and values[path] is not None else implied
            yield path, given, path if own else "model.arch"
        elif path == "model.layer_scale" and values[path] and network[path][0]:
            continue  # both have it; what it starts from is the weights' affair
        elif own:
            yield path, values[path], path


def _head(start: Start, resolved: Resolved) -> dict[str, Choice]:
    """The sizes of the head and, unless the user wants others, what its prototypes were trained with.

    At another temperature a trained head is as wrong as a new one: the loss of the embedded digits' network doubles.
    """
    head = start.loaded.head
    if head is None:
        return {}
    values = flatten(resolved.config)
    sizes = {f"head.{name}": value for name, value in head_settings(head).items()}
    choices: dict[str, Choice] = {path: (value, HEAD) for path, value in sizes.items()}
    if all(values[path] == value for path, value in sizes.items() if said(path, resolved)):
        choices |= {path: (value, "as the head was trained") for path, value in _temperatures(start).items()}
        choices["optim.freeze_prototypes_epochs"] = (0, "the prototypes come with the weights")
    return {path: choice for path, choice in choices.items() if not said(path, resolved)}


def _temperatures(start: Start) -> dict[str, float]:
    """Those at which teacher and student were compared in the end, without a new warm-up."""
    scale, config = start.loaded.scale, start.loaded.origin.config
    found: dict[str, float] = {}
    if scale is not None and scale.cls_temp is not None:
        found |= dict.fromkeys(("objective.warmup_teacher_temp", "objective.teacher_temp"), scale.cls_temp)
    if scale is not None and scale.patch_temp is not None:
        found |= dict.fromkeys(
            ("objective.warmup_teacher_patch_temp", "objective.teacher_patch_temp"), scale.patch_temp
        )
    return found if config is None else {**found, "objective.student_temp": config.objective.student_temp}


def _images(start: Start, resolved: Resolved, fixed_channels: bool) -> dict[str, Choice]:
    loaded, values = start.loaded, flatten(resolved.config)
    choices: dict[str, Choice] = {}
    channels, bits = values["data.channels"], values["data.bits"]
    if resolved.origin["data.channels"] == "default" and not fixed_channels:
        channels = loaded.channels
        choices["data.channels"] = (channels, "as many as the weights see")
    if resolved.origin["data.bits"] == "default" and not fixed_channels and bits != loaded.bits:
        bits = loaded.bits
        choices["data.bits"] = (bits, "as deep as the weights see")
    if (channels, bits) == (loaded.channels, loaded.bits):
        usual = IMAGENET.get(channels, (None, None)) if bits == 8 else (None, None)
        for path, seen, standard in zip(("data.mean", "data.std"), (loaded.mean, loaded.std), usual, strict=True):
            choices |= {path: (seen, NETWORK)} if seen != (values[path] or standard) else {}
    if resolved.origin["data.eval_crop_ratio"] == "default":
        choices["data.eval_crop_ratio"] = (loaded.crop_ratio, "as the weights are evaluated")
    return {path: choice for path, choice in choices.items() if not said(path, resolved)}


def _views(start: Start, resolved: Resolved) -> dict[str, Choice]:
    """Those that the weights were trained with; where nothing tells, at least sizes that suit the network."""
    of_views = [path for path in resolved.origin if path.startswith("views.")]
    by_preset = any(resolved.origin[path].startswith("preset ") for path in of_views)
    if by_preset and _suit(start.parts.shape, resolved.config.views):
        return {}
    if start.loaded.views is not None and not by_preset:
        seen = start.loaded.views
        return {
            path: (getattr(seen, path.removeprefix("views.")), "as the weights were trained")
            for path in of_views
            if not said(path, resolved)
        }
    shape, views = start.parts.shape, resolved.config.views
    stride = _stride(shape)
    choices: dict[str, Choice] = {}
    whole = views.global_size
    if not said("views.global_size", resolved):
        whole = max(stride, min(GLOBAL_SIZE, shape.image_size) // stride * stride)
        choices["views.global_size"] = (whole, f"the weights were made for {shape.image_size} pixels")
    if not said("views.local_size", resolved):
        part = max(stride, round(LOCAL_SIZE / GLOBAL_SIZE * whole / stride) * stride)
        choices["views.local_size"] = (part, f"{LOCAL_SIZE} of {GLOBAL_SIZE} pixels as published, in whole patches")
    return choices


def _suit(shape: BackboneShape, views: ViewsConfig) -> bool:
    """Whether views can be cut into patches, the global ones into more than one."""
    stride, whole = _stride(shape), views.global_size
    return whole > stride and not whole % stride and (not views.num_local or not views.local_size % stride)


def _stride(shape: BackboneShape) -> int:
    return swin.STRIDE if shape.arch in swin.SIZES else shape.patch_size
