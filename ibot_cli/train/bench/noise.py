"""Images of random levels, for measuring without data."""

from __future__ import annotations

import numpy as np

from ibot_cli.config.schema import Config
from ibot_cli.data.picture import ArrayPicture, PictureSource
from ibot_cli.data.probe import DataSummary
from ibot_cli.data.rng import stream

NAME = "synthetic views"


class Noise(PictureSource):
    """As many images of uniform noise as wanted, made when they are opened.

    Args:
        num_images: How many.
        side: Of an image, in pixels.
        channels: C.
        bits: 8 or 16.
    """

    name = NAME
    labels: np.ndarray | None = None
    classes: list[str] | None = None

    def __init__(self, num_images: int, *, side: int, channels: int, bits: int = 8) -> None:
        self._num, self._shape, self._bits = num_images, (side, side, channels), bits
        self.fingerprint = f"noise:{num_images}:{self._shape}:{bits}"
        self.notes: list[str] = []

    @classmethod
    def for_views(cls, config: Config, num_images: int) -> Noise:
        """Images of the size of a configuration's global views."""
        data = config.data
        return cls(num_images, side=config.views.global_size, channels=data.channels, bits=data.bits)

    def __len__(self) -> int:
        return self._num

    def open(self, index: int) -> ArrayPicture:
        """The picture; the same one each time."""
        levels = stream(0, index, 0, "noise").integers(0, 2**self._bits, self._shape)
        return ArrayPicture(levels.astype(np.uint8 if self._bits == 8 else np.uint16), "noise")

    def path(self, index: int) -> str:
        """A name for messages."""
        return f"{self.name}, image {index}"

    def summary(self) -> DataSummary:
        """What a look at them would find."""
        size = self._shape[:2]
        return DataSummary(self.name, self._num, None, 0, {}, size, size, {"noise": self._num}, [], size)
