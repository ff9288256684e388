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
from ibot_cli.evaluate.batches import Transform, read_batches
from ibot_cli.evaluate.feature_cache.table import nothing_readable
from ibot_cli.evaluate.precision import exact_float32
from ibot_cli.visualize.patterns.assignment import bottlenecks, num_prototypes, prototype_weight
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
        center = _mean_score(backbone, head, source, transform, index, options, progress)
        notes.append(
            f"The weights hold no centre of the {what} (none is kept with Sinkhorn); the mean score over "
            f"{len(index):,} of these images stands for it. It changes probabilities, not which pattern is whose."
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
) -> Tensor:
    """Mean score of every prototype, float32 `[K]`: the layer applied to the mean bottleneck, since it is linear."""
    device = torch.device(options.device)
    total = torch.zeros(prototype_weight(head, options.kind).shape[1], dtype=torch.float64)
    count, bad = 0, dict[str, str]()
    report = None if progress is None else partial(progress, "centre")
    cuts = [range(len(index))[start : start + options.batch_size] for start in range(0, len(index), options.batch_size)]
    read = read_batches(source, transform, index, cuts, workers=options.workers, pinned=device.type == "cuda")
    for cut, batch in zip(cuts, read, strict=True):
        bad |= dict(batch.bad.values())
        if batch.places:
            found = bottlenecks(backbone, head, options.kind, batch.images.to(device), options.precision)
            total += found.flatten(0, 1).sum(dim=0, dtype=torch.float64).cpu()
            count += found.shape[0] * found.shape[1]
        if report is not None:
            report(cut.stop, len(index))
    if count == 0:
        raise nothing_readable(source.name, bad)
    with exact_float32(device):
        return (prototype_weight(head, options.kind).cpu().double() @ (total / count)).float()
