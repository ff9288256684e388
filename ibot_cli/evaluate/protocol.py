"""The k-NN evaluation of a backbone on labelled images, and its small sister that runs during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ibot_cli.data.sources import Source
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError
from ibot_cli.evaluate.baselines import Baselines, cached, measure_baselines
from ibot_cli.evaluate.features import Features, Transform, extract
from ibot_cli.evaluate.knn import PREFERRED_K, KnnResult, accuracy, clamp_ks, knn_vote
from ibot_cli.evaluate.labelled import LabelledSplit, open_labelled
from ibot_cli.weights.load import LoadedBackbone

StageProgress = Callable[[str, int, int], None]


def knn_accuracy(
    backbone: nn.Module,
    source: Source,
    train_index: NDArray[np.int64],
    test_index: NDArray[np.int64],
    k: int,
    transform: Transform,
    *,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> float:
    """Top-1 of a k-NN inside one labelled source; for monitoring while training.

    Args:
        backbone: Images to tokens `[B, 1 + N, D]`; left in the mode it was in.
        source: Images with labels.
        train_index: int64, the images that vote.
        test_index: int64, the images to classify.
        k: Neighbours; cut to the number of voting images.
        transform: From an image to `[C, H, W]`.
        temperature: Votes weigh `exp(similarity / temperature)`.
        device: Where to compute; the backbone is moved there.
        batch_size: Images per forward pass.

    Raises:
        DataError: The source has no labels, or no image can be read.
    """
    if source.labels is None:
        raise DataError(f"{source.name} has no labels.", "Put the images of each class into a folder of its own.")
    parts = [
        extract(backbone, source, transform, index=index, device=device, batch_size=batch_size)
        for index in (train_index, test_index)
    ]
    labels = [torch.from_numpy(source.labels[part.index]) for part in parts]
    num_classes = int(source.labels.max()) + 1
    k = min(k, len(parts[0].cls))
    votes = knn_vote(parts[0].cls, labels[0], parts[1].cls, [k], temperature, num_classes, device=device)
    return accuracy(votes[k], labels[1])[0]


def evaluate_knn(
    loaded: LoadedBackbone,
    data: str,
    *,
    ks: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    baselines: bool = True,
    device: torch.device | str = "cpu",
    workers: int = 0,
    seed: int = 0,
    progress: StageProgress | None = None,
) -> KnnResult:
    """The k-NN accuracy of a loaded backbone, beside its baselines.

    Args:
        loaded: The backbone and how its images are prepared.
        data: DATA; `train/` and `val/` inside are used, else a seeded stratified part is held out.
        ks: Neighbours.
        temperature: Votes weigh `exp(similarity / temperature)`.
        baselines: Whether to measure random weights and raw pixels too (cached per data set).
        device: Where to compute.
        workers: Loader processes.
        seed: Of the held-out part.
        progress: Called with the stage, the images done and their total.

    Raises:
        DataError: No images, no labels, a single class, or nothing readable.

    Source:
        Section 5.1 of the authors' evaluation (arXiv 2111.07832, appendix); any number of classes.
    """
    split = open_labelled(data, channels=loaded.channels, seed=seed)
    transform = transform_of(loaded)
    found = []
    for stage, part in (("training images", split.train), ("test images", split.test)):
        report = None if progress is None else partial(progress, stage)
        found.append(extract(loaded.backbone, part.source, transform, device=device, workers=workers, progress=report))
    train, test = found
    kept, cut = clamp_ks(ks, len(train.cls))
    k = PREFERRED_K if PREFERRED_K in kept else kept[-1]
    scores = _scores(train, test, split, kept, temperature, device)
    baseline = None
    if baselines:
        setting = {"k": k, "temperature": temperature, "device": device, "workers": workers}
        baseline = _baselines(loaded, transform, split, setting, progress)
    bad = _bad_note(train.bad | test.bad)
    return KnnResult(
        top1=scores[k][0],
        top5=scores[k][1],
        k=k,
        per_k={k: score[0] for k, score in scores.items()},
        num_train=len(train.cls),
        num_test=len(test.cls),
        num_classes=len(split.classes),
        **_baseline_fields(baseline),
        split=split.sentence,
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        data=data,
        fingerprint=split.fingerprint,
        temperature=temperature,
        notes=(*loaded.notes, *split.notes, *([cut] if cut else []), *bad, *_subset_note(baseline, split)),
    )


def transform_of(loaded: LoadedBackbone) -> Transform:
    """The evaluation transform of a loaded backbone."""
    return eval_transform(loaded.image_size, loaded.crop_ratio, loaded.channels, loaded.mean, loaded.std)


def _baselines(
    loaded: LoadedBackbone,
    transform: Transform,
    split: LabelledSplit,
    setting: dict[str, Any],
    progress: StageProgress | None,
) -> Baselines:
    """Measured once per architecture, image preparation, data set, k and temperature."""
    prepared = (loaded.image_size, loaded.crop_ratio, loaded.channels, loaded.mean, loaded.std)
    key = f"{loaded.architecture} {prepared} {split.fingerprint} {setting['k']} {setting['temperature']}"
    return cached(
        key,
        lambda: measure_baselines(
            loaded.rebuild,
            transform,
            split.train,
            split.test,
            channels=loaded.channels,
            num_classes=len(split.classes),
            progress=progress,
            **setting,
        ),
    )


def _scores(
    train: Features,
    test: Features,
    split: LabelledSplit,
    ks: Sequence[int],
    temperature: float,
    device: torch.device | str,
) -> dict[int, tuple[float, float]]:
    """k -> top-1 and top-5."""
    labels = [torch.from_numpy(part.labels[found.index]) for part, found in ((split.train, train), (split.test, test))]
    votes = knn_vote(train.cls, labels[0], test.cls, ks, temperature, len(split.classes), device=device)
    return {k: accuracy(votes[k], labels[1]) for k in ks}


def _baseline_fields(baseline: Baselines | None) -> dict[str, Any]:
    """The fields of `KnnResult` that belong to the baselines."""
    return {
        "baseline_random": None if baseline is None else float(np.mean(baseline.random)),
        "baseline_random_per_seed": None if baseline is None else baseline.random,
        "baseline_pixels": None if baseline is None else baseline.pixels,
        "baseline_num_train": None if baseline is None else baseline.num_train,
        "baseline_num_test": None if baseline is None else baseline.num_test,
    }


def _bad_note(bad: Mapping[str, str]) -> list[str]:
    if not bad:
        return []
    first = next(f"{path}: {reason}" for path, reason in bad.items())
    if len(bad) == 1:
        return [f"1 image could not be read and was left out ({first})."]
    return [f"{len(bad)} images could not be read and were left out ({first}, ...)."]


def _subset_note(baseline: Baselines | None, split: LabelledSplit) -> list[str]:
    if baseline is None:
        return []
    sizes = (baseline.num_train, baseline.num_test)
    if sizes == (len(split.train.source), len(split.test.source)):
        return []
    return [f"The baselines use {sizes[0]:,} training and {sizes[1]:,} test images, so they are a little low."]
