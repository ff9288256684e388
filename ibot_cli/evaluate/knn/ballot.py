"""One search for neighbours, and votes at several numbers of neighbours and temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ibot_cli.evaluate.knn.result import SweepCell
from ibot_cli.evaluate.knn.vote import PREFERRED_K, PREFERRED_TEMPERATURE, accuracy, clamp_ks, nearest, vote
from ibot_cli.evaluate.labelled_features import LabelledFeatures


@dataclass(frozen=True)
class Ballot:
    """What is to be voted.

    Attributes:
        ks: Distinct numbers of neighbours, ascending, none above the number of training images.
        temperatures: Distinct, ascending.
        k: The one that is reported first: 20 if it was asked for, else the first that was.
        temperature: Likewise, 0.07 or the first.
        num_classes: C.
        notes: On values of k that were cut.
    """

    ks: tuple[int, ...]
    temperatures: tuple[float, ...]
    k: int
    temperature: float
    num_classes: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a vote went.

    Attributes:
        cells: Accuracy at every k and temperature; by temperature, then by k.
        predicted: int64 `[m]`, the class of each test image at the k and the temperature that are reported first.
        labels: int64 `[m]`, the true classes.
    """

    cells: tuple[SweepCell, ...]
    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each test image is right, bool `[m]`."""
        return np.asarray(self.predicted == self.labels)

    def at(self, k: int, temperature: float) -> SweepCell:
        """The accuracy at one k and one temperature."""
        return next(cell for cell in self.cells if (cell.k, cell.temperature) == (k, temperature))

    def per_k(self, temperature: float) -> dict[int, float]:
        """k to top-1 at one temperature."""
        return {cell.k: cell.top1 for cell in self.cells if cell.temperature == temperature}

    def best(self) -> SweepCell:
        """The cell of largest top-1, the first of equals."""
        return max(self.cells, key=lambda cell: cell.top1)


def plan_ballot(ks: Sequence[int], temperatures: Sequence[float], num_train: int, num_classes: int) -> Ballot:
    """What to vote, where so many training images can be asked."""
    kept, note = clamp_ks(ks, num_train)
    return Ballot(
        ks=tuple(kept),
        temperatures=tuple(sorted(set(temperatures))),
        k=PREFERRED_K if PREFERRED_K in kept else min(ks[0], num_train),
        temperature=PREFERRED_TEMPERATURE if PREFERRED_TEMPERATURE in temperatures else temperatures[0],
        num_classes=num_classes,
        notes=() if note is None else (note,),
    )


def hold(ballot: Ballot, found: LabelledFeatures, *, device: torch.device | str = "cpu") -> Outcome:
    """Search the neighbours once, and let them vote.

    Args:
        ballot: What is to be voted.
        found: Features of both parts.
        device: Where to compute.
    """
    similarity, index = nearest(found.train.rows, found.test.rows, max(ballot.ks), device=device)
    classes = found.train.labels.to(index.device)[index]
    cells, predicted = [], torch.empty(0, dtype=torch.int64)
    for temperature in ballot.temperatures:
        votes = vote(similarity, classes, ballot.ks, temperature, ballot.num_classes)
        for k, ranked in votes.items():
            top1, top5 = accuracy(ranked, found.test.labels)
            cells.append(SweepCell(k=k, temperature=temperature, top1=top1, top5=top5))
        if temperature == ballot.temperature:
            predicted = votes[ballot.k][:, 0]
    return Outcome(tuple(cells), predicted.numpy(), found.test.labels.numpy())
