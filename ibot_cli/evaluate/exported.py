"""What an export in fewer bits costs: the network and the exported file on the same labelled images.

Shapes: n images, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibot_cli.data.sources import Source, open_source
from ibot_cli.data.splits import open_splits
from ibot_cli.data.transform import eval_transform
from ibot_cli.evaluate.faults import left_out
from ibot_cli.evaluate.features import extract
from ibot_cli.evaluate.knn.vote import PREFERRED_K, PREFERRED_TEMPERATURE, knn_vote
from ibot_cli.evaluate.labelled import Labelled, LabelledSplit, label_parts
from ibot_cli.weights.export.agreement import Agreement, cosines
from ibot_cli.weights.export.subject import Subject

Network = Callable[[Tensor], Mapping[str, Tensor]]
StageProgress = Callable[[str, int, int], None]


def agreement_on(
    subject: Subject, exported: Network, data: str, *, workers: int = 0, progress: StageProgress | None = None
) -> Agreement:
    """Compare the network and what was exported from it on a data set.

    Backbones are judged by k-NN with the training part, as `ibot knn-eval` does it (k = 20, temperature 0.07);
    classifiers by their own answers on the test part. Without labels only their agreement is told.

    Args:
        subject: The network before.
        exported: Normalised images `[B, C, H, W]` to named outputs, `cls` and (of a classifier) `logits` among them.
        data: DATA.
        workers: Loader processes.
        progress: Called with the stage, the images done and their total.

    Raises:
        DataError: No image can be read, or the data have a single class.
    """
    train, test, sentence = open_splits(data, channels=subject.channels, bits=subject.bits)
    read = partial(_read, subject, exported, workers=workers, progress=progress)
    if train.labels is None or test.labels is None:
        return _unlabelled(read(open_source(data, channels=subject.channels, bits=subject.bits), "images"), data)
    if subject.classes is not None:
        return _of_classifier(read(test, "test images"), subject.classes, test, data)
    split = label_parts(train, test, data, sentence)
    return _of_neighbours(read(train, "training images"), read(test, "test images"), split, data)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """Outputs of both networks, before and after, for the readable images."""

    features: tuple[Tensor, Tensor]
    classes: tuple[Tensor, Tensor] | None
    index: NDArray[np.int64]
    bad: Mapping[str, str]

    def fields(self, data: str) -> dict[str, Any]:
        """The fields of `Agreement` that need no labels."""
        mean, least = cosines(*self.features)
        return {
            "data": data,
            "num_images": len(self.index),
            "cosine_mean": mean,
            "cosine_least": least,
            "notes": tuple(left_out(dict(self.bad))) if self.bad else (),
        }


class _Both(nn.Module):
    """Outputs of both networks side by side, in the form of a backbone: the only token, `[B, 1, ...]`."""

    def __init__(self, before: Network, after: Network, names: Sequence[str]) -> None:
        super().__init__()
        self.networks, self.names = (before, after), tuple(names)

    def forward(self, images: Tensor) -> Tensor:
        outputs = [network(images) for network in self.networks]
        return torch.cat([output[name] for name in self.names for output in outputs], dim=1).unsqueeze(1)


def _read(
    subject: Subject,
    exported: Network,
    source: Source,
    stage: str,
    *,
    workers: int,
    progress: StageProgress | None,
) -> _Read:
    names = ["cls"] if subject.classes is None else ["cls", "logits"]
    transform = eval_transform(subject.image_size, subject.crop_ratio, subject.channels, subject.mean, subject.std)
    report = None if progress is None else partial(progress, stage)
    network = _Both(subject.network, exported, names)
    found = extract(network, source, transform, workers=workers, progress=report)
    num_classes = 0 if subject.classes is None else len(subject.classes)
    dim = found.cls.shape[1] // 2 - num_classes
    first, second, *scores = found.cls.split([dim, dim] + [num_classes] * 2 * bool(num_classes), dim=1)
    classes = (scores[0].argmax(dim=1), scores[1].argmax(dim=1)) if scores else None
    return _Read(features=(first, second), classes=classes, index=found.index, bad=found.bad)


def _unlabelled(found: _Read, data: str) -> Agreement:
    if found.classes is None:
        return Agreement(**found.fields(data))
    return Agreement(**found.fields(data), method="classifier", same=_share(found.classes[0] == found.classes[1]))


def _of_classifier(found: _Read, classes: Sequence[str], test: Source, data: str) -> Agreement:
    """Labels count where the classifier knows a class of that name."""
    assert found.classes is not None and test.labels is not None  # checked by the caller
    number = {name: place for place, name in enumerate(classes)}
    names = [test.classes[label] if test.classes is not None else str(label) for label in test.labels[found.index]]
    labels = torch.tensor([number.get(name, -1) for name in names])
    known = labels >= 0
    fields = found.fields(data) | {"method": "classifier", "same": _share(found.classes[0] == found.classes[1])}
    if not known.any():
        fields["notes"] += (f"{data} has none of the classifier's classes, so there is no accuracy to compare.",)
        return Agreement(**fields)
    if not known.all():
        fields["notes"] += (f"Accuracy is over the {int(known.sum()):,} images of classes that the classifier knows.",)
    before, after = (_share((part == labels)[known]) for part in found.classes)
    return Agreement(**fields, before=before, after=after)


def _of_neighbours(train: _Read, test: _Read, split: LabelledSplit, data: str) -> Agreement:
    labels, truth = _labels(split.train, train), _labels(split.test, test)
    k = min(PREFERRED_K, len(labels))
    answers = [
        knn_vote(bank, labels, queries, [k], PREFERRED_TEMPERATURE, len(split.classes))[k][:, 0]
        for bank, queries in zip(train.features, test.features, strict=True)
    ]
    before, after = (_share(answer == truth) for answer in answers)
    return Agreement(
        **test.fields(data),
        method="k-NN",
        num_train=len(labels),
        k=k,
        before=before,
        after=after,
        same=_share(answers[0] == answers[1]),
    )


def _labels(part: Labelled, found: _Read) -> Tensor:
    return torch.from_numpy(part.labels[found.index])


def _share(hits: Tensor) -> float:
    return float(hits.double().mean())
