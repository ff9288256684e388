"""Accuracy over pairs of views, with networks whose accuracy is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from ibot_cli.core import swin as swin_module
from ibot_cli.core.backbone import Backbone, build_backbone
from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.files import FileSource
from ibot_cli.errors import DataError, UsageError, WeightsError
from ibot_cli.visualize.correspondence.accuracy import match_accuracy
from ibot_cli.visualize.correspondence.result import Correspondence
from ibot_cli.visualize.correspondence.views import ViewOptions, match_views
from ibot_cli.weights.timm_models import TimmBackbone
from tests.visualize.correspondence.known import ByColour, ByPlace, Constant, NotFinite, loaded, map_image, write_map


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    names = [write_map(tmp_path / f"{number}.png") for number in range(3)]
    return FileSource(name="maps", root=Path(), names=names, pixels=PixelFormat())


def measured(network: Backbone, source: FileSource, **options: Any) -> Correspondence:
    chosen: dict[str, Any] = {"pairs": 4, "baselines": False}
    return match_views(loaded(network), source, ViewOptions(**{**chosen, **options}))[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_that_knows_the_place_is_always_right(source: FileSource, seed: int) -> None:
    found = measured(ByColour(), source, seed=seed)
    assert found.num_queries > 12 * 64 / 4
    assert found.trained.accuracy == found.trained.accuracy_within_1 == 1
    assert found.views_in_words() == "4 pairs of views of each of 3 images" and found.data == found.source == "maps"
    assert found.trained.mutual_accuracy == 1 and 0.2 < found.trained.mutual < 1
    assert [pair.num_right for pair in found.pairs] == [pair.num_queries for pair in found.pairs]


def test_a_network_that_knows_nothing_is_at_chance(source: FileSource) -> None:
    found = measured(Constant(), source)
    assert found.chance.accuracy == 1 / 64
    assert 0 <= found.trained.accuracy < 3 / 64
    assert 0.09 < found.chance.accuracy_within_1 < 9 / 64


def test_a_network_that_knows_the_place_in_the_view_only(source: FileSource) -> None:
    found = measured(ByPlace(), source)
    assert found.trained.accuracy == found.chance.same_place < 0.5
    assert found.trained.accuracy_within_1 == found.chance.same_place_within_1
    assert found.trained.mutual == 1 and found.trained.mutual_accuracy == found.trained.accuracy


def test_random_weights_see_the_same_views(source: FileSource) -> None:
    alone = measured(ByColour(), source, pairs=2)
    found = measured(ByColour(), source, baselines=True, pairs=2)  # its random weights are the constant network's
    assert found.trained == alone.trained and found.pairs == alone.pairs
    assert len(found.random) == 3 and {entry.accuracy for entry in found.random} == {
        measured(Constant(), source, pairs=2).trained.accuracy
    }


def test_what_is_listed_and_drawn(source: FileSource) -> None:
    found, drawn = match_views(loaded(), source, ViewOptions(pairs=2, shown=2, baselines=False))
    assert [(pair.index, pair.matches is not None) for pair in found.pairs] == [
        (0, True), (0, False), (1, False), (1, False), (2, True), (2, False)
    ]  # fmt: skip
    first = found.pairs[0].matches
    assert len(drawn) == 2 and first is not None
    assert [match.cosine for match in first] == sorted((match.cosine for match in first), reverse=True)
    known = [match for match in first if match.steps is not None]
    width = max(box.width for box in found.pairs[0].boxes) / 8
    assert known and {match.steps for match in known} == {0}
    assert all(abs(match.first_point[0] - match.second_point[0]) < width for match in known)
    assert found.figures().pairs == () and found.figures().trained == found.trained


def test_unreadable_images_are_left_out_and_another_is_shown(source: FileSource) -> None:
    Path(source.path(0)).write_bytes(b"")
    found, drawn = match_views(loaded(), source, ViewOptions(pairs=1, baselines=False))
    assert found.num_images == 2 and found.unreadable == {source.path(0): "the file is empty"}
    assert len(drawn) == 1 and found.pairs[0].index == 1 and found.pairs[0].matches is not None
    for place in (1, 2):
        Path(source.path(place)).write_bytes(b"")
    with pytest.raises(DataError, match=r"No image of maps can be read \(.*0\.png: the file is empty\)"):
        match_views(loaded(), source, ViewOptions())


def test_images_whose_views_never_meet_are_left_out(source: FileSource) -> None:
    map_image().resize((30_000, 4)).save(source.path(1))
    options = ViewOptions(pairs=2, shown=3, baselines=False)
    found, drawn = match_views(loaded(), source, options)
    assert (found.num_images, len(drawn)) == (2, 2)
    assert found.unreadable == {source.path(1): "100 pairs of views of its 30000 x 4 pixels did not overlap"}
    with pytest.raises(DataError, match=r"100 pairs of views of an image of 30000 x 4 pixels did not overlap"):
        match_views(loaded(), source, options, index=np.array([1]))


def test_a_size_below_one_patch_is_refused(source: FileSource) -> None:
    with pytest.raises(UsageError, match=r"--size 7 is less than one patch of known, which is 8 pixels"):
        match_views(loaded(), source, ViewOptions(size=7))


def test_features_that_are_not_finite_are_refused(source: FileSource) -> None:
    with pytest.raises(WeightsError, match="features of known are not finite"):
        match_views(loaded(NotFinite()), source, ViewOptions(baselines=False))


def test_size_is_cut_to_whole_patches_and_progress_is_told(source: FileSource) -> None:
    told: list[tuple[str, int, int]] = []
    found, _ = match_views(
        loaded(),
        source,
        ViewOptions(size=47, pairs=8, baselines=False),
        index=np.array([0, 2]),
        progress=lambda *args: told.append(args),
    )
    assert (found.size, found.grid, found.num_images) == (40, 5, 2)
    assert told == [("matching views", 16, 16)]


def test_swin_and_timm(source: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(swin_module.SIZES, "swin_tiny", swin_module.Size(8, (1, 1, 1, 1), (1, 1, 1, 1)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        swin = build_backbone(arch="swin_tiny", image_size=64, window_size=2)
        model = TimmBackbone(
            timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=1, embed_dim=48)
        )
    for network, size, grid in ((swin, 64, 2), (swin, 96, 3), (model, 32, 2)):
        weights = dataclasses.replace(loaded(), backbone=network, image_size=32)
        found, _ = match_views(weights, source, ViewOptions(size=size, baselines=False))
        assert (found.grid, found.chance.accuracy) == (grid, 1 / grid**2)


def test_the_interval_is_over_images_not_patches() -> None:
    """Ten images, half of them all right and half all wrong: 5 of 10, however many patches they have."""
    counts = [np.array([1000, right, right, 10, 5, 6]) for right in [0, 1000] * 5]
    found = match_accuracy(counts, range(10), seed=0)
    assert found.accuracy == 0.5 and found.interval is not None
    low, high = found.interval
    assert 0.15 <= low <= 0.25 and 0.75 <= high <= 0.85
    assert (found.mutual, found.mutual_accuracy, found.mutual_accuracy_within_1) == (0.01, 0.5, 0.6)
    assert match_accuracy(counts[:4], range(4), seed=0).interval is None
    none = match_accuracy([np.array([8, 0, 0, 0, 0, 0])], [0], seed=0)
    assert none.mutual_accuracy is None and none.mutual_accuracy_within_1 is None
