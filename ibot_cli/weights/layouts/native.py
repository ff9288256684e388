"""The safetensors file of `ibot export --to safetensors`: our names, and a description in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.description import KEY, Description, parse
from ibot_cli.weights.files import metadata_of, tensors_in
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.layouts.exported import with_description
from ibot_cli.weights.layouts.found import Found
from ibot_cli.weights.loaded import Which
from ibot_cli.weights.origin import Origin
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.teacher_scale import TeacherScale

MASK_TOKEN, CLS_CENTER, PATCH_CENTER = "mask_token", "center.cls", "center.patch"


def matches(content: Mapping[str, Any]) -> bool:
    """Whether a loaded file is a safetensors file with our names and our description."""
    return KEY in metadata_of(content) and any(name.startswith("backbone.") for name in tensors_in(content))


def read(content: Mapping[str, Any], path: Path, which: Which, heads: int | None) -> Found:
    """The network of such a file; it holds one, so `which` chooses nothing.

    Raises:
        WeightsError: The description cannot be read, or says too little to build the network.
    """
    text = metadata_of(content)[KEY]
    described = parse(text)
    if described.shape is None:
        raise WeightsError(f"{path} does not say which network it holds.", "Export it again with `ibot export`.")
    tensors = tensors_in(content)
    mask_token = tensors.pop(MASK_TOKEN, None)
    cls_center, patch_center = (_center(tensors.pop(name, None)) for name in (CLS_CENTER, PATCH_CENTER))
    found = Found(
        network=described.shape if described.classes is None else _classifier(described, described.shape),
        tensors=tensors,
        activation=described.activation,
        mask_token=mask_token,
        scale=TeacherScale(
            cls_center=cls_center,
            patch_center=patch_center,
            cls_temp=described.temps.get("cls"),
            patch_temp=described.temps.get("patch"),
        ),
        classes=described.classes,
        origin=Origin(
            layout="safetensors",
            path=str(path),
            arguments={} if described.config is None else vars(described.config),
        ),
    )
    return with_description(found, text)


def _classifier(described: Description, shape: BackboneShape) -> ClassifierShape:
    return ClassifierShape(
        backbone=shape,
        num_classes=len(described.classes or ()),
        pooling="mean" if described.pooling == "mean" else "cls",
        projection=described.projection,
        activation=described.activation,
    )


def _center(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.float().flatten()
