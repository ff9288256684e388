"""Multinomial logistic regression on normalised features: deterministic, few passes, no learning rate.

The objective is `mean over images of the cross-entropy + l / 2 * |W|^2`, without bias. The authors pass {0.01, 0.1, 1}
to a solver with that very objective; others who build on the same code divide those numbers by the number of images.
Both are tried, and 0.001 / n besides, as small sets want little of it. Held-out images choose.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from ibot_cli.evaluate.linear.bank import TOP
from ibot_cli.evaluate.linear.result import BestOnTest, HeadResult
from ibot_cli.evaluate.linear.sweep import Judged, Outcome, chosen_order

STRENGTHS = (0.01, 0.1, 1.0)
WEAKEST = 0.001
MAX_ITERATIONS = 200


def penalties(num_images: int) -> tuple[float, ...]:
    """The weights l of the penalty that are tried, strongest first."""
    by_image = (value / num_images for value in (*STRENGTHS, WEAKEST))
    return tuple(sorted({*STRENGTHS, *by_image}, reverse=True))


def fit(features: Tensor, labels: Tensor, penalty: float, start: NDArray[Any] | None = None) -> LogisticRegression:
    """One regression by L-BFGS.

    Args:
        features: float `[n, D]`, used as they are.
        labels: int64 `[n]`, at least two classes.
        penalty: l of the objective; scikit-learn's C is 1 / (n l).
        start: Coefficients to begin with, those of a fit on the same classes; 0 when None.

    Source:
        Section 5.3 of the authors' evaluation; solver of scikit-learn.
    """
    model = LogisticRegression(
        C=1 / (len(labels) * penalty),
        fit_intercept=False,
        max_iter=MAX_ITERATIONS,
        tol=1e-4,
        warm_start=start is not None,
    )
    if start is not None:
        model.coef_ = start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the largest accuracy is reached long before
        model.fit(features.numpy(), labels.numpy())
    return model


def logistic_sweep(
    train: Judged,
    holdout: Judged,
    test: Judged,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """All penalties and poolings; held-out images choose.

    Args:
        train: Images that are learnt from; features are L2-normalised here, as are those of the others.
        holdout: Images that choose.
        test: Test images.
        progress: Called with the fits done and their total.
    """
    found: list[tuple[HeadResult, NDArray[np.bool_]]] = []
    strengths = penalties(len(train.labels))
    for pooling in train.features:
        parts = [functional.normalize(part.features[pooling], dim=1) for part in (train, holdout, test)]
        start: NDArray[Any] | None = None
        for penalty in strengths:
            model = fit(parts[0], train.labels, penalty, start)
            start = model.coef_
            found.append(_judge(model, pooling, penalty, (parts[1], holdout.labels), (parts[2], test.labels)))
            if progress is not None:
                progress(len(found), len(strengths) * len(train.features))
    heads = [head for head, _ in found]
    order = chosen_order(
        [not head.diverged for head in heads],
        [head.holdout_top1 or 0.0 for head in heads],
        [head.holdout_loss or 0.0 for head in heads],
    )
    best = max(heads, key=lambda head: head.test_top1 or 0.0)
    return Outcome(
        heads=tuple(heads[place] for place in order),
        best_on_test_top1=best.test_top1 or 0.0,
        best_on_test=BestOnTest(
            pooling=best.pooling, solver="lbfgs", lr=None, weight_decay=best.weight_decay, epoch=None
        ),
        correct=torch.from_numpy(found[order[0]][1]),
    )


def _judge(
    model: LogisticRegression, pooling: str, penalty: float, holdout: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> tuple[HeadResult, NDArray[np.bool_]]:
    held, tested = _scores(model, *holdout), _scores(model, *test)
    head = HeadResult(
        pooling=pooling,
        solver="lbfgs",
        lr=None,
        weight_decay=penalty,
        diverged=False,
        holdout_top1=float(held["top1"].mean()),
        holdout_loss=float(held["loss"].mean()),
        test_top1=float(tested["top1"].mean()),
        test_top5=float(tested["top5"].mean()),
    )
    return head, tested["top1"]


def _scores(model: LogisticRegression, features: Tensor, labels: Tensor) -> Mapping[str, NDArray[Any]]:
    """Per image: right at once, right among five, cross-entropy; a class that was not learnt is never right."""
    logits = torch.from_numpy(model.decision_function(features.numpy())).double()
    if logits.ndim == 1:  # two classes: their difference
        logits = torch.stack([torch.zeros_like(logits), logits], dim=1)
    classes = torch.from_numpy(model.classes_)
    place = torch.searchsorted(classes, labels).clamp_(max=len(classes) - 1)
    known = classes[place] == labels
    own = logits.gather(1, place.unsqueeze(1))
    better = (logits >= own).sum(dim=1) - 1
    top = min(TOP, len(classes))
    loss = logits.logsumexp(dim=1) - own.squeeze(1)
    found = {"top1": (better == 0) & known, "top5": (better < top) & known, "loss": loss}
    return {name: value.numpy() for name, value in found.items()}
