"""The embedded images: 1,797 handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
from PIL import Image

from ibot_cli.data.decode import MODES
from ibot_cli.data.picture import ArrayPicture, PictureSource

SIDE = 32
NUM_TEST = 360


class DigitsSource(PictureSource):
    """The digits as 8-bit images of 32 x 32, enlarged with bicubic interpolation.

    The stored 8 x 8 images have levels 0..16; they are scaled by 255 / 16 and enlarged fourfold so that crops have
    sub-pixel freedom. The split is `train_test_split(arange(1797), test_size=360, stratify=y, random_state=0)`.

    Args:
        channels: 1 or 3.
        split: `train` is 1,437 images, `test` 360.

    Source:
        E. Alpaydin, C. Kaynak: Optical recognition of handwritten digits (UCI, 1998), as in `sklearn.load_digits`.
    """

    def __init__(self, *, channels: int, split: Literal["all", "train", "test"]) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        index = _split(digits.target, split)
        levels = np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)
        self.name = f"builtin:digits ({split})" if split != "all" else "builtin:digits"
        self.labels: np.ndarray | None = digits.target[index].astype(np.int64)
        self.classes: list[str] | None = [str(digit) for digit in range(10)]
        self.fingerprint = hashlib.sha256(b"builtin:digits:32" + levels.tobytes()).hexdigest()
        self.notes: list[str] = []
        self._index = index
        self._levels = np.stack([_enlarge(image, channels) for image in levels])

    def __len__(self) -> int:
        return len(self._levels)

    def open(self, index: int) -> ArrayPicture:
        """The picture; its levels are shared, not to be changed in place."""
        return ArrayPicture(self._levels[index], "L")

    def path(self, index: int) -> str:
        """A name for messages, with the number of the digit in scikit-learn's order."""
        return f"builtin:digits/{self._index[index]}"


def _split(target: np.ndarray, split: str) -> np.ndarray:
    """Indices into scikit-learn's order, int64."""
    from sklearn.model_selection import train_test_split

    everything = np.arange(len(target))
    if split == "all":
        return everything
    train, test = train_test_split(everything, test_size=NUM_TEST, stratify=target, random_state=0)
    return np.asarray(train if split == "train" else test, dtype=np.int64)


def _enlarge(levels: np.ndarray, channels: int) -> np.ndarray:
    """uint8 `[SIDE, SIDE, C]`."""
    image = Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image.convert(MODES[channels])).reshape(SIDE, SIDE, channels)
