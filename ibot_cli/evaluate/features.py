"""Features of images, in the order of their source: class tokens while training, every pooling for evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibot_cli.data.sources import Source
from ibot_cli.data.transform import eval_transform
from ibot_cli.evaluate.batches import Transform, default_workers, read_batches
from ibot_cli.evaluate.feature_store import Block, Layout, MemoryStore, Store
from ibot_cli.evaluate.feature_table import FeatureTable, nothing_readable
from ibot_cli.evaluate.pooling import compute_parts, parts_of, pooled_parts
from ibot_cli.evaluate.precision import DTYPES, arithmetic, check_precision, exact_float32
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

    No generator is touched. The network is moved to `device`; its mode is restored.

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
    chosen = _chosen(source, index)
    device = torch.device(device)
    store = MemoryStore(Layout.of(len(chosen), batch_size), DTYPES[precision])
    transform = eval_transform(loaded.image_size, loaded.crop_ratio, loaded.channels, loaded.mean, loaded.std)
    work = store.missing(parts)
    with _evaluating(loaded.backbone, device), arithmetic(device, precision):
        for done in _compute(loaded.backbone, source, transform, chosen, store, work, device, batch_size, workers):
            if progress is not None:
                progress(done, len(chosen))
    split = partial(pooled_parts, backbone=loaded.backbone)
    return FeatureTable(store.columns(parts), chosen, store.bad(), split, source.name)


def _compute(
    backbone: nn.Module,
    source: Source,
    transform: Transform,
    chosen: NDArray[np.int64],
    store: Store,
    work: Mapping[int, Sequence[str]],
    device: torch.device,
    batch_size: int,
    workers: int,
) -> Iterator[int]:
    """Fill the blocks of `work` with the parts they lack; yields the images done after each batch."""
    batches = {block: _cut(store.layout.rows(block), batch_size) for block in work}
    flat = [batch for block in batches.values() for batch in block]
    read = read_batches(source, transform, chosen, flat, workers=workers, pinned=device.type == "cuda")
    done = 0
    for block, parts in work.items():
        rows: list[int] = []
        bad: dict[int, tuple[str, str]] = {}
        found: dict[str, list[Tensor]] = {part: [] for part in parts}
        for number, asked in enumerate(batches[block], start=1):
            batch = next(read)
            rows += batch.places
            bad |= batch.bad
            if batch.places:
                values = compute_parts(backbone, batch.images.to(device, non_blocking=True), parts)
                for part in parts:
                    found[part].append(values[part].to(DTYPES["fp32"]))
            if number == len(batches[block]):  # the device is waited for once per block
                columns = {part: torch.cat(values).cpu() for part, values in found.items() if values}
                store.write(Block(block, rows, columns, bad))
            done += len(asked)
            yield done


@contextmanager
def _evaluating(backbone: nn.Module, device: torch.device) -> Iterator[None]:
    """The network on `device` in evaluation mode, then in its old mode."""
    was_training = backbone.training
    backbone.to(device).eval()
    try:
        yield
    finally:
        backbone.train(was_training)


def _chosen(source: Source, index: NDArray[np.int64] | None) -> NDArray[np.int64]:
    return np.arange(len(source), dtype=np.int64) if index is None else np.asarray(index, dtype=np.int64)


def _cut(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
