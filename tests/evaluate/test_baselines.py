from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.data.digits import DigitsSource
from ibot_cli.data.transform import eval_transform
from ibot_cli.evaluate import baselines
from ibot_cli.evaluate.baselines import (
    Baselines,
    baseline_index,
    cached,
    measure_baselines,
    random_network,
    random_weights,
    raw_pixels,
)
from ibot_cli.evaluate.features import extract, feature_pass
from ibot_cli.evaluate.knn.vote import accuracy, knn_vote
from ibot_cli.evaluate.labelled import Labelled
from tests.evaluate import passes
from tests.evaluate.images import Coloured

REBUILD = partial(build_backbone, arch="vit_tiny", image_size=8, patch_size=4, width=16, depth=1, heads=2)
TRANSFORM = eval_transform(8, 1.0, 3, (0.5,) * 3, (0.5,) * 3)
RESULT = Baselines(random=(0.25, 0.5, 0.75), pixels=0.125, num_train=7, num_test=5)


def labelled(labels: list[int]) -> Labelled:
    return Labelled(Coloured(labels), np.array(labels))


TRAIN, TEST = labelled([0, 1, 2] * 8), labelled([2, 1, 0] * 4)
MEASURE = partial(measure_baselines, REBUILD, TRANSFORM, TRAIN, TEST, channels=3, k=3, temperature=0.07, num_classes=3)


def test_equals_each_network_by_itself() -> None:
    found = MEASURE()
    assert found.pixels == 1.0  # the colour gives the class away
    assert (found.num_train, found.num_test) == (24, 12)
    for seed, value in enumerate(found.random):
        network = random_network(REBUILD, seed)
        bank, queries = (extract(network, part.source, TRANSFORM).cls for part in (TRAIN, TEST))
        votes = knn_vote(bank, torch.from_numpy(TRAIN.labels), queries, [3], 0.07, 3)
        assert value == accuracy(votes[3], torch.from_numpy(TEST.labels))[0]


def test_seeds_give_networks_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (random_network(REBUILD, seed).pos_embed for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_at_most_so_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_TRAIN", 9)
    monkeypatch.setattr(baselines, "MAX_TEST", 4)
    found = MEASURE()
    assert (found.num_train, found.num_test) == (9, 4)
    assert MEASURE() == found  # the choice is seeded


def test_random_weights_for_any_evaluation() -> None:
    model = passes.loaded(notes=["a note"], unused=("fc.weight",))
    before = torch.get_rng_state()
    first, again, other = (random_weights(model, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.weights_hash == again.weights_hash
    assert len({loaded.weights_hash for loaded in (model, first, other)}) == 3
    assert (first.description, first.notes, first.unused, first.head) == ("random weights (seed 0)", [], (), None)
    assert (first.architecture, first.image_size, first.mean) == (model.architecture, 8, model.mean)
    assert not first.backbone.training and first.backbone is not model.backbone
    features = [feature_pass(loaded, passes.Pictures(5), poolings=("cls2+mean",)) for loaded in (first, again, other)]
    pooled = [found.pooled("cls2+mean") for found in features]
    assert torch.equal(pooled[0], pooled[1]) and not torch.allclose(pooled[0], pooled[2])


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_image_at_32_pixels(channels: int) -> None:
    pixels = raw_pixels(passes.loaded(channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels))
    source = DigitsSource(channels=channels, split="test")
    found = feature_pass(pixels, source, index=np.array([5, 8])).pooled("cls")
    levels = torch.tensor(np.asarray(source.read(8))).reshape(32, 32, channels).permute(2, 0, 1)
    assert torch.equal(found[1], levels.flatten() / 255)
    assert pixels.weights_hash == raw_pixels(pixels).weights_hash
    assert (pixels.description, pixels.backbone.dim) == ("raw pixels at 32 x 32", found.shape[1])


def test_index_of_a_baseline() -> None:
    assert baseline_index(5, 5).tolist() == [0, 1, 2, 3, 4]
    chosen = baseline_index(1000, 10)
    assert len(set(chosen.tolist())) == 10 and chosen.tolist() == sorted(chosen.tolist())
    assert chosen.tolist() == baseline_index(1000, 10).tolist() and chosen.dtype == np.int64


def test_cached_once_per_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[str] = []

    def measure(name: str) -> Baselines:
        calls.append(name)
        return RESULT

    assert [cached(key, lambda key=key: measure(key)) for key in ("a", "a", "b")] == [RESULT] * 3
    assert calls == ["a", "b"]
    for path in (tmp_path / "ibot" / "baselines").iterdir():
        path.write_text("{half")
    assert cached("a", lambda: measure("again")) == RESULT
    assert calls[-1] == "again"


def test_an_unusable_cache_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached("a", lambda: RESULT) == RESULT
