"""A network whose prototypes are colours, and images made of coloured squares: the right patterns are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ibot_cli.core.heads import Head
from ibot_cli.data.decode import UnreadableImage
from ibot_cli.weights.load import LoadedBackbone, weights_hash
from ibot_cli.weights.teacher_scale import TeacherScale
from tests.pictures import Pictures

COLOURS = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255), "y": (255, 255, 0), "c": (0, 255, 255)}
RED, GREEN, BLUE, YELLOW, CYAN = range(len(COLOURS))
# black scores 0 everywhere, so it falls to the first prototype, and is dark; a dark red is as red as a bright one
LETTERS = COLOURS | {"k": (0, 0, 0), "d": (40, 0, 0)}
STRIDE, SIDE = 8, 4
TEMP = 0.1


class MeanColours(nn.Module):
    """Tokens are mean colours: of the image, then of each 8 x 8 patch."""

    def __init__(self) -> None:
        super().__init__()
        self.stride, self.dim, self.image_size, self.channels = STRIDE, 3, STRIDE * SIDE, 3
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        patches = functional.avg_pool2d(images, STRIDE).flatten(2).transpose(1, 2)
        return torch.cat([images.mean(dim=(2, 3)).unsqueeze(1), patches], dim=1) * self.scale


def coloured_head(cls_letters: str | None = None) -> Head:
    """A head whose score is the cosine to each of COLOURS; `cls_letters` gives class tokens prototypes of their own."""
    with torch.random.fork_rng(devices=[]):
        separate = len(COLOURS) if cls_letters is not None else None
        head = Head(3, len(cls_letters or COLOURS), separate, bottleneck_size=3, num_layers=1)
    with torch.no_grad():
        linear = head.mlp[0]
        assert isinstance(linear, nn.Linear)
        linear.weight.copy_(torch.eye(3))
        head.patch_layer.weight_v.copy_(torch.tensor(list(COLOURS.values())) / 255)
        if cls_letters is not None:
            head.last_layer.weight_v.copy_(torch.tensor([COLOURS[letter] for letter in cls_letters]) / 255)
    return head.eval()


def coloured_weights(**changes: Any) -> LoadedBackbone:
    """The network, for images of 32 x 32 pixels and 4 x 4 patches; its centres are zero."""
    backbone = MeanColours().eval()
    found = LoadedBackbone(
        backbone=backbone,
        head=coloured_head(),
        channels=3,
        image_size=STRIDE * SIDE,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        crop_ratio=1.0,
        description="a network of colours",
        weights_hash=weights_hash(backbone),
        architecture="mean colours",
        rebuild=MeanColours,
        scale=TeacherScale(
            cls_center=torch.zeros(len(COLOURS)), patch_center=torch.zeros(len(COLOURS)), cls_temp=TEMP, patch_temp=TEMP
        ),
    )
    return replace(found, **changes)


def expected_probability(letter: str, prototype: int) -> float:
    """Of a patch in one colour, with centre 0."""
    directions = functional.normalize(torch.tensor(list(COLOURS.values()), dtype=torch.float64), dim=1)
    colour = functional.normalize(torch.tensor(LETTERS[letter], dtype=torch.float64), dim=0)
    return float(torch.softmax(directions @ colour / TEMP, dim=0)[prototype])


@dataclass(frozen=True)
class Painting:
    """Squares of colour, one per patch.

    Attributes:
        rows: Letters of COLOURS, or `k` for black; rows by spaces, such as `rrgg rrgg bbyy bbyy`.
        cell: Side of a square in pixels.
        across: Black pixels on either side of the squares.
        down: Black pixels above and below.
    """

    rows: str
    cell: int = STRIDE
    across: int = 0
    down: int = 0

    def image(self) -> Image.Image:
        """As `RGB`."""
        squares = np.array([[LETTERS[letter] for letter in row] for row in self.rows.split()], dtype=np.uint8)
        pixels = squares.repeat(self.cell, axis=0).repeat(self.cell, axis=1)
        return Image.fromarray(np.pad(pixels, ((self.down, self.down), (self.across, self.across), (0, 0))))


class Paintings(Pictures):
    """A source of paintings; those in `bad` cannot be read."""

    def __init__(
        self,
        paintings: Sequence[Painting | str],
        labels: Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        bad: Sequence[int] = (),
    ) -> None:
        self.name, self.notes = "paintings", list[str]()
        self.labels = None if labels is None else np.array(labels, dtype=np.int64)
        self.classes = None if classes is None else list(classes)
        self.fingerprint = f"{paintings} {labels} {bad}"
        self._paintings = [Painting(each) if isinstance(each, str) else each for each in paintings]
        self._bad = tuple(bad)

    def __len__(self) -> int:
        return len(self._paintings)

    def read(self, index: int) -> Image.Image:
        if index in self._bad:
            raise UnreadableImage(self.path(index), "damaged")
        return self._paintings[index].image()

    def path(self, index: int) -> str:
        return f"painting {index}"


def random_paintings(num: int, *, letters: str = "rgbyk", seed: int = 0, **options: Any) -> Paintings:
    """Each square in a random colour."""
    drawn = np.random.default_rng(seed).choice(list(letters), size=(num, SIDE, SIDE))
    return Paintings([" ".join("".join(row) for row in each) for each in drawn], **options)
