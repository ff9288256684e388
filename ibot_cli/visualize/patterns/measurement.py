"""One pass over images that fills a collector for each way to assign patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.data.sources import Source
from ibot_cli.data.transform import EvalTransform
from ibot_cli.errors import WeightsError
from ibot_cli.evaluate.batches import Batch
from ibot_cli.visualize.patterns.assignment import Assigner
from ibot_cli.visualize.patterns.brightness import image_brightness, levels, patch_brightness
from ibot_cli.visualize.patterns.collector import Collector
from ibot_cli.visualize.patterns.reading import Progress, readable_batches
from ibot_cli.visualize.patterns.result import PatternOptions


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a pass found.

    Attributes:
        collectors: One per assigner.
        sizes: Width and height of each image of the source, int32 `[n, 2]`; 0 where it was not read.
        grid: Rows and columns of patches; (1, 1) for class tokens.
        unreadable: Path -> reason, in the order of the source.
    """

    collectors: list[Collector]
    sizes: NDArray[np.int32]
    grid: tuple[int, int]
    unreadable: dict[str, str]


def measure(
    assigners: Sequence[Assigner],
    source: Source,
    transform: EvalTransform,
    stride: int,
    options: PatternOptions,
    *,
    index: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Assign every patch of the images; each image is read once. No generator is touched.

    Args:
        assigners: On the options' device.
        source: The images.
        transform: How they are prepared.
        stride: Side of a patch in pixels.
        options: See `PatternOptions`.
        index: Which images, int64; all when None.
        progress: Called with the images done and their total.

    Raises:
        DataError: No image can be read.
        WeightsError: The network gives scores that are not finite, or no patch tokens.
    """
    chosen = np.arange(len(source), dtype=np.int64) if index is None else index
    num_classes = class_count(source)
    collectors = [Collector(each.num_prototypes, options.top_k, num_classes) for each in assigners]
    sizes = np.zeros((len(source), 2), dtype=np.int32)
    side = transform.image_size // stride
    grid = (side, side) if options.kind == "patch" else (1, 1)
    bad: dict[str, str] = {}
    for batch in readable_batches(source, transform, chosen, options, bad=bad, progress=progress):
        images = chosen[batch.places]
        sizes[images] = batch.sizes
        _add(assigners, collectors, batch, images, source, transform, stride, grid, options)
    return Measurement(collectors, sizes, grid, bad)


def class_count(source: Source) -> int:
    """Classes of the labels; 0 without."""
    if source.labels is None or len(source.labels) == 0:
        return 0
    return max(len(source.classes or ()), int(source.labels.max()) + 1)


def _add(
    assigners: Sequence[Assigner],
    collectors: Sequence[Collector],
    batch: Batch,
    images: NDArray[np.int64],
    source: Source,
    transform: EvalTransform,
    stride: int,
    grid: tuple[int, int],
    options: PatternOptions,
) -> None:
    pixels = batch.images.to(torch.device(options.device), non_blocking=True)
    least = options.min_brightness if transform.bits == 8 else -math.inf  # 12 bits in 16 would all be dark
    dark = ~(_brightness(pixels, transform, stride, options) > least).cpu().numpy()
    labels = None if source.labels is None else source.labels[images]
    for assigner, collector in zip(assigners, collectors, strict=True):
        assigned = assigner.assign(pixels)
        if assigned.prototype.shape != dark.shape:
            raise WeightsError(
                f"The network gives {assigned.prototype.shape[1]} patch tokens of an image, not {grid[0]} x {grid[1]}.",
                "Patterns need a ViT or Swin that keeps its patch tokens; --kind cls needs none.",
            )
        collector.add(images, assigned, dark, labels)


def _brightness(pixels: Tensor, transform: EvalTransform, stride: int, options: PatternOptions) -> Tensor:
    """Of each patch, or of each image, float32 `[B, N]`."""
    found = levels(pixels, transform.mean, transform.std, transform.bits)
    return patch_brightness(found, stride) if options.kind == "patch" else image_brightness(found)
