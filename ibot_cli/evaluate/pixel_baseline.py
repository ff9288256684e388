"""What the labels alone are worth: nearest neighbours of raw pixels, with the same labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ibot_cli.data.transform import eval_transform
from ibot_cli.evaluate.baselines import MAX_TEST, MAX_TRAIN, PIXEL_SIDE, Pixels, baseline_index
from ibot_cli.evaluate.features import extract
from ibot_cli.evaluate.knn.vote import accuracy, vote
from ibot_cli.evaluate.labelled import Labelled
from ibot_cli.evaluate.retrieval.nearest import nearest_rows

KS = (1, 3, 5, 10, 20)
TEMPERATURE = 0.07


@dataclass(frozen=True, kw_only=True)
class PixelBaseline:
    """A k-NN of raw pixels.

    Attributes:
        top1: Share of test images whose class is right.
        k: Neighbours; of 1, 3, 5, 10 and 20 the one that is best when each training image is left out in turn.
        num_train: Training images, at most 10,000.
        num_test: Test images, at most 2,000.
    """

    top1: float
    k: int
    num_train: int
    num_test: int

    @property
    def label(self) -> str:
        """What it is, for a table."""
        return f"raw pixels {PIXEL_SIDE} x {PIXEL_SIDE}, k-NN, k = {self.k}"


def pixel_baseline(
    train: Labelled, test: Labelled, *, channels: int, num_classes: int, device: torch.device | str = "cpu"
) -> PixelBaseline:
    """Classify by cosine similarity of the pixels; votes weigh `exp(cosine / 0.07)`.

    The test images have no part in the choice of k.

    Args:
        train: Images that vote.
        test: Images to classify.
        channels: 1 for grey pixels, 3 for RGB.
        num_classes: C.
        device: Where to compute.

    Raises:
        DataError: No image of a part can be read.
    """
    transform = eval_transform(PIXEL_SIDE, 1.0, channels, (0.0,) * channels, (1.0,) * channels)
    pixels, labels = [], []
    for part, most in ((train, MAX_TRAIN), (test, MAX_TEST)):
        index = baseline_index(len(part.source), most)
        found = extract(Pixels(channels), part.source, transform, index=index, device=device)
        pixels.append(found.cls)
        labels.append(torch.from_numpy(part.labels[found.index]))
    ks = [k for k in KS if k < len(pixels[0])] or [1]
    k = ks[0]
    if len(pixels[0]) > 1:
        similarity, rows = nearest_rows(pixels[0], pixels[0], ks[-1], exclude_self=True, device=device)
        votes = vote(similarity, labels[0][rows], ks, TEMPERATURE, num_classes)
        k = max(ks, key=lambda k: accuracy(votes[k], labels[0])[0])
    similarity, rows = nearest_rows(pixels[0], pixels[1], k, device=device)
    top1, _ = accuracy(vote(similarity, labels[0][rows], [k], TEMPERATURE, num_classes)[k], labels[1])
    return PixelBaseline(top1=top1, k=k, num_train=len(pixels[0]), num_test=len(pixels[1]))
