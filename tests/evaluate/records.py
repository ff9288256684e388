"""Runs with recorded evaluations, made without evaluating anything."""

from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibot_cli.runs.evaluations import record_evaluation

DIGITS = {"data": "builtin:digits", "fingerprint": "digits"}


def new_run(path: Path, *steps: int) -> Path:
    """An empty run that has checkpoints of these steps."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text("")
    for step in steps:
        (path / "checkpoints" / f"step-{step:08d}.pt").write_text("")
    return path


def add(
    path: Path,
    command: str,
    /,
    *,
    step: int = 10,
    settings: dict[str, Any] | None = None,
    correct: NDArray[np.bool_] | None = None,
    **fields: Any,
) -> None:
    """Record a result with these fields."""
    origin = {"weights": f"teacher of {path}/checkpoints/step-{step:08d}.pt, step {step}", "weights_hash": "w"}
    content = DIGITS | origin | fields
    result = make_dataclass("Result", list(content))(**content)
    assert record_evaluation(str(path), command, settings=settings or {}, result=result, correct=correct) is not None


def add_knn(run: Path, right: NDArray[np.bool_] | float, *, keep: bool = True, **fields: Any) -> None:
    """Record a k-NN evaluation of 400 images; `right` is their correctness or its share."""
    correct = right if isinstance(right, np.ndarray) else np.arange(400) < round(400 * right)
    known: dict[str, Any] = {"k": 20, "temperature": 0.07, "baseline_random": 0.4, "baseline_pixels": 0.9} | fields
    add(run, "knn-eval", correct=correct if keep else None, top1=float(correct.mean()), num_test=len(correct), **known)


def add_finetune(run: Path, made: Path, share: float, **fields: Any) -> None:
    """Record in `run` that the run `made` classifies this share of 400 images."""
    known: dict[str, Any] = {"num_train": 1437, "labels_available": 1437, "from_scratch": False} | fields
    correct = np.arange(400) < round(400 * share)
    add(run, "finetune", correct=correct, run=str(made), top1=share, num_test=400, num_holdout=0, **known)


def add_cluster(run: Path, nmi: float, **fields: Any) -> None:
    """Record prototypes and k-means with 10 and 50 clusters of images of 10 classes, and baselines with 10."""

    def scores(value: float, accuracy: float | None = None) -> dict[str, Any]:
        return {"nmi": value, "ami": value - 0.1, "hungarian_accuracy": accuracy}

    rows = [
        {"method": "prototypes", "k": 256, "scores": scores(nmi - 0.2)},
        {"method": "kmeans", "k": 10, "scores": scores(nmi, 0.75)},
        {"method": "kmeans", "k": 50, "scores": scores(nmi + 0.1)},
    ]
    baselines = [
        {"features": features, "k": 10, **scores(value, 0.2)}
        for features, value in (("random weights", 0.3), ("raw pixels", 0.7))
    ]
    add(run, "cluster", rows=rows, baselines=baselines, num_classes=10, **fields)
