"""Labelled training and test images with one numbering of the classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.sources import Source
from ibot_cli.data.splits import open_splits
from ibot_cli.errors import DataError

_SHOWN = 5


@dataclass(frozen=True)
class Labelled:
    """A source with the class of each image, int64 `[n]`."""

    source: Source
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class LabelledSplit:
    """Training and test images for an evaluation.

    Attributes:
        train: The images that are learnt from.
        test: The images that are judged.
        classes: Names; a label is a place in this list.
        sentence: Which images are which.
        notes: What the reader should know.
    """

    train: Labelled
    test: Labelled
    classes: list[str]
    sentence: str
    notes: list[str]

    @property
    def fingerprint(self) -> str:
        """sha256 hex over both sources and all labels."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for part in (self.train, self.test):
            digest.update(part.source.fingerprint.encode())
            digest.update(np.ascontiguousarray(part.labels).tobytes())
        return digest.hexdigest()


def open_labelled(data: str, *, channels: int, bits: int = 8, seed: int = 0) -> LabelledSplit:
    """Open DATA for an evaluation with labels.

    Args:
        data: As for `open_splits`.
        channels: Of the network.
        bits: Of a level.
        seed: Of the hold-out, where the data have no test part.

    Raises:
        DataError: As `open_splits`; or there are no labels, fewer than two classes, no class that both parts have, or
            an empty part.
    """
    train, test, sentence = open_splits(data, channels=channels, bits=bits, seed=seed)
    return label_parts(train, test, data, sentence)


def label_parts(train: Source, test: Source, data: str, sentence: str) -> LabelledSplit:
    """Give both parts one numbering by class name; a class that only the test part has cannot be predicted.

    Raises:
        DataError: See `open_labelled`.
    """
    for part in (train, test):
        if part.labels is None:
            raise DataError(
                f"{part.name} has no labels, which this evaluation needs.",
                "Put the images of each class into a folder of its own, two classes at least.",
            )
        if len(part) == 0:
            raise DataError(
                f"{data} has too few images for a training and a test part.", "Give at least two images per class."
            )
    names = [_names(part) for part in (train, test)]
    _check_classes(set(names[0]), set(names[1]), data)
    classes = sorted(set(names[0]) | set(names[1]), key=_natural)
    number = {name: index for index, name in enumerate(classes)}
    labels = [np.array([number[name] for name in part], dtype=np.int64) for part in names]
    notes = list(dict.fromkeys([*train.notes, *test.notes]))
    notes += one_sided_notes(classes, labels[0], labels[1])
    return LabelledSplit(Labelled(train, labels[0]), Labelled(test, labels[1]), classes, sentence, notes)


def one_sided_notes(classes: Sequence[str], train: NDArray[np.int64], test: NDArray[np.int64]) -> list[str]:
    """Sentences on the classes that only one part has.

    Args:
        classes: Names.
        train: int64 `[n]`, classes of the training images.
        test: int64 `[m]`, classes of the test images.
    """
    unknown, unasked = np.setdiff1d(test, train), np.setdiff1d(train, test)
    notes = []
    if len(unknown):
        count = int(np.isin(test, unknown).sum())
        shown = _listed([classes[label] for label in unknown])
        notes.append(f"Classes without a training image: {shown}. Their test images ({count}) count as errors.")
    if len(unasked):
        shown = _listed([classes[label] for label in unasked])
        notes.append(f"Classes without a test image: {shown}. They can be predicted, but nothing tests them.")
    return notes


def _check_classes(train: set[str], test: set[str], data: str) -> None:
    if len(train | test) < 2:
        raise DataError(f"{data} has one class only, {min(train)}; every answer would be right.", "Give at least two.")
    if not train & test:
        first, second = (_listed(sorted(part, key=_natural)) for part in (train, test))
        raise DataError(
            f"The two parts of {data} have no class in common: {first} for training, {second} for testing.",
            "Name the folder of a class alike in both parts.",
        )
    if len(train) < 2:
        raise DataError(
            f"The training images of {data} have one class only, {min(train)}; every answer would be that one.",
            "Give training images of at least two classes.",
        )


def _listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _names(part: Source) -> list[str]:
    """Class name of each image."""
    assert part.labels is not None  # checked by the caller
    return [part.classes[label] if part.classes is not None else str(label) for label in part.labels]


def _natural(name: str) -> tuple[int, str]:
    """Numbers before words, by value."""
    return (int(name), name) if name.isdecimal() else (2**63, name)
