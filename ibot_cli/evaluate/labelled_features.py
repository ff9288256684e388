"""Features of both parts of labelled data, with the class of each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.evaluate.faults import left_out, require_finite_features
from ibot_cli.evaluate.features import feature_pass
from ibot_cli.evaluate.labelled import Labelled, LabelledSplit, one_sided_notes
from ibot_cli.weights.load import LoadedBackbone

StageProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PartFeatures:
    """Features of the readable images of one part.

    Attributes:
        rows: float32 `[n, D]` on the CPU, not normalised; possibly a memory map.
        labels: int64 `[n]`.
        places: int64 `[n]`, places in the part's source.
        bad: Unreadable images: path -> reason.
        notes: What the feature pass has to tell.
    """

    rows: Tensor
    labels: Tensor
    places: NDArray[np.int64]
    bad: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of the training and of the test images."""

    train: PartFeatures
    test: PartFeatures

    def without(self, places: NDArray[np.int64] | None) -> LabelledFeatures:
        """The same but for the test images at these places of their source."""
        if places is None or len(places) == 0:
            return self
        kept = torch.from_numpy(~np.isin(self.test.places, places))
        test = replace(
            self.test,
            rows=self.test.rows[kept],
            labels=self.test.labels[kept],
            places=self.test.places[kept.numpy()],
        )
        return replace(self, test=test)

    def notes(self, split: LabelledSplit) -> list[str]:
        """What the reader should know about how the images were read."""
        notes = list(dict.fromkeys((*self.train.notes, *self.test.notes)))
        bad = {**self.train.bad, **self.test.bad}
        if bad:
            found = one_sided_notes(split.classes, self.train.labels.numpy(), self.test.labels.numpy())
            notes += [*left_out(bad), *(note for note in found if note not in split.notes)]
        return notes


def read_features(
    loaded: LoadedBackbone,
    split: LabelledSplit,
    *,
    precision: str = "fp32",
    cache: bool = True,
    device: torch.device | str = "cpu",
    workers: int = 0,
    progress: StageProgress | None = None,
    prefix: str = "",
) -> LabelledFeatures:
    """Class-token features of both parts.

    Args:
        loaded: The backbone and how its images are prepared.
        split: The images.
        precision: Arithmetic, `fp32` or `bf16`.
        cache: Whether features may be kept on the disk and taken from there.
        device: Where to compute.
        workers: Loader processes.
        progress: Called with the stage, the images done and their total.
        prefix: Goes before the name of the stage.

    Raises:
        DataError: No image of a part can be read.
        WeightsError: The features are not finite.
    """

    def part(stage: str, images: Labelled) -> PartFeatures:
        report = None if progress is None else partial(progress, prefix + stage)
        table = feature_pass(
            loaded, images.source, precision=precision, device=device, workers=workers, cache=cache, progress=report
        )
        rows, places = require_finite_features(table.pooled("cls"), loaded.description), table.index
        return PartFeatures(rows, torch.from_numpy(images.labels[places]), places, table.bad, tuple(table.notes))

    return LabelledFeatures(part("training images", split.train), part("test images", split.test))
