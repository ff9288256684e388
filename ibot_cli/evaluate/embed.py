"""Features of images for use elsewhere, with their paths and labels. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ibot_cli.data.files import Split
from ibot_cli.data.sources import open_source
from ibot_cli.evaluate.embedding_files import Embeddings, write_embeddings
from ibot_cli.evaluate.features import Progress, feature_pass
from ibot_cli.weights.load import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class EmbedResult:
    """What was written.

    Attributes:
        files: The files, the features first.
        shape: Images and width of the features.
        pooling: What the features are.
        normalized: Whether each row has length 1.
        precision: Arithmetic of the forward passes.
        classes: Number of classes, or None without labels.
        weights: What made the features.
        weights_hash: sha256 of its tensors.
        data: DATA as given.
        split: Which part of it.
        fingerprint: sha256 that identifies the images.
        unreadable: Reason by path; these images have no row.
        notes: What the user should know.
    """

    files: tuple[Path, ...]
    shape: tuple[int, int]
    pooling: str
    normalized: bool
    precision: str
    classes: int | None
    weights: str
    weights_hash: str
    data: str
    split: str
    fingerprint: str
    unreadable: Mapping[str, str]
    notes: tuple[str, ...]


def embed(
    loaded: LoadedBackbone,
    data: str,
    out: Path,
    *,
    pooling: str = "cls",
    split: Split = "all",
    normalize: bool = False,
    precision: str = "fp32",
    device: torch.device | str = "cpu",
    workers: int = 0,
    cache: bool = True,
    progress: Progress | None = None,
) -> EmbedResult:
    """Compute features and write them.

    Args:
        loaded: The weights.
        data: As for `open_source`; labels are not needed.
        out: The file; `ibot_cli.evaluate.embedding_files.check_can_write` says whether it can be written.
        pooling: See `ibot_cli.evaluate.pooling`.
        split: `train`, `test` or all images.
        normalize: Divide each row by its length.
        precision: `fp32` or `bf16`.
        device: Where to compute.
        workers: Loader processes.
        cache: Whether features computed before may be used, and these kept.
        progress: Called with the images done and their total.

    Raises:
        DataError: The images cannot be opened, or none can be read.
        UsageError: `pooling` or `precision` is not understood.
    """
    source = open_source(data, channels=loaded.channels, bits=loaded.bits, split=split)
    table = feature_pass(
        loaded,
        source,
        poolings=(pooling,),
        precision=precision,
        device=device,
        workers=workers,
        cache=cache,
        progress=progress,
    )
    features = table.pooled(pooling)
    if normalize:
        features = nn.functional.normalize(features, dim=1)
    about = {
        "weights": loaded.description,
        "weights_hash": loaded.weights_hash,
        "data": data,
        "split": split,
        "fingerprint": source.fingerprint,
        "pooling": pooling,
        "normalized": normalize,
        "precision": precision,
        "shape": list(features.shape),
    }
    rows = table.index
    found = Embeddings(
        features=features,
        paths=[source.path(place) for place in rows.tolist()],
        labels=None if source.labels is None else source.labels[rows],
        classes=source.classes,
        about=about,
    )
    return EmbedResult(
        files=tuple(write_embeddings(out, found)),
        shape=(features.shape[0], features.shape[1]),
        pooling=pooling,
        normalized=normalize,
        precision=precision,
        classes=None if source.labels is None or source.classes is None else len(source.classes),
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        data=data,
        split=split,
        fingerprint=source.fingerprint,
        unreadable=dict(table.bad),
        notes=(*loaded.notes, *source.notes, *table.notes),
    )
