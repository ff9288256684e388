"""Which images are clustered, and what is known about them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.places import own_parts
from ibot_cli.data.scan import natural_key
from ibot_cli.data.sources import Source, open_source
from ibot_cli.errors import UsageError

Part = Literal["auto", "train", "test", "all"]
DEFAULT_KS = (10, 20, 50, 100)
_FEWEST_PER_CLUSTER = 5  # images, on average, for a default number of clusters


@dataclass(frozen=True, kw_only=True)
class ClusterImages:
    """The images that are clustered.

    Attributes:
        source: The images.
        sentence: Which part of the data they are.
        fingerprint: sha256 hex over images and labels.
    """

    source: Source
    sentence: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """Labels of the images that were read, of at least two classes.

    Attributes:
        labels: int64 `[n]`.
        names: Of the classes that occur; a label is a place in this list.
    """

    labels: NDArray[np.int64]
    names: tuple[str, ...]


def open_images(data: str, *, channels: int, bits: int = 8, part: Part = "auto") -> ClusterImages:
    """Open DATA for clustering.

    Args:
        data: As for `open_source`.
        channels: Of the network.
        bits: Of a level.
        part: `auto` is the test part where the data have one of their own, which is what the papers cluster, else all.

    Raises:
        DataError: As `open_source`; there is no test part.
    """
    chosen = ("test" if has_test_part(data) else "all") if part == "auto" else part
    source = open_source(data, channels=channels, bits=bits, split=chosen)
    names = {"all": "all", "train": "training", "test": "test"}
    sentence = f"{len(source):,} images: {names[chosen]} images of {data}."
    return ClusterImages(source=source, sentence=sentence, fingerprint=_fingerprint(source))


def has_test_part(data: str) -> bool:
    """Whether DATA themselves say which images are for training and which for testing."""
    return bool(own_parts(data))


def class_names(source: Source) -> list[str] | None:
    """Class name of each image, or None without labels."""
    if source.labels is None:
        return None
    return [str(label) if source.classes is None else source.classes[label] for label in source.labels]


def _fingerprint(source: Source) -> str:
    """sha256 hex over images, labels and their names."""
    digest = hashlib.sha256("\n".join(class_names(source) or ()).encode(errors="surrogateescape"))
    digest.update(source.fingerprint.encode())
    return digest.hexdigest()


def classes_of(source: Source, index: NDArray[np.int64]) -> tuple[Classes | None, str | None]:
    """Labels of some images, or None and why agreement with labels cannot be measured.

    Args:
        source: The images.
        index: int64 `[n]`, places in the source.
    """
    every = class_names(source)
    if every is None:
        return None, None
    names = tuple(sorted({every[place] for place in index}, key=natural_key))
    if len(names) < 2:
        return None, f"All images are of one class, {names[0]}, with which no clusters can agree; it is left out."
    number = {name: place for place, name in enumerate(names)}
    return Classes(labels=np.array([number[every[place]] for place in index], dtype=np.int64), names=names), None


def choose_ks(ks: Sequence[int] | None, num_images: int, num_classes: int | None) -> list[int]:
    """Numbers of clusters, ascending: those asked for, else that of the classes, else a few that suit the images.

    Raises:
        UsageError: A K is larger than the number of images.
    """
    if ks is not None:
        check_ks(ks, num_images)
        return sorted(set(ks))
    if num_classes is not None:
        return [num_classes]
    fitting = [k for k in DEFAULT_KS if k * _FEWEST_PER_CLUSTER <= num_images]
    return fitting or [min(num_images, max(2, num_images // _FEWEST_PER_CLUSTER))]


def check_ks(ks: Sequence[int], num_images: int) -> None:
    """See `choose_ks`."""
    if max(ks) > num_images:
        raise UsageError(
            f"--k {max(ks)}: there are only {num_images:,} images, and each cluster needs one at least.",
            f"Ask for {num_images:,} clusters at most, or take more images with --split all.",
        )
