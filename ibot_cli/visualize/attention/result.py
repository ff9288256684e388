"""What attention figures are asked for, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ibot_cli.errors import UsageError
from ibot_cli.visualize.attention.figure import USUAL_MASS
from ibot_cli.visualize.attention.mass import HeadFigures


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """What is asked for.

    Attributes:
        size: Of the shorter side, in pixels; None is the network's own.
        threshold: Draw the smallest set of patches that holds this share, above 0 and at most 1; None draws heat maps.
        at: Points of each image, in its pixels, whose patches' attention is drawn; without any, the class token's.
        pca: Whether patch features are drawn as colours too.
        num: Images of each DATA.
        seed: Of their choice.
        device: Where to compute.

    Raises:
        UsageError: The threshold is out of range.
    """

    size: int | None = None
    threshold: float | None = None
    at: tuple[tuple[float, float], ...] = ()
    pca: bool = False
    num: int = 6
    seed: int = 0
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UsageError(
                f"--threshold {self.threshold:g} is not a share of the attention.",
                "It is above 0 and at most 1, for example 0.6.",
            )

    @property
    def mass(self) -> float:
        """The share that captions and figures speak of."""
        return USUAL_MASS if self.threshold is None else self.threshold


@dataclass(frozen=True, kw_only=True)
class QueryFigures:
    """The attention of one query.

    Attributes:
        at: The point that was asked for, in source pixels; None is the class token.
        patch: Row and column of its patch, or None.
        heads: In order.
    """

    at: tuple[float, float] | None
    patch: tuple[int, int] | None
    heads: tuple[HeadFigures, ...]


@dataclass(frozen=True, kw_only=True)
class ImageFigures:
    """One image.

    Attributes:
        path: Where it is.
        file: Its figure, in the folder; None where attention was left out.
        source_size: Width and height, in pixels.
        seen: Left, top, right and bottom of what the network saw, in source pixels.
        size: Width and height of what the network saw, in its pixels.
        grid: Patches: rows, columns.
        queries: In the order asked; empty where attention was left out.
    """

    path: str
    file: str | None
    source_size: tuple[int, int]
    seen: tuple[float, float, float, float]
    size: tuple[int, int]
    grid: tuple[int, int]
    queries: tuple[QueryFigures, ...]


@dataclass(frozen=True, kw_only=True)
class PcaFigures:
    """The sheet of patch features.

    Attributes:
        file: In the folder.
        explained: Share of the variance of each component.
    """

    file: str
    explained: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class AttentionResult:
    """Everything that was drawn.

    Attributes:
        made_by: The command; marks the folder.
        weights: What was loaded, for people.
        weights_hash: Its sha256.
        folder: Where the files are.
        mass: The share that `patches_for_mass` and `share_for_mass` speak of.
        threshold: Whether, and at which share, sets were drawn and not heat maps.
        images: In the order named.
        pca: None where it was not asked for.
        unreadable: Images of DATA that were left out: path -> reason.
        notes: What the user should be told.
    """

    made_by: str
    weights: str
    weights_hash: str
    folder: str
    mass: float
    threshold: float | None
    images: tuple[ImageFigures, ...]
    pca: PcaFigures | None
    unreadable: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """The pictures in the folder."""
        names = [image.file for image in self.images] + [None if self.pca is None else self.pca.file]
        return [name for name in names if name is not None]


def points(texts: list[str]) -> tuple[tuple[float, float], ...]:
    """The points of `--at X,Y`.

    Raises:
        UsageError: One of them is not two numbers.
    """
    return tuple(_point(text) for text in texts)


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UsageError(
            f"--at {text} is not a point.", "Write --at X,Y in pixels from the upper left corner, such as --at 120,80."
        )
    return x, y
