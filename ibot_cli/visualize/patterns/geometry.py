"""Where in its source image a patch lies that the network saw."""

from __future__ import annotations

from dataclasses import dataclass

from ibot_cli.data.crops import center_corner, shorter_resized
from ibot_cli.data.transform import EvalTransform
from ibot_cli.visualize.patterns.result import Box


@dataclass(frozen=True)
class Geometry:
    """The way of one image through the evaluation transform, backwards; exact in its rounding.

    Attributes:
        left: Of the crop, in pixels of the resized image.
        top: Likewise.
        size: Side of the crop.
        scale_x: Source pixels per resized pixel.
        scale_y: Likewise; differs a little, since the longer side is rounded.
    """

    left: int
    top: int
    size: int
    scale_x: float
    scale_y: float

    @classmethod
    def of(cls, width: int, height: int, transform: EvalTransform) -> Geometry:
        """Of a source image of `width` x `height` pixels."""
        resized = shorter_resized(width, height, transform.resize_size)
        left, top = center_corner(*resized, transform.image_size)
        return cls(left, top, transform.image_size, width / resized[0], height / resized[1])

    @property
    def seen(self) -> Box:
        """What the network saw."""
        return self._source(0, 0, self.size, self.size)

    def patch(self, row: int, column: int, stride: int) -> Box:
        """Of one patch of `stride` x `stride` pixels."""
        return self.window(row, column, stride, 1)

    def window(self, row: int, column: int, stride: int, window: int) -> Box:
        """Of the `window` x `window` patches around one patch; may stick out of what was seen."""
        around = window // 2
        left, top = (column - around) * stride, (row - around) * stride
        return self._source(left, top, left + window * stride, top + window * stride)

    def _source(self, left: float, top: float, right: float, bottom: float) -> Box:
        """From pixels of the crop to pixels of the source."""
        return (
            (self.left + left) * self.scale_x,
            (self.top + top) * self.scale_y,
            (self.left + right) * self.scale_x,
            (self.top + bottom) * self.scale_y,
        )
