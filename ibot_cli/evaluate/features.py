"""Features of images, in the order of their source: class tokens while training, every pooling for evaluations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibot_cli import distributed
from ibot_cli.cache_folder import cache_limit
from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import eval_transform
from ibot_cli.evaluate.batches import Batch, Transform, default_workers, read_batches
from ibot_cli.evaluate.feature_cache.cache import FeatureCache
from ibot_cli.evaluate.feature_cache.key import feature_key
from ibot_cli.evaluate.feature_cache.shared_store import SharedStore
from ibot_cli.evaluate.feature_cache.store import Bad, Block, Layout
from ibot_cli.evaluate.feature_cache.table import FeatureTable, nothing_readable
from ibot_cli.evaluate.pooling import compute_parts, parts_of, pooled_parts
from ibot_cli.evaluate.precision import DTYPES, arithmetic, check_precision, exact_float32
from ibot_cli.evaluate.processes import connect
from ibot_cli.weights.load import LoadedBackbone

__all__ = ["FeatureTable", "Features", "Transform", "default_workers", "extract", "feature_pass"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Features:
    """Features of the readable images.

    Attributes:
        cls: float32 `[n, D]` on the CPU, not normalised.
        index: int64 `[n]`, the image's place in the source, ascending as asked.
        bad: Unreadable images: path -> reason.
    """

    cls: Tensor
    index: NDArray[np.int64]
    bad: dict[str, str]


def extract(
    backbone: nn.Module,
    source: Source,
    transform: Transform,
    *,
    index: NDArray[np.int64] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    progress: Progress | None = None,
) -> Features:
    """Class-token features in float32, in memory; nothing random happens, and no generator is touched.

    Args:
        backbone: Images `[B, C, H, W]` to tokens `[B, 1 + N, D]`, class token first. It is moved to `device`; its mode
            (training or evaluation) is restored.
        source: The images.
        transform: From an image to `[C, H, W]`.
        index: Which images, and in which order; all when None.
        device: Where to compute.
        batch_size: Images per forward pass.
        workers: Loader processes; 0 loads in this one.
        progress: Called with the images done and their total.

    Raises:
        DataError: No image can be read.
    """
    chosen, device = _chosen(source, index), torch.device(device)
    batches = _cut(range(len(chosen)), batch_size)
    found: Tensor | None = None
    places: list[int] = []
    bad: dict[str, str] = {}
    with _evaluating(backbone, device), exact_float32(device):
        read = read_batches(source, transform, chosen, batches, workers=workers, pinned=device.type == "cuda")
        for done, batch in enumerate(read, start=1):
            bad |= dict(batch.bad.values())
            if batch.places:
                cls = backbone(batch.images.to(device))[:, 0].float().cpu()
                found = torch.empty(len(chosen), cls.shape[1]) if found is None else found
                found[len(places) : len(places) + len(batch.places)] = cls
                places += batch.places
            if progress is not None:
                progress(min(done * batch_size, len(chosen)), len(chosen))
    if found is None:
        raise nothing_readable(source.name, bad)
    return Features(found[: len(places)].clone(), chosen[places], bad)


def feature_pass(
    loaded: LoadedBackbone,
    source: Source,
    *,
    poolings: Sequence[str] = ("cls",),
    precision: str = "fp32",
    index: NDArray[np.int64] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    cache: bool = True,
    progress: Progress | None = None,
) -> FeatureTable:
    """Frozen features of images for any number of poolings, from one forward pass per image.

    No generator is touched. The network is moved to `device` unless the cache has everything; its mode is restored.
    With several processes (`torchrun`) all must call it: each computes a share of the images, and all get the whole.

    Args:
        loaded: The network and how its images are prepared.
        source: The images.
        poolings: What is to be pooled; see `ibot_cli.evaluate.pooling.parse_pooling`.
        precision: `fp32` (exact) or `bf16` (autocast; features are kept in bf16).
        index: Which images, and in which order; all when None.
        device: Where to compute.
        batch_size: Images per forward pass.
        workers: Loader processes; 0 loads in this one.
        cache: Whether to use and to fill the cache on disk.
        progress: Called with the images done and their total.

    Raises:
        DataError: No image can be read.
        UsageError: A pooling or the precision is not known.
        WeightsError: The network cannot give these poolings.

    Source:
        iBOT (arXiv 2111.07832), evaluation code; in fp32, `cls` is bit for bit what `extract` gives.
    """
    check_precision(precision)
    parts = parts_of(poolings, loaded.backbone)
    chosen, device, dtype = _chosen(source, index), torch.device(device), DTYPES[precision]
    transform = eval_transform(*loaded.preparation)
    layout = Layout.of(len(chosen), batch_size)
    limit = cache_limit() if cache else 0
    connect()
    with contextlib.ExitStack() as stack:
        entry = None
        if limit > 0 and distributed.rank() == 0:
            key = feature_key(loaded, source, transform, chosen, precision=precision, device=device)
            entry = FeatureCache(key, layout, dtype, lambda row: _readable(source, int(chosen[row])))
        store = SharedStore(entry, layout, dtype, parts)
        stack.callback(store.close)
        if store.work:
            stack.enter_context(_evaluating(loaded.backbone, device))
            stack.enter_context(arithmetic(device, precision))
        read = partial(read_batches, source, transform, chosen, workers=workers, pinned=device.type == "cuda")
        report = _reporter(store, len(chosen), progress)
        for done in _compute(loaded.backbone, store, read, device, batch_size):
            report(done)
        found = store.finish()
        columns, bad = found.columns(parts), found.bad(parts)
        notes = store.settle(limit)
    if progress is not None:
        progress(len(chosen), len(chosen))
    split = partial(pooled_parts, backbone=loaded.backbone)
    return FeatureTable(columns, chosen, bad, split, source.name, notes)


def _compute(
    backbone: nn.Module,
    store: SharedStore,
    read: Callable[[list[range]], Iterator[Batch]],
    device: torch.device,
    batch_size: int,
) -> Iterator[int]:
    """Fill the blocks of this process with the parts they lack; yields the images done after each batch."""
    batches = {block: _cut(store.layout.rows(block), batch_size) for block in store.work}
    arriving = read([batch for block in batches.values() for batch in block])
    done = 0
    for block, parts in store.work.items():
        pending = _Pending(store.layout.rows(block), parts)
        for number, asked in enumerate(batches[block], start=1):
            batch = next(arriving)
            values = {}
            if batch.places:
                values = compute_parts(backbone, batch.images.to(device, non_blocking=True), parts)
            pending.add(batch, values)
            if number == len(batches[block]):
                store.write(pending.block(block))
            done += len(asked)
            yield done


class _Pending:
    """The batches of a block, on the device until the block is complete, so that it is waited for once per block."""

    def __init__(self, rows: range, parts: Sequence[str]) -> None:
        self._rows, self._values = rows, {part: list[Tensor]() for part in parts}
        self._places: list[int] = []
        self._bad: Bad = {}

    def add(self, batch: Batch, values: Mapping[str, Tensor]) -> None:
        self._places += batch.places
        self._bad |= batch.bad
        for part, value in values.items():
            self._values[part].append(value)

    def block(self, number: int) -> Block:
        places = torch.tensor(self._places) - self._rows.start
        parts: dict[str, Tensor | None] = dict.fromkeys(self._values)
        for part, values in self._values.items():
            if values:
                joined = torch.cat(values).cpu()
                parts[part] = joined.new_zeros(len(self._rows), joined.shape[1]).index_copy_(0, places, joined)
        return Block(number, parts, self._bad)


def _reporter(store: SharedStore, total: int, progress: Progress | None) -> Callable[[int], None]:
    """Calls `progress` with all images done, as far as this process can know; the end is called by the pass itself."""
    left = sum(len(store.layout.rows(block)) for block in store.todo)

    def report(done: int) -> None:
        everywhere = total - left + min(done * distributed.world(), left)
        if progress is not None and everywhere < total:
            progress(everywhere, total)

    return report


@contextlib.contextmanager
def _evaluating(backbone: nn.Module, device: torch.device) -> Iterator[None]:
    """The network on `device` in evaluation mode, then in its old mode."""
    was_training = backbone.training
    backbone.to(device).eval()
    try:
        yield
    finally:
        backbone.train(was_training)


def _readable(source: Source, index: int) -> bool:
    try:
        source.levels(index)
    except UnreadableImage:
        return False
    return True


def _chosen(source: Source, index: NDArray[np.int64] | None) -> NDArray[np.int64]:
    return np.arange(len(source), dtype=np.int64) if index is None else np.asarray(index, dtype=np.int64)


def _cut(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
