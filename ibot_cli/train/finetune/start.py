"""The classifier that a fine-tuning starts with, and what of the weights it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.core.classifier import Classifier, kept_projection
from ibot_cli.errors import UsageError
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.load import LoadedBackbone
from ibot_cli.weights.trainable import Trainable, at_image_size


@dataclass(frozen=True, kw_only=True)
class Start:
    """A classifier before its first step.

    Attributes:
        shape: What builds it.
        model: With its weights, on the CPU.
        head: `new`, `kept` or `replaced`.
        sentences: What is kept and what is new, for people.
    """

    shape: ClassifierShape
    model: Classifier
    head: str
    sentences: tuple[str, ...]


def starting_classifier(
    loaded: LoadedBackbone, parts: Trainable, config: FinetuneConfig, classes: Sequence[str]
) -> Start:
    """Build the classifier and fill it with what the weights have.

    Args:
        loaded: The weights.
        parts: Their backbone, from `trainable`.
        config: Decides pooling, projection, the head's scale, the image size (positions are resized to it) and the seed
            of everything that is new; the global generator is left alone.
        classes: Names of the classes.

    Raises:
        UsageError: No projection head to keep, or an image size that the network cannot have.
    """
    model, seed, before = config.model, config.train.seed, parts.shape.image_size
    parts = at_image_size(parts, model.image_size or before)
    projection = _projection(loaded) if model.keep_projection else None
    shape = ClassifierShape(
        backbone=parts.shape,
        num_classes=len(classes),
        pooling=model.pooling,
        projection=None if projection is None else len(projection.state_dict()["0.weight"]),
        activation="gelu" if projection is None or isinstance(projection[1], nn.GELU) else "relu",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = shape.build(model.head_init_scale)
    if model.from_scratch:
        return Start(shape=shape, model=classifier, head="new", sentences=(f"all weights are random, seed {seed}",))
    sentences = [_fill_backbone(classifier, parts, before), *_fill_norm(classifier, loaded)]
    if projection is not None and classifier.projection is not None:
        classifier.projection.load_state_dict(projection.state_dict())
        sentences.append(f"kept: the first layer of the projection head, {shape.projection} wide")
    head, sentence = _fill_head(classifier, loaded, classes)
    return Start(shape=shape, model=classifier, head=head, sentences=(*sentences, sentence))


def _projection(loaded: LoadedBackbone) -> nn.Sequential:
    if loaded.classifier is not None and loaded.classifier.projection is not None:
        return loaded.classifier.projection
    hint = "Set model.keep_projection=0, or start from a checkpoint with its projection head."
    if loaded.head is None:
        raise UsageError(f"model.keep_projection = 1, but {loaded.description} has no projection head.", hint)
    try:
        return kept_projection(loaded.head)
    except ValueError as error:
        raise UsageError(f"model.keep_projection = 1 cannot be: {error}.", hint) from error


def _fill_backbone(classifier: Classifier, parts: Trainable, before: int) -> str:
    backbone, size = classifier.backbone, parts.shape.image_size
    tensors = dict(parts.tensors)
    if classifier.fc_norm is not None:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("norm.")}
    wanted = backbone.state_dict()
    misfits = [name for name, value in tensors.items() if name in wanted and wanted[name].shape != value.shape]
    if misfits:
        raise UsageError(
            f"model.image_size = {size} gives the windows of this Swin another shape ({misfits[0]} and "
            f"{len(misfits) - 1} more).",
            f"Use model.image_size = {before}, or a size at which every stage holds a whole window.",
        )
    missing = {name: value for name, value in wanted.items() if name.startswith("norm.") and name not in tensors}
    backbone.load_state_dict({**missing, **tensors})
    resized = f", positions resized from {before} to {size} pixels" if size != before and "pos_embed" in wanted else ""
    norm = " with its final norm" if "norm.weight" in wanted and not missing else ""
    return f"kept: the backbone{norm}{resized}"


def _fill_norm(classifier: Classifier, loaded: LoadedBackbone) -> list[str]:
    earlier = None if loaded.classifier is None else loaded.classifier.fc_norm
    if classifier.fc_norm is None:
        return [] if earlier is None else ["new: the final norm; the weights had one for the mean of the patches"]
    if earlier is None:
        return ["new: the norm of the mean of the patches, in place of the final norm"]
    classifier.fc_norm.load_state_dict(earlier.state_dict())
    return ["kept: the norm of the mean of the patches"]


def _fill_head(classifier: Classifier, loaded: LoadedBackbone, classes: Sequence[str]) -> tuple[str, str]:
    size, earlier = f"classifier of {len(classes)} classes", loaded.classifier
    if earlier is None or loaded.classes is None:
        return "new", f"new: the {size}"
    if loaded.classes != tuple(classes):
        return "replaced", f"replaced: the {size}; the weights had {len(loaded.classes)} other classes"
    same_input = earlier.pooling == classifier.pooling and _shapes(earlier.head) == _shapes(classifier.head)
    if not same_input:
        return "replaced", f"replaced: the {size}; the weights had it on another feature"
    classifier.head.load_state_dict(earlier.head.state_dict())
    return "kept", f"kept: the {size}, which has the same names"


def _shapes(layer: nn.Module) -> list[tuple[int, ...]]:
    values: list[Tensor] = list(layer.state_dict().values())
    return [tuple(value.shape) for value in values]
