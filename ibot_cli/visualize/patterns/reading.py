"""Images in batches, for every pass that patterns need."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ibot_cli.data.sources import Source
from ibot_cli.evaluate.batches import Batch, Transform, read_batches
from ibot_cli.evaluate.feature_cache.table import nothing_readable
from ibot_cli.visualize.patterns.result import PatternOptions

Progress = Callable[[int, int], None]


def readable_batches(
    source: Source,
    transform: Transform,
    index: NDArray[np.int64],
    options: PatternOptions,
    *,
    bad: dict[str, str] | None = None,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """Batches that hold at least one image, in order; no generator is touched.

    Args:
        source: The images.
        transform: How they are prepared.
        index: Which images, int64; `Batch.places` are places in it.
        options: Of these the device, the workers and the batch size.
        bad: Takes up the path and the reason of each image that cannot be read.
        progress: Called once a batch is done with, with the images so far and their total.

    Raises:
        DataError: No image can be read.
    """
    bad = {} if bad is None else bad
    size, any_read = options.batch_size, False
    cuts = [range(len(index))[start : start + size] for start in range(0, len(index), size)]
    pinned = torch.device(options.device).type == "cuda"
    read = read_batches(source, transform, index, cuts, workers=options.workers, pinned=pinned)
    for cut, batch in zip(cuts, read, strict=True):
        bad |= dict(value for _, value in sorted(batch.bad.items()))
        if batch.places:
            any_read = True
            yield batch
        if progress is not None:
            progress(cut.stop, len(index))
    if not any_read:
        raise nothing_readable(source.name, bad)
