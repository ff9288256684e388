"""Class probabilities of single images and folders by a fine-tuned classifier.

Shapes: n images, C classes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibot_cli.core.classifier import Classifier
from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.files import FileSource
from ibot_cli.data.joined import JoinedSource
from ibot_cli.data.scan import scan_images
from ibot_cli.data.shards.member import is_member
from ibot_cli.data.shards.names import find_shards
from ibot_cli.data.shards.source import open_shards
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError, WeightsError
from ibot_cli.evaluate.features import Features, Progress, Transform, extract
from ibot_cli.weights.load import LoadedBackbone, load_weights
from ibot_cli.weights.origin import AbsentNetworkError


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One image.

    Attributes:
        path: The file.
        prediction: Name of the most probable class.
        confidence: Its probability.
        probabilities: Probability by class, most probable first; all classes unless fewer were asked for.
    """

    path: str
    prediction: str
    confidence: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a classifier says about images.

    Attributes:
        weights: What classified.
        weights_hash: sha256 of its tensors.
        classes: Names, in the order of the columns.
        images: One per readable image, in the order in which they were given.
        unreadable: Reason by path.
    """

    weights: str
    weights_hash: str
    classes: tuple[str, ...]
    images: tuple[Prediction, ...]
    unreadable: Mapping[str, str]


class _ScoresAsToken(nn.Module):
    """A classifier in the form of a backbone: its scores are the only token, `[B, 1, C]`."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.classifier(images)
        return scores.unsqueeze(1)


def class_scores(
    classifier: nn.Module,
    source: Source,
    transform: Transform,
    *,
    index: NDArray[np.int64] | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    progress: Progress | None = None,
) -> Features:
    """Scores before the softmax in true float32, as `cls` `[n, C]`; the arguments are those of `extract`.

    Raises:
        DataError: No image can be read.
    """
    network = _ScoresAsToken(classifier).train(classifier.training)
    return extract(
        network,
        source,
        transform,
        index=index,
        device=device,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )


def load_classifier(weights: str, *, heads: int | None = None, partial: bool = False) -> LoadedBackbone:
    """Weights with a classifier.

    Args:
        weights: As `ibot_cli.weights.load.load_weights` takes it.
        heads: As there.
        partial: As there.

    Raises:
        WeightsError: They cannot be loaded, or were not fine-tuned.
        RunError: A run's checkpoints cannot be read.
    """
    try:
        loaded = load_weights(weights, heads=heads, partial=partial)
    except AbsentNetworkError as error:  # none of those networks has a classifier
        raise _no_classifier(weights) from error
    classifier_of(loaded)
    return loaded


def classifier_of(loaded: LoadedBackbone) -> tuple[Classifier, tuple[str, ...]]:
    """The classifier and its class names.

    Raises:
        WeightsError: The weights were not fine-tuned.
    """
    if loaded.classifier is None or loaded.classes is None:
        raise _no_classifier(loaded.description)
    return loaded.classifier, loaded.classes


def _no_classifier(description: str) -> WeightsError:
    return WeightsError(
        f"{description} has no classifier.",
        "Fine-tune on labelled images first: ibot finetune WEIGHTS DATA --out RUN; then ibot predict RUN IMAGES.",
    )


def open_images(places: Sequence[str], channels: int, bits: int = 8) -> Source:
    """Image files by name, all those below folders, and those in tar shards, in the order given.

    Raises:
        DataError: A place does not exist, a folder holds no image, or as `open_shards`.
    """
    pixels = PixelFormat(channels=channels, bits=bits)
    sources: list[Source] = []
    for shards, group in groupby(places, key=lambda place: not is_member(place) and find_shards(place) is not None):
        if shards:
            sources += [open_shards(place, pixels=pixels, split="all") for place in group]
        else:
            sources.append(_open_files(list(group), pixels))
    return sources[0] if len(sources) == 1 else JoinedSource(", ".join(places[:3]), sources)


def _open_files(places: Sequence[str], pixels: PixelFormat) -> FileSource:
    names: list[str] = []
    notes: list[str] = []
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            scan = scan_images(path)
            if not scan.names:
                raise DataError(f"{place} holds no image.", "Images are files such as .jpg or .png, at any depth.")
            names += [str(path / name) for name in scan.names]
            notes += scan.notes()
        elif path.exists() or is_member(place):
            names.append(str(path))
        else:
            hint = "IMAGES are files and folders; an embedded data set has no files." if ":" in place else None
            raise DataError(f"There is no image or folder {place}.", hint or "Check the path.")
    return FileSource(name=", ".join(places[:3]), root=Path(), names=names, pixels=pixels, notes=notes)


def predict(
    loaded: LoadedBackbone,
    source: Source,
    *,
    top: int | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    progress: Progress | None = None,
) -> Predictions:
    """Classify images.

    Args:
        loaded: Weights with a classifier.
        source: The images, labelled or not.
        top: Probabilities of so many classes only; all when None.
        device: Where to compute.
        workers: Loader processes.
        progress: Called with the images done and their total.

    Raises:
        WeightsError: The weights have no classifier.
        DataError: No image can be read.
    """
    classifier, classes = classifier_of(loaded)
    transform = eval_transform(*loaded.preparation)
    found = class_scores(classifier, source, transform, device=device, workers=workers, progress=progress)
    probabilities = found.cls.double().softmax(dim=1)
    values, order = probabilities.topk(min(top or len(classes), len(classes)), dim=1)
    images = []
    for place, row, numbers in zip(found.index.tolist(), values.tolist(), order.tolist(), strict=True):
        named = {classes[number]: value for number, value in zip(numbers, row, strict=True)}
        prediction = next(iter(named))
        images.append(
            Prediction(
                path=source.path(place), prediction=prediction, confidence=named[prediction], probabilities=named
            )
        )
    return Predictions(
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        classes=classes,
        images=tuple(images),
        unreadable=found.bad,
    )


def as_csv(predictions: Predictions, top: int | None = None) -> str:
    """The predictions as CSV with a header.

    Columns are `path`, `prediction`, `confidence`, then `probability_NAME` for each class; with `top` instead
    `class_1`, `probability_1`, `class_2` and so on.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "prediction", "confidence", *_columns(predictions.classes, top)])
    for image in predictions.images:
        writer.writerow([image.path, image.prediction, f"{image.confidence:.6f}", *_cells(image, predictions, top)])
    return text.getvalue()


def as_json(predictions: Predictions) -> str:
    """The predictions as one JSON document."""
    content: dict[str, Any] = asdict(predictions)
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _columns(classes: Sequence[str], top: int | None) -> Iterator[str]:
    if top is None:
        yield from (f"probability_{name}" for name in classes)
        return
    for place in range(1, min(top, len(classes)) + 1):
        yield from (f"class_{place}", f"probability_{place}")


def _cells(image: Prediction, predictions: Predictions, top: int | None) -> Iterator[str]:
    if top is None:
        yield from (f"{image.probabilities[name]:.6f}" for name in predictions.classes)
        return
    for name, value in image.probabilities.items():
        yield from (name, f"{value:.6f}")
