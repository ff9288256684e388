from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.visualize.patterns import baselines, pixels
from ibot_cli.visualize.patterns.baselines import compare_purity
from ibot_cli.visualize.patterns.find import find_patterns, preparation
from ibot_cli.visualize.patterns.pixels import PixelAssigner, fit_pixels
from ibot_cli.visualize.patterns.random_weights import fresh_head, random_patterns, with_random_weights, without_names
from ibot_cli.visualize.patterns.result import PatternOptions, PurityComparison
from ibot_cli.weights.load import LoadedBackbone
from tests.visualize.patterns.coloured import (
    BLUE,
    COLOURS,
    STRIDE,
    Paintings,
    coloured_head,
    coloured_weights,
    random_paintings,
)

ALL = PatternOptions(min_brightness=-1, num_patterns=4, top_k=4)
# Red and green say the class; blue squares are in every image.
SORTED = Paintings(
    ["rrrr rrrr rrbb bbbb", "gggg gggg ggbb bbbb"] * 6, labels=[0, 1] * 6, classes=["red ones", "green ones"]
)


def compare(source: Any, options: PatternOptions = ALL, weights: LoadedBackbone | None = None) -> PurityComparison:
    weights = coloured_weights() if weights is None else weights
    return compare_purity(weights, source, options, find_patterns(weights, source, options))


def vit(depth: int = 1) -> LoadedBackbone:
    def build() -> Any:
        return build_backbone(arch="vit_tiny", image_size=32, patch_size=8, width=16, depth=depth, heads=2)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        backbone, head = build().eval(), Head(16, 6, 8, hidden_size=12, bottleneck_size=4, norm="batch").eval()
    return coloured_weights(backbone=backbone, head=head, rebuild=build)


def test_what_is_measured_by_hand() -> None:
    found = compare(SORTED)
    # 60 red, 60 green, 72 blue patches; of the 12 blue ones shown half are of one class
    assert found.trained.members == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.trained.patches == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.trained.overall == pytest.approx((60 + 60 + 36) / 192)
    assert (found.trained.used, found.trained.num_patterns) == (3, 3)
    assert found.chance == 0.5 and found.num_images == 12 and found.top_k == 4
    assert 0.5 < found.chance_members < 0.8  # of 4 members half agree at least
    assert found.seeds == (0, 1, 2) and len(found.random) == 3
    # three colours, three centres: raw pixels find the very same patterns
    assert found.pixels_k == 3
    assert found.pixels == found.trained


def test_on_many_images_everything_is_measured_on_the_same_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_IMAGES", 5)
    source = random_paintings(30, letters="rgb", labels=[0, 1, 2] * 10)
    found = compare(source)
    assert found.num_images == 5
    index = baselines.baseline_index(30, 5)
    assert np.bincount(source.labels[index]).max() / 5 == found.chance
    part = Paintings([source._paintings[place] for place in index], labels=list(source.labels[index]))
    assert compare(part).trained == found.trained
    assert compare(source) == found


def test_measuring_again_gives_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_paintings(9, letters="rgb", labels=[0, 1, 2] * 3)
    known = compare(source)
    monkeypatch.setattr(baselines, "baseline_index", lambda num, most: np.arange(num - 1))
    most = compare(source)
    part = Paintings(source._paintings[:8], labels=list(source.labels[:8]))
    monkeypatch.undo()
    assert compare(part).trained == most.trained
    assert most.trained != known.trained


def test_named_prototypes_are_beside_as_many_populated_ones() -> None:
    found = compare(SORTED, replace(ALL, prototypes=(BLUE,)))
    assert found.trained.num_patterns == 1 and found.trained.members == 0.5
    assert found.pixels.num_patterns == 1
    assert without_names(replace(ALL, prototypes=(1, 1, 2), order="purity")) == replace(ALL, num_patterns=2)


@pytest.mark.parametrize("order", ["confidence", "purity"])
def test_other_orders(order: Any) -> None:
    found = compare(SORTED, replace(ALL, order=order))
    assert found.pixels.members == found.trained.members


def test_class_tokens() -> None:
    weights = coloured_weights(head=coloured_head("rg"))
    found = compare(SORTED, replace(ALL, kind="cls"), weights)
    assert found.trained.members == 1 and found.trained.num_patterns == 2
    assert found.pixels.members == 1 and found.pixels_k == 2


def test_it_needs_labels_and_a_head() -> None:
    plain, weights = Paintings(["rrrr rrrr rrrr rrrr"]), coloured_weights()
    found = find_patterns(weights, plain, ALL)
    with pytest.raises(UsageError, match="no labels, so there is no purity to compare"):
        compare_purity(weights, plain, ALL, found)
    with pytest.raises(WeightsError, match="have no head"):
        compare_purity(coloured_weights(head=None), SORTED, ALL, found)


