"""TensorBoard files, if its package is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Board:
    """Writes numbers to `RUN/tensorboard/`; does nothing when switched off or without the package.

    Args:
        run: The run directory.
        wanted: Whether to write at all.
    """

    def __init__(self, run: Path, wanted: bool) -> None:
        self._writer: Any = None
        if wanted and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run / "tensorboard"))

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Adds every number of the records at their step."""
        if self._writer is None:
            return
        for record in records:
            for name, value in record.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flushes and closes."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
