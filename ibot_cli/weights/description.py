"""The JSON text that travels inside every exported file: what the network is and how its images are prepared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from ibot_cli import __version__
from ibot_cli.config.load import from_mapping
from ibot_cli.config.schema import Config
from ibot_cli.errors import WeightsError
from ibot_cli.weights.finetuned import ImagePreparation
from ibot_cli.weights.loaded import LoadedBackbone
from ibot_cli.weights.shapes import BackboneShape

KEY = "ibot"
VERSION = 1
INTERPOLATION = "bicubic"


@dataclass(frozen=True, kw_only=True)
class Description:
    """What `parse` reads.

    Attributes:
        shape: What builds the backbone, without mask token, at the image size of the file; None for other networks.
        preparation: How images become numbers.
        method: As `Origin.method`.
        which: `student` or `teacher`.
        epoch: Epochs of its training that were complete.
        step: Optimiser steps of its training.
        config: Of `ibot pretrain`.
        classes: Names of the classes; None without a classifier.
        pooling: What the classifier sees, `mean` or `cls`.
        projection: Size of the classifier's projection layer.
        activation: Of the projection head or layer, `gelu` or `relu`.
        temps: Final temperatures of the teacher: `cls`, `patch`.
        native_image_size: Side of the images that the network was trained on; positions of another one are resized.
    """

    shape: BackboneShape | None
    preparation: ImagePreparation
    method: str | None = None
    which: str | None = None
    epoch: int | None = None
    step: int | None = None
    config: Config | None = None
    classes: tuple[str, ...] | None = None
    pooling: str | None = None
    projection: int | None = None
    activation: str = "gelu"
    temps: Mapping[str, float | None] = field(default_factory=dict)
    native_image_size: int | None = None


def describe(
    loaded: LoadedBackbone, *, image_size: int | None = None, shape: BackboneShape | None = None
) -> dict[str, Any]:
    """Everything about a network but its tensors, as plain values that JSON can hold.

    Args:
        loaded: The network.
        image_size: Side of the images that the exported network takes, in pixels; default its own.
        shape: Of the exported backbone; default the loaded one at that image size.
    """
    origin, classifier, head = loaded.origin, loaded.classifier, loaded.head
    size = image_size or loaded.image_size
    shape = shape or loaded.shape
    fields = None if shape is None else asdict(shape) | {"image_size": size, "mask_token": False}
    scale = loaded.scale
    return {
        "version": VERSION,
        "made_by": f"ibot {__version__}",
        "method": origin.method,
        "which": origin.which,
        "epoch": origin.epoch,
        "step": origin.step,
        "shape": fields,
        "native_image_size": loaded.image_size,
        "preparation": {
            "channels": loaded.channels,
            "image_size": size,
            "mean": list(loaded.mean),
            "std": list(loaded.std),
            "crop_ratio": loaded.crop_ratio,
            "interpolation": INTERPOLATION,
            **({} if loaded.bits == 8 else {"bits": loaded.bits}),
        },
        "classes": None if loaded.classes is None else list(loaded.classes),
        "pooling": None if classifier is None else classifier.pooling,
        "projection": None if classifier is None or classifier.projection is None else classifier.head.in_features,
        "activation": "relu" if _has_relu(head, classifier) else "gelu",
        "temps": None if scale is None else {"cls": scale.cls_temp, "patch": scale.patch_temp},
        "config": None if origin.config is None else _public(origin.config),
    }


def as_text(description: Mapping[str, Any]) -> str:
    """As one line of JSON."""
    return json.dumps(description, allow_nan=False, sort_keys=True)


def parse(text: str) -> Description:
    """Read what `describe` gave.

    Raises:
        WeightsError: It is no such text, or a newer version of ibot wrote it.
    """
    try:
        content = json.loads(text)
        version = content["version"]
        if not isinstance(version, int) or version > VERSION:
            raise WeightsError(
                f"The description inside the file has version {version}; this version of ibot reads up to {VERSION}.",
                "Upgrade ibot.",
            )
        return _parsed(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"The description inside the file (`{KEY}`) cannot be read: {type(error).__name__}: {error}.",
            "Export the weights again with `ibot export`.",
        ) from error


def _parsed(content: Mapping[str, Any]) -> Description:
    images = dict(content["preparation"])
    images.pop("interpolation", None)
    for name in ("mean", "std"):
        images[name] = tuple(float(value) for value in images[name])
    classes, config = content.get("classes"), content.get("config")
    return Description(
        shape=None if content.get("shape") is None else BackboneShape.stated(content["shape"]),
        preparation=ImagePreparation(**images),
        config=None if config is None else from_mapping(config, f"the description inside the file (`{KEY}`)"),
        classes=None if classes is None else tuple(str(name) for name in classes),
        activation=content.get("activation") or "gelu",
        temps=dict(content.get("temps") or {}),
        **{
            name: content.get(name)
            for name in ("method", "which", "epoch", "step", "pooling", "projection", "native_image_size")
        },
    )


def _public(config: Config) -> dict[str, Any]:
    """The configuration without the folders of the machine that it ran on."""
    start = config.init.weights
    if start is not None and not start.startswith("timm:"):
        config = replace(config, init=replace(config.init, weights=Path(start).name))
    return asdict(config)


def _has_relu(*networks: object) -> bool:

    return any(isinstance(part, nn.ReLU) for one in networks if isinstance(one, nn.Module) for part in one.modules())
