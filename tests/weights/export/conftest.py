"""Runs that the tests of several forms share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.runs import make_images, pretrain


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training of a ViT with local crops and a shared head, grey, 16 pixels."""
    place = tmp_path_factory.mktemp("export")
    sets = ("train.epochs=1", "monitor.knn_epochs=0", "objective.balance=center")
    pretrain(make_images(place / "images", per_class=6), place / "run", *sets)
    return place / "run"
