"""Verdicts against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, top_k_accuracy_score
from torch import Tensor, nn

from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError
from ibot_cli.evaluate.confidence import wilson
from ibot_cli.evaluate.labelled import Labelled
from ibot_cli.train.finetune.validate import judge
from tests.evaluate.images import Coloured

TRANSFORM = eval_transform(8, 1.0, 3, (0.0,) * 3, (1.0,) * 3)
CPU = torch.device("cpu")


class Scores(nn.Module):
    """Scores of seven classes from the mean of the first channel."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(2, 3))[:, :1]
        return torch.cat([(mean * factor).sin() * 3 for factor in (1, 9, 23, 31, 45, 53, 67)], dim=1)


class Ties(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[1.0, 2.0, 2.0]]).expand(len(images), -1)


def labelled(labels: list[int], bad: tuple[int, ...] = ()) -> Labelled:
    source = Coloured([label % 3 for label in labels], bad=bad)
    return Labelled(source, np.array(labels, dtype=np.int64))


def test_accuracies_and_loss_are_those_of_scikit_learn() -> None:
    labels = [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]
    part = labelled(labels)
    verdict = judge(Scores(), part, TRANSFORM, device=CPU)
    with torch.no_grad():
        scores = Scores()(torch.stack([TRANSFORM(part.source.read(index)) for index in range(12)])).double()
    expected = [top_k_accuracy_score(labels, scores, k=k, labels=range(7)) for k in (1, 5)]
    assert [verdict.top1, verdict.top5] == pytest.approx(expected)
    assert verdict.loss == pytest.approx(log_loss(labels, scores.softmax(1).numpy(), labels=range(7)))
    assert verdict.correct.tolist() == (scores.argmax(1).numpy() == labels).tolist()
    assert verdict.interval == wilson(verdict.right, 12)


def test_of_equal_scores_the_first_class_comes_first() -> None:
    assert judge(Ties(), labelled([0, 1, 2]), TRANSFORM, device=CPU).place.tolist() == [3, 1, 2]


def test_unreadable_images_count_nothing() -> None:
    whole, some = (judge(Scores(), labelled([0, 1, 2, 3], bad), TRANSFORM, device=CPU) for bad in ((), (1,)))
    assert some.bad == {"image 1": "damaged"} and some.total == 3 and len(some.correct) == 3
    assert some.place.tolist() == [whole.place[0], 0, *whole.place[2:]]
    with pytest.raises(DataError, match="No image of coloured can be read"):
        judge(Scores(), labelled([0, 1], (0, 1)), TRANSFORM, device=CPU)
