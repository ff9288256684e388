"""A whole image, of any size and shape, as a network sees it, and where its patches lie in the source."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ibot_cli.core.backbone import Backbone
from ibot_cli.data.crops import resize_shorter, shorter_resized
from ibot_cli.data.decode import MODES
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
        shown: The very same pixels, mode `L` or `RGB`, H x W.
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


def whole_image(image: Image.Image, loaded: LoadedBackbone, size: int | None = None) -> WholeImage:
    """Prepare a whole image, of any size and shape.

    The shorter side is resized to `size` (bicubic) and the shape kept; then what is over whole patches is cut away on
    all sides alike. Swin pads its maps to whole windows itself, so multiples of its stride are all it needs. A network
    of timm takes its own square only: what the shape has over it is cut away too.

    Args:
        image: Any mode; it becomes grey or RGB as the network needs it.
        loaded: The network.
        size: Of the shorter side, in pixels; default the network's own.

    Raises:
        OverlongImage: It would be more than `MOST_PATCHES` patches.
        UsageError: The size is smaller than a patch, or one that a network of timm does not take.
        WeightsError: The network has no grid of patches.
    """
    stride = patch_stride(loaded)
    size = checked_size(size, loaded, stride)
    columns, rows = (side // stride for side in shorter_resized(*image.size, size))
    if rows * columns > MOST_PATCHES:
        raise OverlongImage(image.size, (columns, rows))
    resized = resize_shorter(image.convert(MODES[loaded.channels]), size)
    limits = resized.size if isinstance(loaded.backbone, Backbone) else (size, size)
    width, height = (side // stride * stride for side in limits)
    left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
    shown = resized.crop((left, top, left + width, top + height))
    across, down = image.width / resized.width, image.height / resized.height
    return WholeImage(
        pixels=normalise(torch.from_numpy(stack_images([shown])), loaded.mean, loaded.std)[0],
        shown=shown,
        grid=(height // stride, width // stride),
        stride=stride,
        source_size=image.size,
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
