"""What an accuracy must beat: the same network with random weights, and raw pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibot_cli.data.transform import eval_transform
from ibot_cli.evaluate.batches import Transform
from ibot_cli.evaluate.cached_values import cached_value
from ibot_cli.evaluate.features import extract
from ibot_cli.evaluate.knn.vote import accuracy, knn_vote
from ibot_cli.evaluate.labelled import Labelled
from ibot_cli.weights.load import LoadedBackbone, weights_hash

__all__ = [
    "MAX_TEST",
    "MAX_TRAIN",
    "SEEDS",
    "Baselines",
    "Pixels",
    "baseline_index",
    "cached",
    "cached_value",
    "measure_baselines",
    "random_network",
    "random_weights",
    "raw_pixels",
]

SEEDS = (0, 1, 2)
PIXEL_SIDE = 32
MAX_TRAIN, MAX_TEST = 10_000, 2_000


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Top-1 accuracies on at most 10,000 training and 2,000 test images.

    Attributes:
        random: Of the network with random weights, one per seed.
        pixels: Of the pixels at 32 x 32.
        num_train: Training images.
        num_test: Test images.
    """

    random: tuple[float, ...]
    pixels: float
    num_train: int
    num_test: int


def measure_baselines(
    rebuild: Callable[[], nn.Module],
    transform: Transform,
    train: Labelled,
    test: Labelled,
    *,
    channels: int,
    k: int,
    temperature: float,
    num_classes: int,
    device: torch.device | str = "cpu",
    workers: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Baselines:
    """Both baselines by the same k-NN on the same seeded subset; the global generators are left as they were.

    Args:
        rebuild: Makes the network with fresh weights from the global generator.
        transform: The network's evaluation transform.
        train: Training images.
        test: Test images.
        channels: 1 for grey pixels, 3 for RGB.
        k: Neighbours.
        temperature: Of the votes.
        num_classes: C.
        device: Where to compute.
        workers: Loader processes.
        progress: Called with the stage, the images done and their total.
    """
    chosen = [baseline_index(len(part.source), most) for part, most in ((train, MAX_TRAIN), (test, MAX_TEST))]

    def top1(stage: str, network: nn.Module, prepare: Transform, parts: int) -> list[float]:
        report = None if progress is None else partial(progress, stage)
        features, labels = [], []
        for part, index in zip((train, test), chosen, strict=True):
            found = extract(network, part.source, prepare, index=index, device=device, workers=workers, progress=report)
            features.append(found.cls.chunk(parts, dim=1))
            labels.append(torch.from_numpy(part.labels[found.index]))
        votes = [
            knn_vote(bank, labels[0], queries, [k], temperature, num_classes, device=device)[k]
            for bank, queries in zip(*features, strict=True)
        ]
        return [accuracy(predictions, labels[1])[0] for predictions in votes]

    networks = _SideBySide([random_network(rebuild, seed) for seed in SEEDS])
    flat = eval_transform(PIXEL_SIDE, 1.0, channels, (0.0,) * channels, (1.0,) * channels)
    return Baselines(
        random=tuple(top1("random weights", networks, transform, len(SEEDS))),
        pixels=top1("raw pixels", Pixels(channels), flat, 1)[0],
        num_train=len(chosen[0]),
        num_test=len(chosen[1]),
    )


def random_network(rebuild: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A fresh network whose weights depend on `seed` alone; the global generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return rebuild()


def random_weights(loaded: LoadedBackbone, seed: int) -> LoadedBackbone:
    """The same network with fresh weights that depend on `seed` alone, for any evaluation."""
    network = random_network(loaded.rebuild, seed).eval()
    return replace(
        loaded,
        backbone=network,
        head=None,
        classifier=None,
        classes=None,
        scale=None,
        description=f"random weights (seed {seed})",
        weights_hash=weights_hash(network),
        mask_token=None,
        unused=(),
        missing=(),
        notes=[],
    )


def raw_pixels(loaded: LoadedBackbone) -> LoadedBackbone:
    """Pixels at 32 x 32 in the channels of `loaded`, 0 to 1, as the single feature of an image.

    Every pooling gives this feature.
    """
    channels = loaded.channels
    network = Pixels(channels)
    return replace(
        loaded,
        backbone=network,
        head=None,
        image_size=PIXEL_SIDE,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        crop_ratio=1.0,
        description=f"raw pixels at {PIXEL_SIDE} x {PIXEL_SIDE}",
        weights_hash=weights_hash(network),
        architecture=f"raw pixels, {channels} channels at {PIXEL_SIDE} x {PIXEL_SIDE}",
        rebuild=partial(Pixels, channels),
        shape=None,
        classifier=None,
        classes=None,
        scale=None,
        mask_token=None,
        unused=(),
        missing=(),
        notes=[],
    )


def baseline_index(num: int, most: int) -> NDArray[np.int64]:
    """The images that a baseline uses, int64 ascending: all, or a fixed random choice of `most`."""
    if num <= most:
        return np.arange(num, dtype=np.int64)
    return np.sort(np.random.default_rng(0).permutation(num)[:most]).astype(np.int64)


def cached(key: str, measure: Callable[[], Baselines]) -> Baselines:
    """`measure()`, or what it gave for the same `key` before; an unusable cache is ignored.

    Args:
        key: Says everything that the result depends on.
        measure: Called when the cache has no answer.
    """
    stored = cached_value("baselines", key, lambda: asdict(measure()))
    return Baselines(**{**stored, "random": tuple(stored["random"])})


class _SideBySide(nn.Module):
    """Several networks in one pass over the images: class tokens `[B, 1, sum of D]`."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([network(images)[:, :1] for network in self.networks], dim=2)


class Pixels(nn.Module):
    """The image itself as one token: `[B, C, 32, 32]` to `[B, 1, C * 32 * 32]`.

    Args:
        channels: C.
    """

    single_feature = True  # whatever the pooling

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = channels * PIXEL_SIDE**2

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return images.flatten(1).unsqueeze(1)
