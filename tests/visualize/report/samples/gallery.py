"""Paintings whose nearest neighbours are known by their colours, as a gallery and its queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ibot_cli.evaluate.retrieval.gallery import Gallery
from ibot_cli.visualize.report.samples.options import SampleOptions
from ibot_cli.visualize.report.samples.subject import Subject
from tests.visualize.patterns.coloured import Paintings, coloured_weights

CLASSES = ("red", "green")


def filled(letters: str) -> str:
    """A painting whose four rows have these colours; its feature is their mean."""
    return " ".join(letter * 4 for letter in letters)


def gallery(
    train: Sequence[str],
    train_labels: Sequence[int] | None,
    test: Sequence[str] | None = None,
    test_labels: Sequence[int] | None = None,
    *,
    classes: Sequence[str] = CLASSES,
    bad: Sequence[int] = (),
    bad_tests: Sequence[int] = (),
) -> Gallery:
    """Images by the letters of their rows."""
    named = None if train_labels is None else tuple(classes)
    searched = Paintings([filled(each) for each in train], train_labels, named, bad)
    asked = None if test is None else Paintings([filled(each) for each in test], test_labels, named, bad_tests)
    return Gallery(
        source=searched,
        labels=searched.labels,
        queries=asked,
        query_labels=None if asked is None else asked.labels,
        own=None if asked is None else np.full(len(asked), -1, dtype=np.int64),
        classes=named,
        measured=named is not None and len(named) > 1,
        sentence="",
        notes=(),
        fingerprint="",
    )


def subject(images: Gallery, **options: Any) -> Subject:
    """The network of colours, asked about these images."""
    return Subject(
        run=Path("a run"),
        data="the data",
        loaded=coloured_weights(),
        gallery=images,
        options=SampleOptions(**{"cache": False, **options}),
    )
