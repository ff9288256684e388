"""The views of training samples, with where they were cut and what was done to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ibot_cli.config.schema import MaskConfig, ViewsConfig

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SeenView:
    """One view of a sample.

    Attributes:
        kind: Global views are masked for the student and seen by the teacher too.
        number: Among those of the sample, from 1; globals first.
        size: Side in pixels.
        box: Left, top, width, height of the crop in pixels of the source, which is turned first.
        corners: Where the corners of the crop lie in the source: x, y; upper left first, then clockwise.
        share: Of the source's area.
        degrees: Turn of the source, counter-clockwise.
        flip: Whether the crop is mirrored.
        jitter: Whether brightness, contrast, saturation or hue were changed.
        gray: Whether the crop became grey.
        blur_radius: In pixels of the view; 0 for none.
        solarize: Whether bright levels were inverted.
        mask_ratio: Share of the patches that the student does not see; None for a local view.
    """

    kind: Literal["global", "local"]
    number: int
    size: int
    box: tuple[int, int, int, int]
    corners: tuple[Point, Point, Point, Point]
    share: float
    degrees: float
    flip: bool
    jitter: bool
    gray: bool
    blur_radius: float
    solarize: bool
    mask_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class SeenSample:
    """One sample of an epoch.

    Attributes:
        sample: Its place in DATA.
        used: The image that was seen: the same, or the one in place of an unreadable file.
        path: Of that image.
        source_size: Its width and height in pixels.
        views: Globals first.
    """

    sample: int
    used: int
    path: str
    source_size: tuple[int, int]
    views: tuple[SeenView, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingViews:
    """What the first samples of an epoch look like in training.

    Attributes:
        data: DATA.
        num_images: Images in it.
        preset: The recipe's name, or None for the default one.
        seed: Of the run.
        epoch: Counted from 0.
        views: Settings of the views.
        mask: Settings of the masks, or None without a patch target.
        grid: Patches per side of a global view.
        masked_share: Mean share of masked patches, over `num_masks` views of this epoch.
        unmasked_share: Share of these views that have no masked patch.
        num_masks: See `masked_share`.
        samples: In the order of the epoch.
        unreadable: Reason by path, of the files that were met.
    """

    data: str
    num_images: int
    preset: str | None
    seed: int
    epoch: int
    views: ViewsConfig
    mask: MaskConfig | None
    grid: int
    masked_share: float
    unmasked_share: float
    num_masks: int
    samples: tuple[SeenSample, ...]
    unreadable: dict[str, str]


@dataclass(frozen=True, eq=False)
class SamplePixels:
    """The pixels of one sample.

    Attributes:
        global_levels: uint8 or uint16 `[V, H, H, C]`.
        local_levels: uint8 or uint16 `[L, h, h, C]`.
        masks: bool `[V, grid, grid]`, True where the student does not see the patch.
    """

    global_levels: NDArray[np.unsignedinteger[Any]]
    local_levels: NDArray[np.unsignedinteger[Any]]
    masks: NDArray[np.bool_]
