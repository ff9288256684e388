"""Training and test part of DATA, for evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ibot_cli.data.csv_list import csv_part_of_each
from ibot_cli.data.folders import CHOSEN
from ibot_cli.data.huggingface.address import PREFIX
from ibot_cli.data.places import BUILTIN, own_parts
from ibot_cli.data.shards.source import ShardSource
from ibot_cli.data.sources import Source, Subset, open_source


def open_splits(
    data: str, *, channels: int, bits: int = 8, seed: int = 0, test_ratio: float = 0.2
) -> tuple[Source, Source, str]:
    """Open DATA in two parts that share no image.

    Args:
        data: As for `open_source`.
        channels: Of the network.
        bits: Of a level.
        seed: Of the hold-out, where the data have no test part of their own.
        test_ratio: Share of the images that is held out then.

    Returns:
        Training part, test part, and a sentence that says how they were made.

    Raises:
        DataError: As `open_source`.
    """
    parts = own_parts(data)
    if parts:
        train = open_source(data, channels=channels, bits=bits, split="train")
        test = open_source(data, channels=channels, bits=bits, split="test")
        if len(parts) == 2:  # both are used, so there is nothing to tell about the choice
            for part in (train, test):
                part.notes[:] = [note for note in part.notes if not note.startswith(CHOSEN)]
        return train, test, f"The data's own split: {len(train):,} training and {len(test):,} test images."
    source = open_source(data, channels=channels, bits=bits, split="train")
    chosen = holdout(len(source), source.labels, seed=seed, ratio=test_ratio)
    train, test = Subset(source, np.flatnonzero(~chosen)), Subset(source, np.flatnonzero(chosen))
    kind = "random" if source.labels is None else "stratified"
    sentence = (
        f"No test part in the data: a {kind} hold-out of {test_ratio:.0%} (seed {seed}), "
        f"{len(train):,} training and {len(test):,} test images."
    )
    return train, test, sentence


def parts_of_images(data: str, source: Source) -> list[str] | None:
    """Which part of DATA each image of `source`, opened as all of DATA, is in; None where there are no parts.

    Raises:
        DataError: As `open_source`.
    """
    parts = own_parts(data)
    if not parts:
        return None
    if isinstance(source, ShardSource):
        return source.parts
    path = Path(data).expanduser()
    if data.startswith((BUILTIN, PREFIX)):
        train = open_source(data, channels=1, split="train")
        known = {train.path(place) for place in range(len(train))}
        return [parts[0] if source.path(place) in known else parts[1] for place in range(len(source))]
    if not path.is_dir():  # a CSV file: of the others none has parts
        return csv_part_of_each(path, data)
    depth = len(path.resolve().parts)
    return [Path(source.path(place)).parts[depth] for place in range(len(source))]


def holdout(num_images: int, labels: np.ndarray | None, *, seed: int, ratio: float) -> np.ndarray:
    """Which images to hold out.

    Args:
        num_images: n.
        labels: int64 `[n]` for a stratified choice, or None.
        seed: Of the choice.
        ratio: Share of each class, rounded; a class of two or more images gives at least one and keeps at least one.

    Returns:
        bool `[n]`.
    """
    rng = np.random.default_rng(seed)
    groups = np.zeros(num_images, dtype=np.int64) if labels is None else labels
    chosen = np.zeros(num_images, dtype=bool)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        count = min(max(round(ratio * len(members)), 1), len(members) - 1)
        chosen[rng.permutation(members)[:count]] = True
    return chosen
