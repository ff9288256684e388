"""The weights that a continued pre-training starts from: read, adapted to the run, and filled into its networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ibot_cli.config.schema import Config, HeadConfig, InitConfig
from ibot_cli.core.heads import BatchNorm, Head
from ibot_cli.core.objective import Objective
from ibot_cli.data.transform import normalisation
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.weights.adapted import adapted
from ibot_cli.weights.load import LoadedBackbone, load_weights
from ibot_cli.weights.trainable import Trainable, trainable


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Weights as they are in their file.

    Attributes:
        weights: WEIGHTS, so that they are found from any working directory.
        loaded: What they are.
        parts: Their backbone.
    """

    weights: str
    loaded: LoadedBackbone
    parts: Trainable


def read_start(init: InitConfig, heads: int | None) -> Start | None:
    """Read the weights of a configuration; None where it has none.

    Args:
        init: Says which weights, and which network of them.
        heads: Attention heads, where no tensor of the file shows them.

    Raises:
        WeightsError: They cannot be read, or the network is of a kind that cannot be trained.
        RunError: The checkpoints of a run cannot be read.
    """
    if init.weights is None:
        return None
    try:
        loaded = load_weights(init.weights, which=init.which, heads=heads, partial=init.partial)
    except WeightsError as error:  # here the option is a setting, which the run keeps
        hint = error.hint and error.hint.replace("--heads N", "--set model.heads=N")
        hint = hint and hint.replace("--which student", "--set init.which=student")
        raise WeightsError(error.message, hint) from error
    return Start(weights=init.weights, loaded=loaded, parts=trainable(loaded))


def head_settings(head: Head) -> dict[str, Any]:
    """The settings of section `head`, without the prefix, that build a projection head; not the trainable norm."""
    linear = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    sizes = {
        "prototypes": len(head.last_layer.weight_g),
        "shared": head.last_layer2 is None,
        "separate_mlp": head.mlp2 is not None,
        "hidden_size": linear[0].out_features,
        "bottleneck_size": linear[-1].out_features,
        "num_layers": len(linear),
        "activation": "relu" if any(isinstance(layer, nn.ReLU) for layer in head.mlp) else "gelu",
        "norm": "batch" if any(isinstance(layer, BatchNorm) for layer in head.mlp) else "none",
    }
    if head.last_layer2 is not None:
        sizes["patch_prototypes"] = len(head.last_layer2.weight_g)
    if len(linear) == 1:  # no hidden layer, so nothing depends on these
        sizes = {name: size for name, size in sizes.items() if name not in ("hidden_size", "activation", "norm")}
    return sizes


def head_fits(head: Head | None, config: HeadConfig) -> bool:
    """Whether a projection head has the settings of a run."""
    return head is not None and all(getattr(config, name) == value for name, value in head_settings(head).items())


@dataclass(frozen=True, kw_only=True, eq=False)
class Beginning:
    """Weights as a run takes them.

    Attributes:
        start: The weights.
        parts: Their backbone for the run's images.
        head: Their projection head where it is kept, else None.
        sentences: What is kept, changed and new, for people.
    """

    start: Start
    parts: Trainable
    head: Head | None
    sentences: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """What a run notes about its weights."""
        loaded = self.start.loaded
        return {
            "weights": self.start.weights,
            "description": loaded.description,
            "weights_hash": loaded.weights_hash,
            "network": repr(self.start.parts.shape),
            "head": "new" if self.head is None else "kept",
            "sentences": list(self.sentences),
        }

    @torch.no_grad()
    def fill(self, objective: Objective) -> None:
        """Gives student and teacher these weights; what the weights lack stays as it was drawn."""
        student, scale = objective.student.backbone, self.start.loaded.scale
        for network in (objective.student, objective.teacher):
            state = network.backbone.state_dict()
            network.backbone.load_state_dict({**state, **self.parts.tensors})
            if self.head is not None:
                network.head.load_state_dict(self.head.state_dict())
        if student.masked_embed is not None and self.start.loaded.mask_token is not None:
            student.masked_embed.copy_(self.start.loaded.mask_token.reshape(student.masked_embed.shape))
        if self.head is not None and scale is not None:
            _copy_center(objective.center, scale.cls_center)
            _copy_center(objective.patch_center, scale.patch_center)


def begin(start: Start, config: Config) -> Beginning:
    """Fit weights to a configuration whose network is theirs.

    Raises:
        WeightsError: Channels that cannot be turned into the run's.
        UsageError: An image size that the network cannot have.
    """
    data, loaded = config.data, start.loaded
    seen, shown = (loaded.mean, loaded.std), normalisation(data.channels, data.mean, data.std)
    found = adapted(start.parts, channels=data.channels, image_size=config.views.global_size, seen=seen, shown=shown)
    missing = _check(found.parts, start.parts.shape.image_size)
    kept = head_fits(loaded.head, config.head)
    centered = config.objective.balance == "center" and loaded.scale is not None and loaded.scale.cls_center is not None
    sentences = [f"{loaded.origin.layout}: {loaded.description}", _head_sentence(loaded, kept, centered)]
    if config.objective.patch != "none":
        sentences.append(f"mask token {'new' if loaded.mask_token is None else 'kept'}")
    sentences += found.changes
    if data.channels == loaded.channels and seen != shown:
        sentences.append("images normalised otherwise than the weights saw them, as asked for")
    sentences += ["final norm new"] if missing else []
    return Beginning(start=start, parts=found.parts, head=loaded.head if kept else None, sentences=tuple(sentences))


def _check(parts: Trainable, before: int) -> list[str]:
    """Compare the tensors with the network; the names of the final norm where the weights have none.

    Raises:
        UsageError: The windows of a Swin would have another shape.
    """
    with torch.device("meta"):
        wanted = parts.shape.build().state_dict()
    misfits = [
        name for name, value in wanted.items() if name in parts.tensors and parts.tensors[name].shape != value.shape
    ]
    if misfits:
        raise UsageError(
            f"views.global_size = {parts.shape.image_size} gives the windows of this Swin another shape "
            f"({misfits[0]} and {len(misfits) - 1} more).",
            f"Use views.global_size = {before}, or a size at which every stage holds a whole window.",
        )
    missing = [name for name in wanted if name not in parts.tensors]
    assert all(name.startswith("norm.") for name in missing), missing
    return missing


def _head_sentence(loaded: LoadedBackbone, kept: bool, centered: bool) -> str:
    if kept:
        return "head kept, with its centres" if centered else "head kept"
    return "head new, because the weights have none" if loaded.head is None else "head new, because theirs does not fit"


def _copy_center(center: Tensor, value: Tensor | None) -> None:
    if value is not None and value.numel() == center.numel():
        center.copy_(value.reshape(center.shape))
