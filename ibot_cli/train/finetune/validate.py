"""How a classifier does on labelled images; the images are shared out over the processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibot_cli import distributed
from ibot_cli.errors import DataError
from ibot_cli.evaluate.confidence import wilson
from ibot_cli.evaluate.features import Transform
from ibot_cli.evaluate.labelled import Labelled
from ibot_cli.evaluate.predict import class_scores

TOP = 5


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a classifier got right.

    Attributes:
        place: Place of the right class in the order of the scores, from 1; 0 for unreadable images; int64 `[n]`.
        loss: Mean cross-entropy of the readable images, in nats.
        bad: Reason by path of the unreadable images.
    """

    place: NDArray[np.int64]
    loss: float
    bad: dict[str, str]

    @property
    def total(self) -> int:
        """Readable images."""
        return int((self.place > 0).sum())

    @property
    def right(self) -> int:
        """Images whose class has the highest score."""
        return int((self.place == 1).sum())

    @property
    def top1(self) -> float:
        """Share of `right`."""
        return self.right / self.total

    @property
    def top5(self) -> float:
        """Share of images whose class is among the five highest scores."""
        return int(((self.place > 0) & (self.place <= TOP)).sum()) / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % score interval of `top1`."""
        return wilson(self.right, self.total)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each readable image is right."""
        right: NDArray[np.bool_] = self.place[self.place > 0] == 1
        return right


def judge(
    classifier: nn.Module, part: Labelled, transform: Transform, *, device: torch.device, workers: int = 0
) -> Verdict:
    """Classify the images in true float32; every process calls it and gets the same verdict.

    Raises:
        DataError: No image can be read.
    """
    mine = np.arange(len(part.source), dtype=np.int64)[distributed.rank() :: distributed.world()]
    found = torch.zeros(2, len(part.source), dtype=torch.float64, device=device)
    bad: dict[str, str] = {}
    problem: DataError | None = None
    try:
        if len(mine):
            scores = class_scores(classifier, part.source, transform, index=mine, device=device, workers=workers)
            bad = scores.bad
            labels = torch.from_numpy(part.labels[scores.index])
            rows = torch.stack([_places(scores.cls, labels).double(), _losses(scores.cls, labels)])
            found[:, torch.from_numpy(scores.index).to(device)] = rows.to(device)
    except DataError as error:  # the other processes may have readable ones, and wait for this one
        problem = error
    place, loss = distributed.sum_over_ranks(found).cpu().unbind()
    readable = place > 0
    if not readable.any():
        raise problem or DataError(f"No image of {part.source.name} can be read.", "Check the files.")
    return Verdict(
        place=place.long().numpy(), loss=float(loss[readable].mean()), bad=dict(sorted(distributed.merged(bad).items()))
    )


def _places(scores: Tensor, labels: Tensor) -> Tensor:
    """1 for the highest score; of equal ones the class with the smaller number comes first. int64 `[n]`."""
    own = scores.gather(1, labels[:, None])
    before = torch.arange(scores.shape[1]) < labels[:, None]
    return 1 + ((scores > own) | ((scores == own) & before)).sum(dim=1)


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image, float64 `[n]`."""
    return -scores.double().log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
