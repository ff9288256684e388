"""What all sources of image files share: they say where the bytes are, and the decode layer does the rest."""

from __future__ import annotations

from ibot_cli.data.decode import PixelFormat, open_bytes
from ibot_cli.data.picture import Encoded, Picture, PictureSource


class EncodedSource(PictureSource):
    """A source of stored image files; those that derive from it say how to get the bytes of one.

    Args:
        pixels: What the images become.
    """

    def __init__(self, pixels: PixelFormat) -> None:
        self.pixels = pixels

    def encoded(self, index: int) -> Encoded:
        """The stored file.

        Raises:
            UnreadableImage: It cannot be read.
        """
        raise NotImplementedError

    def path(self, index: int) -> str:
        """Where the image is; see `ibot_cli.data.sources.Source`."""
        raise NotImplementedError

    def place(self, index: int) -> str:
        """Where the image is, for messages about files that cannot be read; default its path."""
        return self.path(index)

    def open(self, index: int) -> Picture:
        """The picture; see `ibot_cli.data.sources.Source`."""
        return open_bytes(self.encoded(index).content, self.place(index), self.pixels)
