"""The checkpoints of a run, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ibot_cli.errors import RunError
from ibot_cli.runs import checkpoint
from ibot_cli.weights.load import LoadedBackbone, Which, from_checkpoint


@dataclass(frozen=True)
class Stop:
    """A moment of the training.

    Attributes:
        step: Optimiser steps done.
        epoch: Epochs complete.
        loaded: The backbone then.
    """

    step: int
    epoch: int
    loaded: LoadedBackbone


def load_stops(paths: Iterable[Path], which: Which = "teacher", *, partial: bool = False) -> Iterator[Stop]:
    """Load checkpoints one at a time, so that only one network is in memory.

    Args:
        paths: Checkpoint files of a run.
        which: The network of a checkpoint that holds two.
        partial: As for `ibot_cli.weights.load.load_weights`.

    Raises:
        RunError: A file cannot be read.
        WeightsError: Its tensors do not fit.
    """
    for path in paths:
        try:
            found = checkpoint.load(path)
        except checkpoint.UnreadableCheckpointError as error:
            raise RunError(error.message, "Name the steps of the other checkpoints instead.") from error
        yield Stop(found.step, found.epoch, from_checkpoint(found, which, partial=partial))
