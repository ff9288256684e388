"""A whole image, of any size and shape, as a network sees it, and where its patches lie in the source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ibot_cli.core.backbone import Backbone
from ibot_cli.data.crops import shorter_resized
from ibot_cli.data.decode import MODES
from ibot_cli.data.formats.bands import displayable, resized_levels
from ibot_cli.data.transform import normalise, stack_images
from ibot_cli.errors import DataError, UsageError, WeightsError
from ibot_cli.weights.load import LoadedBackbone
from ibot_cli.weights.timm_models import TimmBackbone

Box = tuple[float, float, float, float]
MOST_PATCHES = 2**15  # 1080 x 1920 pixels in patches of 8; far more come from long strips only, and cost hours


class OverlongImage(DataError):
    """An image that would be more patches than can be computed in sensible time.

    Args:
        size: Its width and height in pixels.
        grid: Columns and rows of patches.
    """

    def __init__(self, size: tuple[int, int], grid: tuple[int, int]) -> None:
        self.reason = f"it would be {grid[0]:,} x {grid[1]:,} patches, which is more than {MOST_PATCHES:,}"
        super().__init__(
            f"An image of {size[0]} x {size[1]} pixels is too large: {self.reason}.",
            "Choose a smaller --size, or cut a long image into parts.",
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class WholeImage:
    """What the network is given of an image.

    Attributes:
        pixels: Normalised, float32 `[C, H, W]`; H and W are multiples of `stride`.
        shown: The very same pixels for people, mode `L` or `RGB`, H x W; see `ibot_cli.data.formats.bands.displayable`.
        grid: Patches: rows, columns.
        stride: Pixels of `shown` per patch and side.
        source_size: Width and height of the source image.
        seen: Left, top, right and bottom of what is seen, in pixels of the source; they may be fractions.
    """

    pixels: Tensor
    shown: Image.Image
    grid: tuple[int, int]
    stride: int
    source_size: tuple[int, int]
    seen: Box

    @property
    def scale(self) -> tuple[float, float]:
        """Source pixels per pixel of `shown`: across, down."""
        left, top, right, bottom = self.seen
        return (right - left) / self.shown.width, (bottom - top) / self.shown.height

    def patch_at(self, x: float, y: float) -> tuple[int, int] | None:
        """Row and column of the patch that shows a point of the source.

        Args:
            x: From the left edge, in source pixels; the point lies in the image where 0 <= x < width.
            y: From the upper edge.

        Returns:
            None where the point was cut away, or lies outside the image.
        """
        left, top, _, _ = self.seen
        across, down = self.scale
        row, column = int((y - top) / down // self.stride), int((x - left) / across // self.stride)
        return (row, column) if 0 <= row < self.grid[0] and 0 <= column < self.grid[1] else None

    def patch_box(self, row: int, column: int) -> Box:
        """Left, top, right and bottom of a patch in source pixels."""
        left, top, _, _ = self.seen
        across, down = (factor * self.stride for factor in self.scale)
        return left + column * across, top + row * down, left + (column + 1) * across, top + (row + 1) * down


def whole_image(image: np.ndarray | Image.Image, loaded: LoadedBackbone, size: int | None = None) -> WholeImage:
    """Prepare a whole image, of any size and shape.

    The shorter side is resized to `size` (bicubic) and the shape kept; then what is over whole patches is cut away on
    all sides alike. Swin pads its maps to whole windows itself, so multiples of its stride are all it needs. A network
    of timm takes its own square only: what the shape has over it is cut away too.

    Args:
        image: Levels `[H, W, C]` as the network needs them, or an image of any mode for one of 1 or 3 channels.
        loaded: The network.
        size: Of the shorter side, in pixels; default the network's own.

    Raises:
        OverlongImage: It would be more than `MOST_PATCHES` patches.
        UsageError: The size is smaller than a patch, or one that a network of timm does not take.
        WeightsError: The network has no grid of patches.
    """
    stride = patch_stride(loaded)
    size = checked_size(size, loaded, stride)
    source_width, source_height = (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else image.size
    wide, high = shorter_resized(source_width, source_height, size)
    if (high // stride) * (wide // stride) > MOST_PATCHES:
        raise OverlongImage((source_width, source_height), (wide // stride, high // stride))
    levels = image if isinstance(image, np.ndarray) else stack_images([image.convert(MODES[loaded.channels])])[0]
    levels = resized_levels(levels, wide, high)
    limits = (wide, high) if isinstance(loaded.backbone, Backbone) else (size, size)
    width, height = (side // stride * stride for side in limits)
    left, top = round((wide - width) / 2), round((high - height) / 2)
    seen = np.array(levels[top : top + height, left : left + width])
    across, down = source_width / wide, source_height / high
    return WholeImage(
        pixels=normalise(torch.from_numpy(seen), loaded.mean, loaded.std),
        shown=displayable(seen),
        grid=(height // stride, width // stride),
        stride=stride,
        source_size=(source_width, source_height),
        seen=(left * across, top * down, (left + width) * across, (top + height) * down),
    )


def patch_stride(loaded: LoadedBackbone) -> int:
    """Pixels per patch and side.

    Raises:
        WeightsError: The network, one of timm, has no grid of patches.
    """
    backbone = loaded.backbone
    stride = backbone.stride if isinstance(backbone, (Backbone, TimmBackbone)) else None
    if stride is None:
        raise WeightsError(
            f"{loaded.description} has no grid of patches that could be shown.",
            "Use a run of ibot, an official checkpoint, or a vision transformer of timm.",
        )
    return stride


def checked_size(size: int | None, loaded: LoadedBackbone, stride: int) -> int:
    """The size that was asked for, or the network's own.

    Raises:
        UsageError: It is smaller than a patch, or a network of timm does not take it.
    """
    size = loaded.image_size if size is None else size
    if size < stride:
        raise UsageError(
            f"--size {size} is less than one patch of {loaded.description}, which is {stride} pixels.",
            f"The network was made for {loaded.image_size}.",
        )
    if size != loaded.image_size and not isinstance(loaded.backbone, Backbone):
        raise UsageError(
            f"--size {size}: {loaded.description} takes images of {loaded.image_size} pixels only.",
            "Leave --size out.",
        )
    return size
