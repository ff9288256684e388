"""Patterns of the same network before any training: what the trained ones must beat."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ibot_cli.core.heads import Head
from ibot_cli.data.sources import Source
from ibot_cli.evaluate.baselines import random_network
from ibot_cli.visualize.patterns.center import StageProgress
from ibot_cli.visualize.patterns.find import find_patterns, require_head
from ibot_cli.visualize.patterns.result import PatternOptions, Patterns
from ibot_cli.weights.load import LoadedBackbone, weights_hash
from ibot_cli.weights.shapes import build_head
from ibot_cli.weights.teacher_scale import TeacherScale


def random_patterns(
    loaded: LoadedBackbone,
    source: Source,
    options: PatternOptions,
    seed: int = 0,
    *,
    progress: StageProgress | None = None,
) -> Patterns:
    """As `find_patterns`, with a random backbone and a random head of the same shapes.

    Prototypes that were named mean nothing here; as many of the most populated ones are shown instead.

    Args:
        loaded: The network whose shapes and image preparation are used.
        source: The images.
        options: What to look for.
        seed: Of the weights; the global generator is restored.
        progress: Called with the stage, what is done and its total.

    Raises:
        WeightsError: As `find_patterns`.
        UsageError: As `find_patterns`.
        DataError: As `find_patterns`.
    """
    return find_patterns(with_random_weights(loaded, seed), source, without_names(options), progress=progress)


def with_random_weights(loaded: LoadedBackbone, seed: int) -> LoadedBackbone:
    """The same network and head with fresh weights that depend on `seed` alone.

    There is no centre; the temperatures stay, since the method sets them.

    Raises:
        WeightsError: There is no head.
    """
    head = require_head(loaded)
    fresh = random_network(lambda: nn.ModuleList([loaded.rebuild(), fresh_head(head)]), seed).eval()
    assert isinstance(fresh, nn.ModuleList)
    backbone, drawn = fresh
    assert isinstance(drawn, Head)
    held = loaded.scale
    return replace(
        loaded,
        backbone=backbone,
        head=drawn,
        classifier=None,
        classes=None,
        scale=None if held is None else TeacherScale(cls_temp=held.cls_temp, patch_temp=held.patch_temp),
        description=f"random weights (seed {seed})",
        weights_hash=weights_hash(backbone),
        unused=(),
        notes=[],
    )


def fresh_head(head: Head) -> Head:
    """A head of the same shapes with weights from the global generator."""
    activation = "relu" if any(isinstance(module, nn.ReLU) for module in head.modules()) else "gelu"
    found = build_head({f"head.{name}": tensor for name, tensor in head.state_dict().items()}, activation)
    assert found is not None
    return found


def without_names(options: PatternOptions) -> PatternOptions:
    """The same with the most populated prototypes in place of named ones."""
    if options.prototypes is None:
        return options
    return replace(options, prototypes=None, order="population", num_patterns=len(set(options.prototypes)))
