"""k-means on raw patches: patterns of colour and edges alone, which learnt ones must beat.

Shapes: B images, N patches, K centres, D values of a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ibot_cli.data.sources import Source
from ibot_cli.data.transform import EvalTransform
from ibot_cli.evaluate.cluster.kmeans import kmeans
from ibot_cli.visualize.patterns.assignment import assigned, most_likely
from ibot_cli.visualize.patterns.brightness import levels
from ibot_cli.visualize.patterns.collector import Assigned
from ibot_cli.visualize.patterns.reading import readable_batches
from ibot_cli.visualize.patterns.result import PatternOptions

MOST_PATCHES = 50_000
IMAGE_SIDE = 32  # of a whole image, for class tokens
_MOST_VALUES = 2**26  # of all patches of the sample
_ITERATIONS = 30  # of k-means; the assignment hardly changes afterwards


class PixelAssigner:
    """Each raw patch goes to the nearest centre; the score is minus the distance.

    The probability is that of a mixture of equal spheres around the centres, whose variance is that of the clusters.

    Args:
        centers: float32 `[K, D]`.
        variance: Mean squared distance of a value of a patch to its centre.
        transform: How the images were prepared.
        stride: Side of a patch; 0 takes images whole.
    """

    def __init__(self, centers: Tensor, variance: float, transform: EvalTransform, stride: int) -> None:
        self.num_prototypes = len(centers)
        self._centers, self._variance = centers, max(variance, 1e-12)
        self._transform, self._stride = transform, stride

    def assign(self, images: Tensor) -> Assigned:
        """See `ibot_cli.visualize.patterns.assignment.Assigner`."""
        patches = raw_patches(images, self._transform, self._stride)
        centers = self._centers.to(images.device)
        return assigned(patches, self.num_prototypes, lambda part: self._nearest(part, centers))

    def _nearest(self, patches: Tensor, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        squared = torch.cdist(patches, centers).square_()
        prototype, score, probability = most_likely(-squared, squared.new_zeros(len(centers)), 2 * self._variance)
        return prototype, -(-score).sqrt(), probability


def fit_pixels(
    source: Source,
    transform: EvalTransform,
    stride: int,
    k: int,
    index: NDArray[np.int64],
    options: PatternOptions,
    progress: Callable[[str, int, int], None] | None = None,
) -> PixelAssigner:
    """k-means on a seeded sample of at most 50,000 patches of the images in `index`.

    Args:
        source: The images.
        transform: How they are prepared.
        stride: Side of a patch.
        k: Centres; no more than patches in the sample.
        index: int64, which images.
        options: Kind, seed, device, workers and batch size.
        progress: Called with the stage, what is done and its total.

    Raises:
        DataError: No image can be read.
    """
    side = 0 if options.kind == "cls" else stride
    sample = _sample(source, transform, side, index, options, progress)
    k = min(k, len(sample))
    found = kmeans(
        sample,
        k,
        restarts=1,
        seed=options.seed,
        device=options.device,
        max_iterations=_ITERATIONS,
        backend="torch",
        progress=None if progress is None else lambda done, total: progress("k-means of raw patches", done, total),
    )
    return PixelAssigner(found.centers, found.inertia / sample.numel(), transform, side)


def raw_patches(images: Tensor, transform: EvalTransform, stride: int) -> Tensor:
    """Values 0 to 1 of the patches of normalised images, `[B, N, D]`; stride 0 gives one small image each."""
    found = levels(images, transform.mean, transform.std, transform.bits).div_(255)
    if stride == 0:
        return functional.adaptive_avg_pool2d(found, IMAGE_SIDE).flatten(1).unsqueeze(1)
    return functional.unfold(found, stride, stride=stride).transpose(1, 2)


def _sample(
    source: Source,
    transform: EvalTransform,
    side: int,
    index: NDArray[np.int64],
    options: PatternOptions,
    progress: Callable[[str, int, int], None] | None,
) -> Tensor:
    """Some patches of the readable images, float32 `[n, D]` on the CPU."""
    per_image = (transform.image_size // side) ** 2 if side else 1
    size = len(transform.mean) * (side or IMAGE_SIDE) ** 2
    most = min(MOST_PATCHES, _MOST_VALUES // size)
    places = np.sort(np.random.default_rng(options.seed).permutation(len(index) * per_image)[:most])
    images, patches = np.divmod(places, per_image)
    wanted = np.unique(images)
    found, report = list[Tensor](), None if progress is None else partial(progress, "raw patches")
    for batch in readable_batches(source, transform, index[wanted], options, progress=report):
        every = raw_patches(batch.images, transform, side)
        for row, place in enumerate(batch.places):
            mine = slice(*np.searchsorted(images, [wanted[place], wanted[place] + 1]))
            found.append(every[row, torch.from_numpy(patches[mine])])
    return torch.cat(found)
