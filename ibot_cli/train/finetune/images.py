"""The images of a fine-tuning: those with a label that may be used, those kept out, and those that judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.data.labels import choose_labels, lifted_classes
from ibot_cli.data.sources import Subset
from ibot_cli.data.splits import holdout
from ibot_cli.errors import DataError
from ibot_cli.evaluate.labelled import Labelled, LabelledSplit

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class FinetuneImages:
    """Images with one numbering of the classes.

    Attributes:
        train: What is trained on.
        holdout: Training images that choose the best step, or None.
        test: What judges the result.
        classes: Names; a label is a place in this list.
        available: Labelled training images before the choice.
        sentence: Which images are training and test images.
        notes: What the user should know.
        fingerprint: Of all training and test images with their labels, before the choice.
    """

    train: Labelled
    holdout: Labelled | None
    test: Labelled
    classes: tuple[str, ...]
    available: int
    sentence: str
    notes: tuple[str, ...]
    fingerprint: str

    @property
    def labels_used(self) -> int:
        """Images whose labels were looked at before the test: training and hold-out."""
        return len(self.train.labels) + (0 if self.holdout is None else len(self.holdout.labels))


def choose_images(split: LabelledSplit, config: FinetuneConfig) -> FinetuneImages:
    """Take the share of the labels that the configuration allows, and keep the hold-out apart.

    The hold-out is a part of the chosen labels, so that no more than those are ever seen.

    Raises:
        DataError: The parts have different classes, a class has too few images or none, or a class is left out.
    """
    _require_same_classes(split)
    labels, settings = split.train.labels, config.labels
    chosen = choose_labels(
        labels,
        fraction=settings.fraction,
        per_class=settings.per_class,
        seed=settings.seed,
        classes=split.classes,
    )
    require_every_class(labels[chosen], split.classes)
    held = np.zeros(len(chosen), dtype=bool)
    if config.train.holdout_ratio > 0:
        held = holdout(len(chosen), labels[chosen], seed=config.train.seed, ratio=config.train.holdout_ratio)
    notes = list(split.notes)
    if settings.fraction is not None and (lifted := lifted_classes(labels, settings.fraction)):
        notes.append(f"{lifted} classes have so few images that one of each was taken all the same.")
    return FinetuneImages(
        train=_part(split.train, chosen[~held], split.classes),
        holdout=_part(split.train, chosen[held], split.classes) if held.any() else None,
        test=split.test,
        classes=tuple(split.classes),
        available=len(labels),
        sentence=split.sentence,
        notes=tuple(notes),
        fingerprint=split.fingerprint,
    )


def require_every_class(labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Check that there is an image of each class to learn from.

    Raises:
        DataError: A class has none.
    """
    missing = sorted(set(range(len(classes))) - set(labels.tolist()))
    if missing:
        raise DataError(
            f"There is no training image of {_listed([classes[label] for label in missing])} among the chosen labels.",
            "Choose more labels, or remove the class from the data.",
        )


def _part(part: Labelled, index: NDArray[np.int64], classes: Sequence[str]) -> Labelled:
    """Some images, whose source has the labels of the common numbering too."""
    source = Subset(part.source, index)
    source.labels, source.classes = part.labels[index], list(classes)
    return Labelled(source, part.labels[index])


def _require_same_classes(split: LabelledSplit) -> None:
    """The folders of both parts must have the same names; a hold-out may miss a class of a single image."""
    unknown = np.setdiff1d(split.test.labels, split.train.labels)
    unasked = np.setdiff1d(split.train.labels, split.test.labels)
    if isinstance(split.test.source, Subset):
        unasked = unasked[:0]
    if len(unknown) or len(unasked):
        parts = [
            f"only the {part} images have {_listed([split.classes[label] for label in labels])}"
            for part, labels in (("training", unasked), ("test", unknown))
            if len(labels)
        ]
        raise DataError(
            f"The class folders of the training and the test images differ: {'; '.join(parts)}.",
            "Give both parts the same class folders, named alike.",
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
