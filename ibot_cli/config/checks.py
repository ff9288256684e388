"""What settings must fulfil together; each check names the settings it reads.

A check is run only when every setting it reads is valid by itself, so that one mistake is told once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
Finding = tuple[str, str]  # the setting to change, what is wrong with it
SWIN_STRIDE = 32
VIT_SHAPES = {"vit_tiny": (192, 3), "vit_small": (384, 6), "vit_base": (768, 12), "vit_large": (1024, 16)}
RANGES = ("views.global_scale", "views.local_scale", "views.aspect", "views.blur_radius")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A rule over several settings.

    Args:
        reads: Dotted paths of the settings that the rule looks at.
        find: Yields the findings for the resolved values.
    """

    reads: tuple[str, ...]
    find: Callable[[Values], Iterator[Finding]]


def is_swin(values: Values) -> bool:
    """Whether the backbone is a Swin transformer."""
    return str(values["model.arch"]).startswith("swin")


def _sizes(values: Values) -> Iterator[Finding]:
    step = SWIN_STRIDE if is_swin(values) else values["model.patch_size"]
    what = f"{SWIN_STRIDE}, the stride of a Swin" if is_swin(values) else f"model.patch_size = {step}"
    for path in ("views.global_size", "views.local_size"):
        used = path == "views.global_size" or values["views.num_local"] > 0
        if used and values[path] % step:
            near = max(step, round(values[path] / step) * step)
            yield path, f"must be a multiple of {what}, for example {near}"


def _swin_shape(values: Values) -> Iterator[Finding]:
    if not is_swin(values):
        return
    if values["model.patch_size"] != 4:
        yield "model.patch_size", "a Swin always has patches of 4 pixels; set model.patch_size=4"
    for name in ("width", "depth", "heads"):
        if values[f"model.{name}"] is not None:
            yield f"model.{name}", "shapes a ViT only; a Swin takes it from model.arch, set it to auto"
    if values["model.registers"]:
        yield "model.registers", "are tokens of a ViT; a Swin has none, set it to 0"
    if values["model.layer_scale"]:
        yield "model.layer_scale", "belongs to the blocks of a ViT; a Swin has none, set it to 0"


def _heads(values: Values) -> Iterator[Finding]:
    if is_swin(values):
        return
    own_width, own_heads = VIT_SHAPES[values["model.arch"]]
    width, heads = values["model.width"] or own_width, values["model.heads"] or own_heads
    if width % heads:
        path = "model.width" if values["model.heads"] is None else "model.heads"
        yield path, f"{heads} heads do not divide a width of {width}"


def _mask(values: Values) -> Iterator[Finding]:
    ratio, spread = values["mask.ratio"], values["mask.ratio_var"]
    if len(spread) not in (1, len(ratio)):
        yield "mask.ratio_var", f"has {len(spread)} entries; give one, or {len(ratio)} as mask.ratio has"
        return
    for middle, half in zip(ratio, spread * len(ratio) if len(spread) == 1 else spread, strict=True):
        if half > middle:
            yield "mask.ratio_var", f"{middle:g} - {half:g} is below 0; the variance may be at most the ratio"
        if middle + half > 1 + 1e-9:
            yield "mask.ratio_var", f"{middle:g} + {half:g} is above 1; no more than everything can be masked"


def _something_masked(values: Values) -> Iterator[Finding]:
    if values["objective.patch"] != "none" and not any(values["mask.ratio"]):
        yield "mask.ratio", "masks nothing, so the patch loss is always 0; raise it or set objective.patch=none"


def _separate(values: Values) -> Iterator[Finding]:
    if values["head.separate_mlp"] and values["head.shared"]:
        yield "head.separate_mlp", "needs prototypes of the patches' own; set head.shared=false"


def _targets(values: Values) -> Iterator[Finding]:
    if values["objective.cls"] == values["objective.patch"] == "none":
        yield "objective.cls", "objective.cls and objective.patch are both none, so there is nothing to learn"


def _cls_pairs(values: Values) -> Iterator[Finding]:
    if values["objective.cls"] == "online" and values["views.num_global"] + values["views.num_local"] < 2:
        yield "views.num_global", "the class token is compared across views, which takes at least two; set it to 2"


def range_of(path: str) -> Check:
    """The low end of the range `path` is not above its high end."""

    def find(values: Values) -> Iterator[Finding]:
        low, high = values[path]
        if low > high:
            yield path, "the first number is the low end of the range and must not be above the second"

    return Check(reads=(path,), find=find)


def per_channel(path: str) -> Check:
    """`path` has one entry per channel; with channels left to auto there is nothing to compare."""

    def find(values: Values) -> Iterator[Finding]:
        channels = values["data.channels"]
        if None not in (values[path], channels) and len(values[path]) != channels:
            yield path, f"has {len(values[path])} entries, but data.channels = {channels}; give {channels}, or auto"

    return Check(reads=(path, "data.channels"), find=find)


def _micro_batch(values: Values) -> Iterator[Finding]:
    micro, batch = values["train.micro_batch_size"], values["train.batch_size"]
    if micro is not None and batch is not None and micro > batch:
        yield "train.micro_batch_size", f"must be at most train.batch_size = {batch}"


def _lr_end(values: Values) -> Iterator[Finding]:
    if values["train.batch_size"] is not None:
        peak = values["optim.lr"] * values["train.batch_size"] / 256
        if values["optim.min_lr"] > peak:
            yield "optim.min_lr", f"is above the peak of {peak:.3g}, which is optim.lr x train.batch_size / 256"


def _start(values: Values) -> Iterator[Finding]:
    if values["init.weights"] is not None:
        return
    if values["init.freeze_backbone_epochs"]:
        yield "init.freeze_backbone_epochs", "random weights would stay random; name weights with --init, or set auto"
    if values["init.partial"]:
        yield "init.partial", "there are no weights of which a part could be taken; name them with --init"


def _device(values: Values) -> Iterator[Finding]:
    device = values["runtime.device"]
    if device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        yield "runtime.device", "must be cpu, cuda, cuda:N or auto"


MICRO_BATCH = Check(reads=("train.micro_batch_size", "train.batch_size"), find=_micro_batch)
DEVICE = Check(reads=("runtime.device",), find=_device)
CHECKS: tuple[Check, ...] = (
    Check(
        reads=("model.arch", "model.patch_size", "views.global_size", "views.local_size", "views.num_local"),
        find=_sizes,
    ),
    Check(
        reads=(
            "model.arch",
            "model.patch_size",
            "model.width",
            "model.depth",
            "model.heads",
            "model.registers",
            "model.layer_scale",
        ),
        find=_swin_shape,
    ),
    Check(reads=("model.arch", "model.width", "model.heads"), find=_heads),
    Check(reads=("mask.ratio", "mask.ratio_var"), find=_mask),
    Check(reads=("mask.ratio", "objective.patch"), find=_something_masked),
    Check(reads=("head.separate_mlp", "head.shared"), find=_separate),
    Check(reads=("objective.cls", "objective.patch"), find=_targets),
    Check(reads=("objective.cls", "views.num_global", "views.num_local"), find=_cls_pairs),
    *(range_of(path) for path in RANGES),
    *(per_channel(path) for path in ("data.mean", "data.std")),
    MICRO_BATCH,
    Check(reads=("optim.lr", "optim.min_lr", "train.batch_size"), find=_lr_end),
    Check(reads=("init.weights", "init.freeze_backbone_epochs", "init.partial"), find=_start),
    DEVICE,
)
