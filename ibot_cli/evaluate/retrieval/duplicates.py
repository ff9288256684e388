"""Images that occur twice: nearly, by the cosine of their features, or exactly, pixel by pixel."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source
from ibot_cli.evaluate.retrieval.nearest import nearest_rows

THRESHOLD = 0.999


def duplicates_of(
    train: Tensor, test: Tensor, *, threshold: float = THRESHOLD, device: torch.device | str = "cpu"
) -> NDArray[np.int64]:
    """For each test row the nearest training row, where the two are nearly the same.

    Args:
        train: Features `[n, D]`, any scale.
        test: Features `[m, D]`.
        threshold: A cosine above it makes a duplicate.
        device: Where to compute.

    Returns:
        int64 `[m]`, a row of `train`, or -1.
    """
    similarity, index = nearest_rows(train, test, 1, device=device)
    return np.where((similarity > threshold).numpy(), index.numpy(), -1)[:, 0]


def identical_images(
    train_source: Source, test_source: Source, train_index: NDArray[np.int64], test_index: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each test image the first training image with the same decoded pixels.

    Every image named is decoded. Identical pixels give identical features, so where features are at hand, it is
    enough to ask for the rows that `duplicates_of` finds, and for the training images it names.

    Args:
        train_source: Training images.
        test_source: Test images.
        train_index: int64 `[n]`, which of them, as places in the source.
        test_index: int64 `[m]`.

    Returns:
        int64 `[m]`, a position in `train_index` (so a row of its features), or -1.
    """
    rows: dict[bytes, int] = {}
    for row, place in enumerate(train_index):
        digest = pixel_digest(train_source, int(place))
        if digest is not None:
            rows.setdefault(digest, row)
    found = (pixel_digest(test_source, int(place)) for place in test_index)
    return np.array([-1 if digest is None else rows.get(digest, -1) for digest in found], dtype=np.int64)


def pixel_digest(source: Source, place: int) -> bytes | None:
    """sha256 over mode, size and bytes of a decoded image; None where it cannot be read."""
    try:
        image = source.read(place)
    except UnreadableImage:
        return None
    digest = hashlib.sha256(f"{image.mode} {image.size}\n".encode())
    digest.update(image.tobytes())
    return digest.digest()
