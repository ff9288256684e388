"""The k-NN evaluation of a backbone on labelled images, and its small sister that runs during training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
from ibot_cli.evaluate.confidence import wilson
from ibot_cli.evaluate.features import Transform, extract
from ibot_cli.evaluate.knn.ballot import Ballot, Outcome, hold, plan_ballot
from ibot_cli.evaluate.knn.confusion import class_accuracies, mean_accuracy, most_confused
from ibot_cli.evaluate.knn.curve import Stop
from ibot_cli.evaluate.knn.exclusion import exclusion_notes, find_duplicates, without
from ibot_cli.evaluate.knn.result import CurvePoint, KnnResult
from ibot_cli.evaluate.knn.vote import PREFERRED_TEMPERATURE, accuracy, knn_vote
from ibot_cli.evaluate.labelled import LabelledSplit, open_labelled
from ibot_cli.evaluate.labelled_features import LabelledFeatures, StageProgress, read_features
from ibot_cli.weights.load import LoadedBackbone


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


@dataclass(frozen=True)
class KnnEvaluation:
    """A k-NN evaluation.

    Attributes:
        result: What is reported.
        correct: bool `[m]`, whether each readable test image is right, in the order of the test source.
    """

    result: KnnResult
    correct: NDArray[np.bool_]


def evaluate_knn(
    loaded: LoadedBackbone,
    data: str,
    *,
    ks: Sequence[int] = (10, 20, 100, 200),
    temperatures: Sequence[float] = (PREFERRED_TEMPERATURE,),
    baselines: bool = True,
    exclude_duplicates: bool = False,
    curve: Iterable[Stop] = (),
    precision: str = "fp32",
    cache: bool = True,
    device: torch.device | str = "cpu",
    workers: int = 0,
    seed: int = 0,
    progress: StageProgress | None = None,
) -> KnnEvaluation:
    """The k-NN accuracy of a loaded backbone, beside its baselines.

    Args:
        loaded: The backbone and how its images are prepared.
        data: DATA; `train/` and `val/` inside are used, else a seeded stratified part is held out.
        ks: Numbers of neighbours.
        temperatures: Votes weigh `exp(similarity / temperature)`.
        baselines: Whether to measure random weights and raw pixels too (cached per data set).
        exclude_duplicates: Whether test images that are in the training part too are left out, for this backbone, the
            curve and the baselines alike; the features of `loaded` decide.
        curve: Other moments of the same training, with the same preparation of images.
        precision: Arithmetic of the feature pass, `fp32` or `bf16`; the baselines are always fp32.
        cache: Whether features may be kept on the disk and taken from there.
        device: Where to compute.
        workers: Loader processes.
        seed: Of the held-out part.
        progress: Called with the stage, the images done and their total.

    Raises:
        DataError: No images, no labels, a single class, or nothing readable.
        UsageError: The precision is none of the two.
        WeightsError: The features are not finite.

    Source:
        Section 5.1 of the authors' evaluation (arXiv 2111.07832, appendix); any number of classes.
    """
    split = open_labelled(data, channels=loaded.channels, bits=loaded.bits, seed=seed)
    read = partial(read_features, precision=precision, cache=cache, device=device, workers=workers, progress=progress)
    found = read(loaded, split)
    notes = [*loaded.notes, *split.notes, *found.notes(split)]
    excluded, gone = find_duplicates(found, split, device=device) if exclude_duplicates else (None, None)
    judged, found = without(split, gone), found.without(gone)
    notes.extend(exclusion_notes(excluded, len(found.test.labels)))
    ballot = plan_ballot(ks, temperatures, len(found.train.labels), len(split.classes))
    outcome = hold(ballot, found, device=device)

    def features_at(stop: Stop) -> LabelledFeatures:
        if stop.loaded.weights_hash == loaded.weights_hash:
            return found
        features = read(stop.loaded, split, prefix=f"step {stop.step:,}: ")
        notes.extend(note for note in features.notes(split) if note not in notes)
        return features.without(gone)

    points = tuple(_point(stop, ballot, features_at(stop), device) for stop in curve)
    setting = {"k": ballot.k, "temperature": ballot.temperature, "device": device, "workers": workers}
    baseline = _baselines(loaded, judged, setting, progress) if baselines else None
    notes.extend([*ballot.notes, *_subset_note(baseline, judged)])
    result = KnnResult(
        **_score_fields(ballot, outcome, found, split.classes),
        **_baseline_fields(baseline),
        curve=points,
        excluded=excluded,
        split=split.sentence,
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        data=data,
        fingerprint=judged.fingerprint,
        precision=precision,
        notes=tuple(notes),
    )
    return KnnEvaluation(result, outcome.correct)


def transform_of(loaded: LoadedBackbone) -> Transform:
    """The evaluation transform of a loaded backbone."""
    return eval_transform(*loaded.preparation)


def _baselines(
    loaded: LoadedBackbone,
    split: LabelledSplit,
    setting: dict[str, Any],
    progress: StageProgress | None,
) -> Baselines:
    """Measured once per architecture, image preparation, data set, k and temperature."""
    key = f"{loaded.architecture} {loaded.preparation_key} {split.fingerprint} {setting['k']} {setting['temperature']}"
    return cached(
        key,
        lambda: measure_baselines(
            loaded.rebuild,
            transform_of(loaded),
            split.train,
            split.test,
            channels=loaded.channels,
            num_classes=len(split.classes),
            progress=progress,
            **setting,
        ),
    )


def _point(stop: Stop, ballot: Ballot, features: LabelledFeatures, device: torch.device | str) -> CurvePoint:
    """The accuracy at one moment, at the temperature that is reported first."""
    outcome = hold(replace(ballot, temperatures=(ballot.temperature,)), features, device=device)
    return CurvePoint(
        step=stop.step,
        epoch=stop.epoch,
        top1=outcome.at(ballot.k, ballot.temperature).top1,
        per_k=outcome.per_k(ballot.temperature),
        weights_hash=stop.loaded.weights_hash,
    )


def _score_fields(ballot: Ballot, outcome: Outcome, found: LabelledFeatures, classes: Sequence[str]) -> dict[str, Any]:
    """The fields of `KnnResult` that the votes decide."""
    headline = outcome.at(ballot.k, ballot.temperature)
    per_class = class_accuracies(outcome.predicted, outcome.labels, found.train.labels.numpy(), classes)
    return {
        "top1": headline.top1,
        "top1_interval": wilson(int(outcome.correct.sum()), len(outcome.correct)),
        "top5": headline.top5,
        "mean_per_class": mean_accuracy(per_class),
        "k": ballot.k,
        "temperature": ballot.temperature,
        "per_k": outcome.per_k(ballot.temperature),
        "sweep": outcome.cells,
        "best": outcome.best(),
        "per_class": per_class,
        "confused": most_confused(outcome.predicted, outcome.labels, classes),
        "num_train": len(found.train.labels),
        "num_test": len(found.test.labels),
        "num_classes": len(classes),
    }


def _baseline_fields(baseline: Baselines | None) -> dict[str, Any]:
    """The fields of `KnnResult` that belong to the baselines."""
    return {
        "baseline_random": None if baseline is None else float(np.mean(baseline.random)),
        "baseline_random_per_seed": None if baseline is None else baseline.random,
        "baseline_pixels": None if baseline is None else baseline.pixels,
        "baseline_num_train": None if baseline is None else baseline.num_train,
        "baseline_num_test": None if baseline is None else baseline.num_test,
    }


def _subset_note(baseline: Baselines | None, split: LabelledSplit) -> list[str]:
    if baseline is None:
        return []
    sizes = (baseline.num_train, baseline.num_test)
    if sizes == (len(split.train.source), len(split.test.source)):
        return []
    return [f"The baselines use {sizes[0]:,} training and {sizes[1]:,} test images, so they are a little low."]