def test_stages_and_the_generator() -> None:
    seen: list[str] = []
    state = torch.get_rng_state()
    found = find_patterns(coloured_weights(), SORTED, ALL)
    compare_purity(coloured_weights(), SORTED, ALL, found, progress=lambda stage, done, total: seen.append(stage))
    assert list(dict.fromkeys(seen)) == ["random weights", "raw patches", "k-means of raw patches", "comparison"]
    assert torch.equal(state, torch.get_rng_state())


def test_random_weights_depend_on_the_seed_alone() -> None:
    weights = vit()
    source = random_paintings(6, labels=[0, 1] * 3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = random_patterns(weights, source, ALL, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert random_patterns(weights, source, ALL, seed=1) == one
    assert random_patterns(weights, source, ALL, seed=2) != one
    assert one.weights == "random weights (seed 1)" and one.weights_hash != weights.weights_hash
    assert one.num_prototypes == 8
    assert "mean score" in one.notes[0] and "temperature" not in " ".join(one.notes)


def test_random_weights_have_the_shapes_of_the_trained() -> None:
    weights = vit()
    fresh = with_random_weights(weights, 0)
    assert fresh.head is not None and weights.head is not None
    shapes = [{n: t.shape for n, t in each.head.state_dict().items()} for each in (fresh, weights)]  # type: ignore[union-attr]
    assert shapes[0] == shapes[1]
    assert not torch.equal(fresh.head.patch_layer.weight_v, weights.head.patch_layer.weight_v)
    assert not fresh.head.training and not fresh.backbone.training
    assert fresh.scale is not None and fresh.scale.patch_center is None and fresh.scale.patch_temp is not None
    assert any(isinstance(each, torch.nn.ReLU) for each in fresh_head(Head(4, 3, activation="relu")).modules())
    assert not any(isinstance(each, torch.nn.ReLU) for each in fresh.head.modules())


def test_random_patterns_of_named_prototypes() -> None:
    found = random_patterns(coloured_weights(), SORTED, replace(ALL, prototypes=(2, 4)))
    assert found.order == "population" and len(found.patterns) <= 2


def fitted(source: Any, k: int, **changes: Any) -> PixelAssigner:
    options = replace(ALL, **changes)
    return fit_pixels(source, preparation(coloured_weights()), STRIDE, k, np.arange(len(source)), options)


def test_pixels_find_colours() -> None:
    source = random_paintings(10, letters="rgb")
    images = torch.stack([preparation(coloured_weights())(source.read(place)) for place in range(10)])
    found = fitted(source, 3).assign(images)
    colours = coloured_weights().backbone(images)[:, 1:].argmax(-1).numpy()
    groups = {(int(a), int(b)) for a, b in zip(found.prototype.ravel(), colours.ravel(), strict=True)}
    assert len(groups) == 3
    assert found.score == pytest.approx(0, abs=1e-2) and found.probability == pytest.approx(1)


def test_pixels_by_their_distance() -> None:
    centers = torch.zeros(2, 3 * STRIDE**2)
    centers[1] = 1
    images = torch.full((1, 3, 32, 32), 0.8)
    found = PixelAssigner(centers, 10.0, preparation(coloured_weights()), STRIDE).assign(images)
    near, far = (0.2**2 * 192, 0.8**2 * 192)
    assert (found.prototype == 1).all() and found.prototype.shape == (1, 16)
    assert found.score == pytest.approx(-(near**0.5), rel=1e-3)
    assert found.probability == pytest.approx(1 / (1 + np.exp((near - far) / 20)), rel=1e-3)


def test_the_sample_of_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_paintings(6, letters="".join(COLOURS), bad=(2,))
    monkeypatch.setattr(pixels, "MOST_PATCHES", 30)
    options = replace(ALL, batch_size=4)
    drawn = [
        pixels._sample(source, preparation(coloured_weights()), STRIDE, np.arange(6), each, None)
        for each in (options, replace(options, batch_size=1, workers=1), replace(options, seed=1))
    ]
    assert torch.equal(drawn[0], drawn[1]) and not (
        drawn[0].shape == drawn[2].shape and torch.equal(drawn[0], drawn[2])
    )
    assert 20 <= len(drawn[0]) < 30 and drawn[0].shape[1] == 192
    # more centres than patches
    assert fitted(source, 1000).num_prototypes == len(drawn[0])
