from pathlib import Path

import numpy as np
import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError
from ibot_cli.evaluate import baselines
from ibot_cli.evaluate.protocol import evaluate_knn, knn_accuracy
from ibot_cli.weights.load import LoadedBackbone, load_weights
from tests.evaluate.images import Coloured, MeanColour, write_folder

TRANSFORM = eval_transform(8, 1.0, 3, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedBackbone:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone(arch="vit_tiny", image_size=12, patch_size=4, width=16, depth=1, heads=2)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    return load_weights(str(tmp_path / "weights.pth"), heads=2)


def test_online_accuracy() -> None:
    source = Coloured([0, 1, 2] * 6)
    backbone = MeanColour().train()
    even, odd = np.arange(0, 18, 2), np.arange(1, 18, 2)
    for k in (3, 100):  # a k above the voting images is cut
        assert knn_accuracy(backbone, source, even, odd, k, TRANSFORM) == 1.0
    assert backbone.training
    with pytest.raises(DataError, match="coloured has no labels"):
        knn_accuracy(backbone, Coloured(None, num=4), even, odd, 3, TRANSFORM)


def test_result_beside_baselines(tmp_path: Path, loaded: LoadedBackbone) -> None:
    data = str(write_folder(tmp_path / "images", {"dark": 20, "light": 15}))
    stages: list[str] = []
    result = evaluate_knn(loaded, data, ks=[5, 20, 200], progress=lambda stage, *_: stages.append(stage))
    assert (result.num_train, result.num_test, result.num_classes) == (28, 7, 2)
    assert result.k == 20 and list(result.per_k) == [5, 20, 28] and result.top1 == result.per_k[20]
    assert result.top5 == 1.0
    assert result.baseline_pixels is not None and 0 <= result.baseline_pixels <= 1
    assert result.baseline_random == pytest.approx(np.mean(result.baseline_random_per_seed))
    assert (result.baseline_num_train, result.baseline_num_test) == (28, 7)
    assert "hold-out" in result.split and result.weights_hash == loaded.weights_hash
    assert "k = 200 was cut to the 28 training images." in result.notes
    assert list(dict.fromkeys(stages)) == ["training images", "test images", "random weights", "raw pixels"]


def test_baselines_are_measured_once(tmp_path: Path, loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    data = str(write_folder(tmp_path / "images", {"dark": 8, "light": 7}))
    first = evaluate_knn(loaded, data, ks=[3])
    monkeypatch.setattr(baselines, "extract", None)
    assert evaluate_knn(loaded, data, ks=[3]) == first
    with pytest.raises(TypeError):
        evaluate_knn(loaded, data, ks=[2])  # another k is another figure


def test_without_baselines(tmp_path: Path, loaded: LoadedBackbone) -> None:
    data = str(write_folder(tmp_path / "images", {"dark": 8, "light": 7}))
    result = evaluate_knn(loaded, data, ks=[2, 1], baselines=False)
    assert result.k == 2
    assert result.baseline_random is None and result.baseline_pixels is None and result.baseline_num_test is None
    assert not (tmp_path / "cache").exists()


def test_unreadable_images_and_small_baselines_are_noted(
    tmp_path: Path, loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "MAX_TRAIN", 6)
    folder = write_folder(tmp_path / "images", {"dark": 10, "light": 10})
    (folder / "dark" / "bad.png").write_bytes(b"no image")
    result = evaluate_knn(loaded, str(folder), ks=[3])
    assert any("1 image could not be read and was left out" in note and "bad.png" in note for note in result.notes)
    assert any("The baselines use 6 training and 4 test images" in note for note in result.notes)
    assert result.num_train + result.num_test == 20
