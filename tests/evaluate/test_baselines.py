from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.data.transform import eval_transform
from ibot_cli.evaluate import baselines
from ibot_cli.evaluate.baselines import Baselines, cached, measure_baselines, random_network
from ibot_cli.evaluate.features import extract
from ibot_cli.evaluate.knn import accuracy, knn_vote
from ibot_cli.evaluate.labelled import Labelled
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


def test_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert baselines.cache_directory() == Path.home() / ".cache" / "ibot"
