"""The images and features of a linear probe: what is learnt from, what chooses, what tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli import distributed
from ibot_cli.data.sources import Subset
from ibot_cli.data.splits import holdout
from ibot_cli.errors import DataError
from ibot_cli.evaluate.faults import left_out, require_finite_features
from ibot_cli.evaluate.features import FeatureTable, feature_pass
from ibot_cli.evaluate.labelled import Labelled, LabelledSplit, one_sided_notes
from ibot_cli.evaluate.linear.augment import AugmentedFeed
from ibot_cli.evaluate.linear.feed import CachedFeed, Feed
from ibot_cli.evaluate.linear.settings import Means, ProbeSettings
from ibot_cli.evaluate.linear.sweep import Judged
from ibot_cli.weights.load import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """What a solver needs.

    Attributes:
        feed: Batches for the sweep.
        train: Features that are learnt from, for `lbfgs`; else None.
        holdout: Held-out training images, or None.
        test: Test images.
        batch: Images per step, reduced where there are fewer.
        num_train: Images that are learnt from.
        notes: What the reader should know.
    """

    feed: Feed
    train: Judged | None
    holdout: Judged | None
    test: Judged
    batch: int
    num_train: int
    notes: tuple[str, ...]

    def close(self) -> None:
        """End the loader processes of the feed."""
        self.feed.close()


@dataclass(frozen=True)
class Chosen:
    """The images of both parts that are used, int64 places in their sources."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def read_data(
    loaded: LoadedBackbone,
    split: LabelledSplit,
    settings: ProbeSettings,
    means: Means,
    chosen: Chosen | None = None,
    prefix: str = "",
) -> ProbeData:
    """Features of all parts, and the batches of the sweep.

    Args:
        loaded: The network.
        split: The images.
        settings: What is read how.
        means: Where, and whom to tell.
        chosen: A part of the images; all when None.
        prefix: Goes before the names of the stages.

    Raises:
        DataError: No image of a part can be read, or nothing can be held out.
        WeightsError: The features are not finite.
    """

    def table(stage: str, images: Labelled, index: NDArray[np.int64] | None) -> FeatureTable:
        return feature_pass(
            loaded,
            images.source,
            poolings=settings.poolings,
            precision=settings.precision,
            index=index,
            device=means.device,
            workers=means.workers,
            cache=means.cache,
            progress=means.report(prefix, stage),
        )

    tested = table("test images", split.test, chosen.test if chosen else None)
    test = _judged(loaded, split.test, tested, settings.poolings)
    if settings.augment:
        return _augmented(loaded, split, settings, means, table, tested, test)
    kept = table("training images", split.train, chosen.train if chosen else None)
    whole = _judged(loaded, split.train, kept, settings.poolings)
    held = held_out(whole.labels.numpy(), settings)
    rows = np.flatnonzero(~held)
    batch, batch_notes = fitting(len(rows), settings.batch_size)
    feed = CachedFeed(whole.features, whole.labels, rows, batch=batch, seed=settings.seed, device=means.device)
    return ProbeData(
        feed=feed,
        train=_part(whole, ~held) if settings.solver == "lbfgs" else None,
        holdout=_part(whole, held) if held.any() else None,
        test=test,
        batch=batch,
        num_train=len(rows),
        notes=(*_notes(split, (kept, tested), whole.labels, test.labels, held, settings), *batch_notes),
    )


def _augmented(
    loaded: LoadedBackbone,
    split: LabelledSplit,
    settings: ProbeSettings,
    means: Means,
    table: Callable[[str, Labelled, NDArray[np.int64] | None], FeatureTable],
    tested: FeatureTable,
    test: Judged,
) -> ProbeData:
    """Augmented images to learn from; held-out ones are kept as they are, and their features with them."""
    held = held_out(split.train.labels, settings)
    rows = np.flatnonzero(~held)
    batch, batch_notes = fitting(len(rows), settings.batch_size)
    tables, judge = [tested], None
    if held.any():
        tables.append(table("held-out images", split.train, np.flatnonzero(held)))
        judge = _judged(loaded, split.train, tables[-1], settings.poolings)
    feed = AugmentedFeed(
        loaded,
        Labelled(Subset(split.train.source, rows), split.train.labels[rows]),
        settings.poolings,
        flip=settings.flip,
        batch=batch,
        epochs=settings.epochs,
        seed=settings.seed,
        precision=settings.precision,
        device=means.device,
        workers=means.workers,
    )
    labels = torch.from_numpy(split.train.labels)
    return ProbeData(
        feed=feed,
        train=None,
        holdout=judge,
        test=test,
        batch=batch,
        num_train=len(rows),
        notes=(*_notes(split, tables, labels, test.labels, held, settings), *batch_notes),
    )


def held_out(labels: NDArray[np.int64], settings: ProbeSettings) -> NDArray[np.bool_]:
    """Which training images choose among the heads, bool `[n]`; a stratified choice by seed.

    Raises:
        DataError: No class has two images.
    """
    if not settings.holdout:
        return np.zeros(len(labels), dtype=bool)
    held = holdout(len(labels), labels, seed=settings.seed, ratio=settings.holdout)
    if not held.any():
        raise DataError(
            "No training image can be held out: every class has one image only.",
            "Give at least two images per class; or one head with --holdout 0 --lrs RATE --pooling POOLING.",
        )
    return held


def fitting(num_images: int, batch_size: int) -> tuple[int, tuple[str, ...]]:
    """The batch that the images fill and that the processes share evenly, and a note where it is not as asked.

    Raises:
        DataError: Fewer images than processes.
    """
    world = distributed.world()
    batch = min(batch_size, num_images) // world * world
    if not batch:
        raise DataError(f"{num_images} training images for {world} processes.", "Start fewer processes.")
    if batch == batch_size:
        return batch, ()
    why = f"{num_images:,} training images" if num_images < batch_size else f"{world} processes"
    return batch, (f"The batch is {batch} instead of {batch_size}, for {why}; learning rates are scaled with it.",)


def _judged(loaded: LoadedBackbone, images: Labelled, table: FeatureTable, poolings: Sequence[str]) -> Judged:
    features = {text: require_finite_features(table.pooled(text), loaded.description) for text in poolings}
    return Judged(features, torch.from_numpy(images.labels[table.index]))


def _part(whole: Judged, mask: NDArray[np.bool_]) -> Judged:
    rows = torch.from_numpy(np.flatnonzero(mask))
    return Judged({text: table[rows] for text, table in whole.features.items()}, whole.labels[rows])


def _notes(
    split: LabelledSplit,
    tables: Sequence[FeatureTable],
    train_labels: Tensor,
    test_labels: Tensor,
    held: NDArray[np.bool_],
    settings: ProbeSettings,
) -> list[str]:
    notes = list(dict.fromkeys(note for table in tables for note in table.notes))
    bad = {path: reason for table in tables for path, reason in table.bad.items()}
    if bad:
        notes += left_out(bad)
        found = one_sided_notes(split.classes, train_labels.numpy(), test_labels.numpy())
        notes += [note for note in found if note not in split.notes]
    classes = np.unique(train_labels.numpy())
    alone = len(classes) - len(np.unique(train_labels.numpy()[held]))
    if settings.holdout and alone:
        notes.append(f"{alone} of {len(classes)} classes have a single training image, so none is held out.")
    return notes
