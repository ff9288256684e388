"""The search for the duplicates of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ibot_cli.data.sources import Source, open_source
from ibot_cli.data.splits import parts_of_images
from ibot_cli.errors import UsageError
from ibot_cli.evaluate.cluster.images import Part, class_names
from ibot_cli.evaluate.faults import each_left_out
from ibot_cli.evaluate.features import feature_pass
from ibot_cli.evaluate.retrieval.duplicate_groups import near_groups
from ibot_cli.evaluate.retrieval.duplicate_result import DuplicateImage, DuplicatesResult
from ibot_cli.evaluate.retrieval.duplicates import THRESHOLD, pixel_digest
from ibot_cli.evaluate.retrieval.lookup import FeatureOptions, StageProgress
from ibot_cli.evaluate.retrieval.nearest import nearest_rows
from ibot_cli.weights.load import LoadedBackbone

_DIGITS = 6
_PAIRS = 1000
_CROWDED, _MANY = 0.9, 0.05  # cosine of random images, share of near duplicates


def check_threshold(threshold: float) -> float:
    """`threshold` if it can separate duplicates from other images.

    Raises:
        UsageError: It is not between 0 and 1; a cosine in float32 is not exact enough for more than 0.99999.
    """
    if not 0 < threshold <= 0.99999:
        raise UsageError(
            f"--threshold {threshold} is not above 0 and at most 0.99999.",
            "A cosine of 0.999 means nearly the same image. Identical images are named as such at any threshold.",
        )
    return threshold


def find_duplicates(
    loaded: LoadedBackbone,
    data: str,
    *,
    part: Part = "auto",
    threshold: float = THRESHOLD,
    options: FeatureOptions | None = None,
    progress: StageProgress | None = None,
) -> tuple[DuplicatesResult, Source]:
    """Find the images of DATA that occur more than once, nearly or exactly.

    Pixels are compared within groups only: identical pixels have identical features.

    Args:
        loaded: The backbone and how its images are prepared.
        data: As for `open_source`.
        part: Which images; `auto` and `all` are all of them, in all parts.
        threshold: A cosine above it connects two images.
        options: How to compute features.
        progress: Called with the stage, what is done and its total.

    Returns:
        The groups, and the source that their places refer to.

    Raises:
        DataError: No image can be read.
        WeightsError: A feature is not finite.
    """
    options = options or FeatureOptions()
    source = open_source(data, channels=loaded.channels, bits=loaded.bits, split="all" if part == "auto" else part)

    def stage(name: str) -> Callable[[int, int], None] | None:
        return None if progress is None else partial(progress, name)

    table = feature_pass(
        loaded,
        source,
        poolings=(options.pooling,),
        precision=options.precision,
        device=options.device,
        workers=options.workers,
        cache=options.cache,
        progress=stage("images"),
    )
    features = table.pooled(options.pooling)
    found = near_groups(features, threshold=threshold, device=options.device, progress=stage("comparisons"))
    parts = parts_of_images(data, source) if part in ("auto", "all") else None
    groups = _described(source, table.index, features, found, parts, options, stage("pixels of duplicates"))
    counts = _Counts(groups, len(table), _typical_cosine(features))
    result = DuplicatesResult(
        groups=groups,
        num_images=len(table),
        num_grouped=counts.grouped,
        num_extra=counts.extra,
        num_identical=counts.identical,
        num_across=None if parts is None else counts.several(lambda image: image.part),
        num_mixed=None if source.labels is None else counts.several(lambda image: image.label),
        threshold=threshold,
        typical_cosine=counts.typical,
        pooling=options.pooling,
        precision=options.precision,
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        data=data,
        fingerprint=source.fingerprint,
        notes=(*loaded.notes, *source.notes, *table.notes, *each_left_out(table.bad), *counts.doubts()),
    )
    return result, source


def _described(
    source: Source,
    places: NDArray[np.int64],
    features: Tensor,
    groups: Sequence[NDArray[np.int64]],
    parts: Sequence[str] | None,
    options: FeatureOptions,
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[DuplicateImage, ...], ...]:
    """Paths, classes and similarities of the feature rows in each group."""
    if not groups:
        return ()
    labels = class_names(source)
    members = features[np.concatenate(groups)]
    # an image's nearest of all grouped images is of its own group, since they are more alike than the threshold
    similarity, _ = nearest_rows(members, members, 1, exclude_self=True, device=options.device, backend=options.backend)
    nearest = similarity[:, 0].tolist()
    described, done = [], 0
    for group in groups:
        first: dict[bytes, str] = {}
        images = []
        for place in places[group].tolist():
            path, digest = source.path(place), pixel_digest(source, place)
            original = path if digest is None else first.setdefault(digest, path)
            image = DuplicateImage(
                path=path,
                place=place,
                part=None if parts is None else parts[place],
                label=None if labels is None else labels[place],
                similarity=round(nearest[done], _DIGITS),
                identical_to=None if original == path else original,
            )
            images.append(image)
            done += 1
        described.append(tuple(images))
        if progress is not None:
            progress(done, len(nearest))
    return tuple(described)


def _typical_cosine(features: Tensor) -> float | None:
    """Median cosine of a fixed random choice of pairs; None for a single image."""
    if len(features) < 2:
        return None
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(features), _PAIRS)
    second = (first + rng.integers(1, len(features), _PAIRS)) % len(features)
    return round(float(functional.cosine_similarity(features[first].float(), features[second].float()).median()), 4)


@dataclass(frozen=True)
class _Counts:
    """The groups, the number of images and the typical cosine, counted up."""

    groups: Sequence[Sequence[DuplicateImage]]
    num_images: int
    typical: float | None

    @property
    def grouped(self) -> int:
        return sum(map(len, self.groups))

    @property
    def extra(self) -> int:
        return self.grouped - len(self.groups)

    @property
    def identical(self) -> int:
        return sum(image.identical_to is not None for group in self.groups for image in group)

    def several(self, kind: Callable[[DuplicateImage], str | None]) -> int:
        """Groups whose images are of several kinds."""
        return sum(len({kind(image) for image in group}) > 1 for group in self.groups)

    def doubts(self) -> list[str]:
        """Whether so many near duplicates say more about the network than about the images."""
        share = (self.extra - self.identical) / self.num_images
        if self.typical is None or self.typical < _CROWDED or share <= _MANY:
            return []
        return [
            f"So many near duplicates ({share:.0%} of the images) are more likely images that this network hardly "
            f"tells apart than copies: two random images have a cosine of {self.typical:.3f}. Look at them with "
            "--sheet before you remove any, or raise --threshold."
        ]
