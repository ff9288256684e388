"""Test images that are in the training part too, and an evaluation without them.

The duplicates among the *test* images are left out: all training images vote as before, and no remaining test image can
be answered by looking its copy up.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ibot_cli.data.sources import Subset
from ibot_cli.errors import DataError
from ibot_cli.evaluate.knn.result import DuplicatePair, Excluded
from ibot_cli.evaluate.labelled import Labelled, LabelledSplit
from ibot_cli.evaluate.labelled_features import LabelledFeatures
from ibot_cli.evaluate.retrieval.duplicates import THRESHOLD, duplicates_of, identical_images

_EXAMPLES = 5
_MANY = 0.05


def find_duplicates(
    found: LabelledFeatures, split: LabelledSplit, *, device: torch.device | str = "cpu"
) -> tuple[Excluded, NDArray[np.int64]]:
    """Test images with a training image of the same decoded pixels, or of nearly the same features.

    Only what the features show to be close is decoded and compared pixel by pixel: identical pixels give the same
    features.

    Args:
        found: Features of both parts.
        split: The images.
        device: Where to compare the features.

    Returns:
        What was found, and the places of those images in the test source, int64.

    Raises:
        DataError: No test image would be left.
    """
    match = duplicates_of(found.train.rows, found.test.rows, device=device)
    rows = np.flatnonzero(match >= 0)
    if len(rows) == len(match):
        raise DataError(
            f"Every test image has a training image whose features have a cosine above {THRESHOLD}.",
            "Either all of them are copies, or the network tells no image from another; evaluate without "
            "--exclude-duplicates.",
        )
    candidates = np.unique(match[rows])
    sources = split.train.source, split.test.source
    same = identical_images(*sources, found.train.places[candidates], found.test.places[rows])
    partner = np.where(same >= 0, candidates[same], match[rows])
    pairs = [
        DuplicatePair(
            test=sources[1].path(int(found.test.places[row])),
            train=sources[0].path(int(found.train.places[other])),
            kind="identical" if exact else "near",
        )
        for row, other, exact in zip(rows, partner, same >= 0, strict=True)
    ]
    identical = [pair for pair in pairs if pair.kind == "identical"]
    near = [pair for pair in pairs if pair.kind == "near"]
    excluded = Excluded(
        identical=len(identical),
        near=len(near),
        threshold=THRESHOLD,
        examples=(*identical[:_EXAMPLES], *near[:_EXAMPLES]),
    )
    return excluded, found.test.places[rows]


def without(split: LabelledSplit, places: NDArray[np.int64] | None) -> LabelledSplit:
    """The same data without some test images; its fingerprint is another, as results do not compare.

    Args:
        split: The images.
        places: int64, places in the test source, or None.
    """
    if places is None or len(places) == 0:
        return split
    kept = np.setdiff1d(np.arange(len(split.test.source)), places)
    test = Labelled(Subset(split.test.source, kept), split.test.labels[kept])
    return LabelledSplit(split.train, test, split.classes, split.sentence, split.notes)


def exclusion_notes(excluded: Excluded | None, num_test: int) -> list[str]:
    """What the reader should know about the images that were left out; `num_test` counts those that remain."""
    if excluded is None:
        return []
    if not excluded.examples:
        return ["No test image was found among the training images."]
    left_out, first = excluded.identical + excluded.near, excluded.examples[0]
    images = "1 test image was" if left_out == 1 else f"{left_out:,} test images were"
    notes = [
        f"{images} left out as in the training part too: {excluded.identical:,} with identical pixels, "
        f"{excluded.near:,} with a cosine of features above {excluded.threshold} "
        f"(for example {first.test}, like {first.train})."
    ]
    share = excluded.near / (num_test + left_out)
    if share > _MANY:
        notes.append(
            f"So many near duplicates ({share:.0%} of the test images) are more likely images that this network hardly "
            "tells apart than copies; what remains is the harder part of the data."
        )
    return notes
