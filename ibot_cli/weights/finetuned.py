"""What a fine-tuned checkpoint holds, and the classifier that it describes.

`state` of such a checkpoint has, besides what resuming needs: `task` (`finetune`), `config`, `network` (a
`ClassifierShape`), `model` (state dict of `Classifier`), `classes` (names), and `images` (an `ImagePreparation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ibot_cli.core.classifier import Classifier, Pooling, projection_layer
from ibot_cli.errors import WeightsError
from ibot_cli.runs.checkpoint import Checkpoint
from ibot_cli.weights.shapes import BackboneShape

TASK = "finetune"


@dataclass(frozen=True, kw_only=True)
class ClassifierShape:
    """Everything that decides the shapes of a `Classifier`.

    Attributes:
        backbone: Its backbone.
        num_classes: C.
        pooling: `mean` or `cls`.
        projection: Size of the kept projection layer, or None without one.
        activation: Of the projection layer, `gelu` or `relu`.
    """

    backbone: BackboneShape
    num_classes: int
    pooling: Pooling
    projection: int | None = None
    activation: str = "gelu"

    def build(self, head_init_scale: float = 0.001) -> Classifier:
        """A classifier of this shape with fresh weights from the global generator."""
        backbone = self.backbone.build()
        kept = None if self.projection is None else projection_layer(backbone.dim, self.projection, self.activation)
        return Classifier(
            backbone, self.num_classes, pooling=self.pooling, head_init_scale=head_init_scale, projection=kept
        )


@dataclass(frozen=True, kw_only=True)
class ImagePreparation:
    """How images become numbers; see `ibot_cli.data.transform.eval_transform`."""

    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float
    bits: int = 8


@dataclass(frozen=True, kw_only=True)
class FinetunedParts:
    """The parts of a fine-tuned checkpoint that make a classifier."""

    shape: ClassifierShape
    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...]
    images: ImagePreparation


def pack(shape: ClassifierShape, classes: tuple[str, ...], images: ImagePreparation) -> dict[str, Any]:
    """The entries of a checkpoint's state that `unpack` reads, without `model`."""
    return {"task": TASK, "network": asdict(shape), "classes": list(classes), "images": asdict(images)}


def is_finetuned(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's state is that of a fine-tuned classifier."""
    return state.get("task") == TASK


def unpack(found: Checkpoint) -> FinetunedParts:
    """Read what `pack` wrote.

    Raises:
        WeightsError: Something is missing or of another kind.
    """
    state = found.state
    try:
        network = dict(state["network"])
        shape = ClassifierShape(backbone=BackboneShape.stated(network.pop("backbone")), **network)
        images = dict(state["images"])
        for name in ("mean", "std"):
            images[name] = tuple(images[name])
        return FinetunedParts(
            shape=shape,
            tensors=dict(state["model"]),
            classes=tuple(state["classes"]),
            images=ImagePreparation(**images),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{found.path} does not say which network was fine-tuned ({error}).", "Use a checkpoint of `ibot finetune`."
        ) from error
