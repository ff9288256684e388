"""What cached features depend on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import PIL
import timm
import torch
from numpy.typing import NDArray

from ibot_cli import __version__
from ibot_cli.data.sources import Source
from ibot_cli.evaluate.batches import Transform
from ibot_cli.weights.load import LoadedBackbone

FORMAT = "1"
_SAMPLED = 64  # paths that tell one set of images from another


@dataclass(frozen=True)
class FeatureKey:
    """Two passes with equal `asked` and `made` give the same features.

    Attributes:
        name: What people call the images.
        where: Digest of where some of the images lie; says whose successor a set of images is, no part of the key.
        asked: What the caller chose.
        made: What may change without the caller's doing.
    """

    name: str
    where: str
    asked: Mapping[str, str]
    made: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """sha256 hex."""
        text = json.dumps([dict(self.asked), dict(self.made)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def outdated(self, header: Mapping[str, Any]) -> str | None:
        """Why the features with this header, asked for like these, are not these; None if they have nothing in common.

        Args:
            header: Of another entry; any JSON object.
        """
        made = header.get("made")
        if header.get("where") != self.where or header.get("asked") != self.asked or not isinstance(made, Mapping):
            return None
        if made.get("data") != self.made["data"]:
            return f"The images of {self.name} changed after their features had been cached; {_AGAIN}"
        differing = [part for part in self.made if made.get(part) != self.made[part]]
        old = " and ".join(f"{part} {made.get(part)}" for part in differing)
        new = " and ".join(f"{part} {self.made[part]}" for part in differing)
        return f"The cached features of {self.name} were made with {old}, not {new}; {_AGAIN}"


_AGAIN = "they were computed again."


def feature_key(
    loaded: LoadedBackbone,
    source: Source,
    transform: Transform,
    chosen: NDArray[np.int64],
    *,
    precision: str,
    device: torch.device,
) -> FeatureKey:
    """The key of a pass over the images `chosen`, int64 places in the source."""
    asked = {
        "weights": loaded.weights_hash,
        "architecture": loaded.architecture,
        "transform": repr(transform) + ("" if loaded.bits == 8 else f" {loaded.bits} bits"),
        "index": _digest(chosen.tobytes()),
        "precision": precision,
        "device": device.type,
    }
    made = {
        "data": source.fingerprint,
        "format": FORMAT,
        "ibot": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "Pillow": PIL.__version__,
        "torchcodec": _version("torchcodec"),
    }
    return FeatureKey(source.name, _where(source, chosen), asked, made)


def _version(package: str) -> str:
    """Of a package that may decode images; asked without importing it, which takes long where all is cached."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _where(source: Source, chosen: NDArray[np.int64]) -> str:
    places = chosen[:: max(1, len(chosen) // _SAMPLED)]
    paths = [os.path.abspath(source.path(int(place))) for place in places]  # noqa: PTH100  # they may not exist
    return _digest("\n".join(paths).encode(errors="surrogateescape"))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
