"""The features of a data set, by image and by part.

Shapes: R rows (asked images), n readable ones among them, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.errors import DataError

_COPIED = 4096  # rows at a time


class FeatureTable:
    """Features of the readable images.

    Args:
        parts: Part -> `[R, D]` float32 or bfloat16 on the CPU; the rows of unreadable images are anything.
        chosen: int64 `[R]`, places in the source.
        bad: Row -> path and reason of the images that cannot be read.
        split: From the text of a pooling to its parts.
        name: What people call the source.
        notes: What the user should know about the cache.

    Attributes:
        index: int64 `[n]`, places in the source of the readable images, in the order that was asked for (ascending by
            default).
        bad: Unreadable images: path -> reason.
        notes: What the user should know about the cache, as sentences.

    Raises:
        DataError: No image can be read.
    """

    def __init__(
        self,
        parts: Mapping[str, Tensor],
        chosen: NDArray[np.int64],
        bad: Mapping[int, tuple[str, str]],
        split: Callable[[str], tuple[str, ...]],
        name: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        rows = [row for row in range(len(chosen)) if row not in bad] if bad else None
        self.bad = dict(bad[row] for row in sorted(bad))
        if len(bad) == len(chosen):
            raise nothing_readable(name, self.bad)
        self.index = chosen if rows is None else chosen[rows]
        self.notes = notes
        self._rows = None if rows is None else torch.tensor(rows)
        self._parts, self._split = parts, split

    def __len__(self) -> int:
        return len(self.index)

    def pooled(self, pooling: str) -> Tensor:
        """The features of one pooling, float32 `[n, D]` on the CPU, not normalised.

        A pooling of a single part in fp32 is no copy where every image could be read; do not change it in place.

        Raises:
            UsageError: It is not a pooling.
            ValueError: Its parts were not asked for when the features were computed.
        """
        names = self._split(pooling)
        absent = [name for name in names if name not in self._parts]
        if absent:
            raise ValueError(f"{', '.join(absent)} of {pooling!r} was not computed; ask for it in feature_pass")
        columns = [self._parts[name] for name in names]
        if len(columns) == 1 and self._rows is None:
            return columns[0].float()
        found = torch.empty(len(self), sum(column.shape[1] for column in columns))
        for start in range(0, len(self), _COPIED):
            end = min(start + _COPIED, len(self))
            rows = slice(start, end) if self._rows is None else self._rows[start:end]
            torch.cat([column[rows].float() for column in columns], dim=1, out=found[start:end])
        return found


def nothing_readable(name: str, bad: Mapping[str, str]) -> DataError:
    """The error for a source without any readable image; `bad` is path -> reason."""
    first = next((f" ({path}: {reason})" for path, reason in bad.items()), "")
    return DataError(f"No image of {name} can be read{first}.", "Check the files.")
