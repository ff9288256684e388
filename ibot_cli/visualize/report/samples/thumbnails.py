"""Small copies of images inside a page, each stored once however often it is shown."""

from __future__ import annotations

from dataclasses import dataclass

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source
from ibot_cli.visualize.pages import inline_image

LONGEST = 160
SHARP_UP_TO = 64  # a photograph of 128 pixels takes 28 kB without loss and 5 kB with some


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small copy of an image.

    Attributes:
        key: Names it within the page.
        uri: Its pixels as a `data:` URI.
        sharp: Whether it is so small that it should be enlarged without blur.
    """

    key: str
    uri: str
    sharp: bool


class Thumbnails:
    """The copies of one section, in the order in which they were first asked for.

    Args:
        prefix: Begins the keys, so that sections do not collide.
        longest: Longer side in pixels, at most.

    Attributes:
        bad: Images that could not be read: path -> reason.
    """

    def __init__(self, prefix: str, longest: int = LONGEST) -> None:
        self.bad: dict[str, str] = {}
        self._prefix, self._longest = prefix, longest
        self._of_image: dict[tuple[int, int], Thumbnail | None] = {}
        self._of_pixels: dict[str, Thumbnail] = {}

    @property
    def made(self) -> list[Thumbnail]:
        """Every copy once."""
        return list(self._of_pixels.values())

    def of(self, source: Source, place: int) -> Thumbnail | None:
        """The copy of an image, the same one for the same pixels; None where the image cannot be read (any more)."""
        asked = (id(source), place)
        if asked not in self._of_image:
            self._of_image[asked] = self._make(source, place)
        return self._of_image[asked]

    def _make(self, source: Source, place: int) -> Thumbnail | None:
        try:
            image = source.read(place)
        except UnreadableImage as error:
            self.bad[error.path] = error.reason
            return None
        uri = inline_image(image, longest=self._longest, sharp_up_to=SHARP_UP_TO)
        key = f"{self._prefix}-{len(self._of_pixels)}"
        return self._of_pixels.setdefault(uri, Thumbnail(key=key, uri=uri, sharp=max(image.size) <= SHARP_UP_TO))
