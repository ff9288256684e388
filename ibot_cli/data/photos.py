"""The embedded photographs: labelled crops of the two pictures that ship with scikit-learn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from ibot_cli.data.decode import MODES
from ibot_cli.data.picture import ArrayPicture, PictureSource

SIDE = 48
PHOTOGRAPHS = ("china", "flower")


class Rectangle(NamedTuple):
    """A part of a photograph that shows one thing; crops slide inside it.

    Attributes:
        label: Photograph and region, the class of its crops.
        split: Which part of the data its crops belong to.
        left: First column, in pixels.
        top: First row.
        right: Column after the last.
        bottom: Row after the last.
        step: Pixels between neighbouring crops; small where the region is small, so that classes are of like size.
    """

    label: str
    split: Literal["train", "test"]
    left: int
    top: int
    right: int
    bottom: int
    step: int

    @property
    def photograph(self) -> str:
        """Name of the photograph."""
        return self.label.partition("/")[0]

    def corners(self) -> Iterator[tuple[int, int]]:
        """Left and top of each crop, row by row."""
        for top in range(self.top, self.bottom - SIDE + 1, self.step):
            for left in range(self.left, self.right - SIDE + 1, self.step):
                yield left, top


# Read off the photographs, which have 640 x 427 pixels. No two rectangles share a pixel, so that neither a training
# crop and a test crop nor two classes do.
RECTANGLES = (
    Rectangle("china/sky", "train", 0, 0, 94, 76, 6),
    Rectangle("china/sky", "train", 420, 0, 640, 132, 12),
    Rectangle("china/sky", "test", 330, 0, 420, 132, 9),
    Rectangle("china/horizon", "train", 330, 168, 454, 222, 2),  # haze above, the far shore below
    Rectangle("china/horizon", "test", 454, 168, 548, 222, 3),
    Rectangle("china/lake", "train", 354, 222, 452, 296, 3),
    Rectangle("china/lake", "test", 454, 222, 546, 276, 3),
    Rectangle("china/roof", "train", 142, 70, 286, 122, 3),  # top storey
    Rectangle("china/roof", "train", 66, 236, 176, 286, 2),  # third storey, left wing
    Rectangle("china/roof", "train", 208, 350, 308, 398, 2),  # lowest storey
    Rectangle("china/roof", "test", 176, 236, 304, 287, 3),  # third storey, front
    Rectangle("china/facade", "train", 100, 184, 220, 236, 4),  # upper gallery, left
    Rectangle("china/facade", "train", 82, 287, 342, 339, 4),  # lower gallery
    Rectangle("china/facade", "test", 220, 185, 318, 236, 3),  # upper gallery, right
    Rectangle("china/trees", "train", 380, 352, 548, 427, 9),  # middle
    Rectangle("china/trees", "train", 0, 340, 122, 427, 9),  # left
    Rectangle("china/trees", "train", 560, 160, 640, 270, 9),  # right, upper part
    Rectangle("china/trees", "test", 122, 352, 204, 427, 7),  # below the pagoda
    Rectangle("china/trees", "test", 560, 270, 640, 350, 7),  # right, lower part
    Rectangle("flower/heart", "train", 254, 166, 358, 220, 2),  # upper half
    Rectangle("flower/heart", "test", 254, 220, 358, 272, 3),  # lower half
    Rectangle("flower/petals", "train", 202, 164, 252, 282, 3),  # left of the heart
    Rectangle("flower/petals", "train", 226, 113, 384, 164, 3),  # above it
    Rectangle("flower/petals", "train", 252, 272, 390, 323, 3),  # below it
    Rectangle("flower/petals", "test", 358, 166, 409, 272, 3),  # right of it
    Rectangle("flower/rim", "train", 150, 150, 201, 290, 3),  # left
    Rectangle("flower/rim", "train", 236, 62, 380, 113, 3),  # top
    Rectangle("flower/rim", "train", 236, 323, 380, 374, 5),  # bottom
    Rectangle("flower/rim", "test", 409, 160, 460, 280, 3),  # right
    Rectangle("flower/leaf", "train", 0, 84, 130, 270, 9),
    Rectangle("flower/leaf", "test", 490, 100, 590, 200, 9),  # another leaf
)


class PhotosSource(PictureSource):
    """Crops of two photographs, each with the region that it shows as its class.

    A Chinese pagoda above a lake and a dahlia before its leaves, 640 x 427 pixels each. Crops are squares of 48 pixels
    that slide inside the rectangles of `RECTANGLES`; training and test rectangles share no pixel. Neighbouring crops
    overlap, and both parts come from the same photographs, so figures on these data show that training works and are
    no measure of how a network does on photographs in general. The horizon and the rim of the flower are classes
    because they share their colours with their neighbours: k-means of raw pixels told the other classes apart.

    Args:
        channels: 1 or 3.
        split: `train`, `test`, or `all`: training crops, then test crops.

    Source:
        `china.jpg` by danielbuechele and `flower.jpg` by vultilion, both from Flickr under the Creative Commons
        licence CC BY 2.0, as in `sklearn.datasets.load_sample_images`.
    """

    def __init__(self, *, channels: int, split: Literal["all", "train", "test"]) -> None:
        wanted = ("train", "test") if split == "all" else (split,)
        chosen = [rectangle for part in wanted for rectangle in RECTANGLES if rectangle.split == part]
        self._crops = [(rectangle.label, *corner) for rectangle in chosen for corner in rectangle.corners()]
        self._photographs = {
            name: np.asarray(image.convert(MODES[channels])).reshape(image.height, image.width, channels)
            for name, image in _load().items()
        }
        self.name = f"builtin:photos ({split})" if split != "all" else "builtin:photos"
        names = sorted({rectangle.label for rectangle in RECTANGLES})
        self.classes: list[str] | None = names
        self.labels: np.ndarray | None = np.array([names.index(label) for label, _, _ in self._crops], dtype=np.int64)
        self.fingerprint = self._fingerprint()
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self._crops)

    def open(self, index: int) -> ArrayPicture:
        """The crop, 48 x 48 pixels."""
        label, left, top = self._crops[index]
        photograph = self._photographs[label.partition("/")[0]]
        return ArrayPicture(np.ascontiguousarray(photograph[top : top + SIDE, left : left + SIDE]), "RGB")

    def path(self, index: int) -> str:
        """A name for messages: the class, and left and top of the crop in its photograph, in pixels."""
        label, left, top = self._crops[index]
        return f"builtin:photos/{label}/{left},{top}"

    def _fingerprint(self) -> str:
        """SHA-256 over both photographs and the places of the crops; the same for colour and grey."""
        digest = hashlib.sha256(f"builtin:photos:{SIDE}:{self._crops}".encode())
        for image in _load().values():
            digest.update(image.tobytes())
        return digest.hexdigest()


def _load() -> dict[str, Image.Image]:
    """The photographs by name, in colour."""
    from sklearn.datasets import load_sample_image

    return {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in PHOTOGRAPHS}
