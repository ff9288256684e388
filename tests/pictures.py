"""What sources in tests need beside `read`."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ibot_cli.data.picture import ArrayPicture, Encoded


class Pictures:
    """The other ways to a picture, for sources that define `read`, which gives mode `L` or `RGB`."""

    def read(self, index: int) -> Image.Image:
        raise NotImplementedError

    def open(self, index: int) -> ArrayPicture:
        image = self.read(index)
        return ArrayPicture(np.asarray(image).reshape(image.height, image.width, -1), image.mode)

    def levels(self, index: int) -> np.ndarray:
        return self.open(index).levels()

    def encoded(self, index: int) -> Encoded | None:
        return None
