"""What every reader of a layout returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ibot_cli.config.schema import ViewsConfig
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.origin import Origin
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.teacher_scale import TeacherScale
from ibot_cli.weights.timm_models import TimmBackbone


@dataclass(frozen=True, kw_only=True)
class TimmNetwork:
    """A network that only timm builds.

    Attributes:
        name: Of the model, without tag.
        kwargs: Further arguments of `timm.create_model`.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> TimmBackbone:
        """The network with fresh weights from the global generator."""
        import timm

        return TimmBackbone(timm.create_model(self.name, pretrained=False, **self.kwargs))


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How images become numbers; see `ibot_cli.data.transform.eval_transform`.

    Attributes:
        mean: Per channel, of images in 0..1.
        std: Per channel.
        image_size: Side in pixels.
        crop_ratio: The image is resized to `image_size / crop_ratio`, then centre-cropped.
        bits: Of the levels of the images, 8 or 16.
        interpolation: Of that resizing. Ours is `bicubic`; another one is told in a note.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    crop_ratio: float = 0.875
    bits: int = 8
    interpolation: str = "bicubic"


@dataclass(frozen=True, kw_only=True)
class Found:
    """The network of a file before it is built; see `ibot_cli.weights.assembly.assemble`.

    Attributes:
        network: What is built.
        tensors: `backbone.<name in the built network>` and `head.*` of the projection head; with a `ClassifierShape`
            the names of `ibot_cli.core.classifier.Classifier`, with a `TimmNetwork` `backbone.<name in timm's model>`.
        origin: What the file says about itself.
        unused: Names of the file that are known and not needed.
        activation: Of the projection head, `gelu` or `relu`.
        preparation: How images are prepared if the file says it; else ImageNet's statistics and 0.875 are taken, or
            what timm has for a `TimmNetwork`.
        mask_token: The student's, `[1, D]`.
        scale: The teacher's centres and temperatures.
        views: How its training saw images.
        classes: With a `ClassifierShape`.
        description: One line for people; the origin's path if None.
        notes: What the user should be told.
    """

    network: BackboneShape | ClassifierShape | TimmNetwork
    tensors: Mapping[str, Tensor]
    origin: Origin
    unused: tuple[str, ...] = ()
    activation: str = "gelu"
    preparation: Preparation | None = None
    mask_token: Tensor | None = None
    scale: TeacherScale | None = None
    views: ViewsConfig | None = None
    classes: tuple[str, ...] | None = None
    description: str | None = None
    notes: tuple[str, ...] = ()
