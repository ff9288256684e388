"""The centre and temperature that turn scores into probabilities, from the weights or from the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibot_cli.core.heads import Head
from ibot_cli.data.sources import Source
from ibot_cli.evaluate.batches import Transform
from ibot_cli.evaluate.precision import exact_float32
from ibot_cli.visualize.patterns.assignment import bottlenecks, num_prototypes, prototype_weight
from ibot_cli.visualize.patterns.reading import readable_batches
from ibot_cli.visualize.patterns.result import PatternOptions
from ibot_cli.weights.teacher_scale import TeacherScale

SAMPLE = 1024
DEFAULT_TEMP = 0.07
_WHAT = {"patch": "patches", "cls": "class tokens"}

StageProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Scale:
    """Probability = softmax of (scores - center) / temp.

    Attributes:
        center: float32 `[K]` on the CPU.
        temp: Temperature.
        notes: Where they come from, unless it is the weights.
    """

    center: Tensor
    temp: float
    notes: tuple[str, ...] = ()


def find_scale(
    held: TeacherScale | None,
    backbone: nn.Module,
    head: Head,
    source: Source,
    transform: Transform,
    options: PatternOptions,
    progress: StageProgress | None = None,
) -> Scale:
    """What the weights hold; else the mean score over a sample of the images, and the method's temperature.

    Args:
        held: Of the weights.
        backbone: On the options' device, in evaluation mode.
        head: Likewise.
        source: The images.
        transform: How they are prepared.
        options: See `PatternOptions`.
        progress: Called with the stage, the images done and their total.

    Raises:
        DataError: No image of the sample can be read.
    """
    held = TeacherScale() if held is None else held
    what, notes = _WHAT[options.kind], []
    center, temp = (held.patch_center, held.patch_temp) if options.kind == "patch" else (held.cls_center, held.cls_temp)
    if center is None or len(center) != num_prototypes(head, options.kind):
        index = sample_index(len(source), options.seed)
        center, num_read = _mean_score(backbone, head, source, transform, index, options, progress)
        notes.append(
            f"The weights hold no centre of the {what} (none is kept with Sinkhorn); the mean score over "
            f"{num_read:,} of these images stands for it. It changes probabilities, not which pattern is whose."
        )
    if temp is None:
        temp = DEFAULT_TEMP
        notes.append(f"The weights do not say their temperature of the {what}; it is taken as {temp}.")
    return Scale(center, temp, tuple(notes))


def sample_index(num: int, seed: int) -> NDArray[np.int64]:
    """At most 1,024 of `num` images, int64 ascending."""
    return np.sort(np.random.default_rng(seed).permutation(num)[:SAMPLE]).astype(np.int64)


def _mean_score(
    backbone: nn.Module,
    head: Head,
    source: Source,
    transform: Transform,
    index: NDArray[np.int64],
    options: PatternOptions,
    progress: StageProgress | None,
) -> tuple[Tensor, int]:
    """Mean score of every prototype, float32 `[K]`, and of how many images.

    It is the layer applied to the mean bottleneck, since it is linear.
    """
    device = torch.device(options.device)
    total = torch.zeros(prototype_weight(head, options.kind).shape[1], dtype=torch.float64)
    count = num_read = 0
    report = None if progress is None else partial(progress, "centre")
    for batch in readable_batches(source, transform, index, options, progress=report):
        found = bottlenecks(backbone, head, options.kind, batch.images.to(device), options.precision)
        total += found.flatten(0, 1).sum(dim=0, dtype=torch.float64).cpu()
        count += found.shape[0] * found.shape[1]
        num_read += len(batch.places)
    with exact_float32(device):
        mean = total / max(1, count)  # 0 where there are no patch tokens, which the pass over all images tells
        return (prototype_weight(head, options.kind).cpu().double() @ mean).float(), num_read
