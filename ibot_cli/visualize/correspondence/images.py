"""Matching patches of two images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ibot_cli.data.formats.bands import displayable
from ibot_cli.data.single import read_levels
from ibot_cli.evaluate.faults import require_finite_features
from ibot_cli.visualize.correspondence.matching import nearest_patches, patch_features
from ibot_cli.visualize.correspondence.result import ImageMatches, mutual_matches
from ibot_cli.visualize.whole_image import WholeImage, whole_image
from ibot_cli.weights.load import LoadedBackbone


def match_images(
    loaded: LoadedBackbone,
    paths: tuple[str, str],
    *,
    size: int | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> tuple[ImageMatches, tuple[Image.Image, Image.Image]]:
    """The patches of two images, of any size and shape, that are each other's nearest.

    Args:
        loaded: The network.
        paths: The files.
        size: Of the shorter side in pixels; see `whole_image`.
        device: Where to compute.
        precision: `fp32` or `bf16`.

    Returns:
        The matches, and of each image the part that was seen, at its own resolution.

    Raises:
        DataError: An image cannot be read or is too long.
        UsageError: The size does not suit the network.
        WeightsError: The network has no grid of patches, or its features are not finite.
    """
    images = [read_levels(path, loaded.channels, loaded.bits) for path in paths]
    wholes = [whole_image(image, loaded, size) for image in images]
    features = [
        patch_features(loaded, whole.pixels[None], device=torch.device(device), precision=precision)[0]
        for whole in wholes
    ]
    for feature in features:
        require_finite_features(feature, loaded.description)
    found = nearest_patches(features[0], features[1])
    first, second = wholes
    grids = first.grid, second.grid
    matches = ImageMatches(
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        images=paths,
        sizes=(first.source_size, second.source_size),
        grids=grids,
        seen=(first.seen, second.seen),
        matches=mutual_matches(found, grids, (_centers(first), _centers(second))),
    )
    return matches, (_seen(displayable(images[0]), first), _seen(displayable(images[1]), second))


def _centers(whole: WholeImage) -> NDArray[np.float64]:
    """float64 `[N, 2]`: x, y of the centres of all patches in source pixels, row by row."""
    boxes = [whole.patch_box(row, column) for row in range(whole.grid[0]) for column in range(whole.grid[1])]
    edges = np.array(boxes)
    centers: NDArray[np.float64] = (edges[:, :2] + edges[:, 2:]) / 2
    return centers


def _seen(image: Image.Image, whole: WholeImage) -> Image.Image:
    """What was seen, as fine as the source has it but not coarser than the network saw it."""
    factor = max(1.0, whole.scale[0])
    size = round(whole.shown.width * factor), round(whole.shown.height * factor)
    return image.resize(size, Image.Resampling.LANCZOS, box=whole.seen) if factor > 1 else whole.shown
