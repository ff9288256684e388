import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ibot_cli.core.backbone import build_backbone
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError, WeightsError
from ibot_cli.evaluate import baselines, labelled_features
from ibot_cli.evaluate.baselines import random_weights, raw_pixels
from ibot_cli.evaluate.confidence import wilson
from ibot_cli.evaluate.features import extract
from ibot_cli.evaluate.knn.curve import Stop
from ibot_cli.evaluate.knn.protocol import evaluate_knn, knn_accuracy, transform_of
from ibot_cli.evaluate.knn.vote import accuracy, knn_vote
from ibot_cli.evaluate.labelled import open_labelled
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


@pytest.fixture
def images(tmp_path: Path) -> str:
    return str(write_folder(tmp_path / "images", {"dark": 20, "light": 15}))


def test_online_accuracy() -> None:
    source = Coloured([0, 1, 2] * 6)
    backbone = MeanColour().train()
    even, odd = np.arange(0, 18, 2), np.arange(1, 18, 2)
    for k in (3, 100):  # a k above the voting images is cut
        assert knn_accuracy(backbone, source, even, odd, k, TRANSFORM) == 1.0
    assert backbone.training
    with pytest.raises(DataError, match="coloured has no labels"):
        knn_accuracy(backbone, Coloured(None, num=4), even, odd, 3, TRANSFORM)


def test_result_beside_baselines(loaded: LoadedBackbone, images: str) -> None:
    stages: list[str] = []
    found = evaluate_knn(loaded, images, ks=[5, 20, 200], progress=lambda stage, *_: stages.append(stage))
    result = found.result
    assert (result.num_train, result.num_test, result.num_classes) == (28, 7, 2)
    assert result.k == 20 and list(result.per_k) == [5, 20, 28] and result.top1 == result.per_k[20]
    assert result.top5 == 1.0 and result.precision == "fp32"
    assert found.correct.shape == (7,) and found.correct.mean() == result.top1
    assert result.top1_interval == wilson(int(found.correct.sum()), 7)
    assert [(each.name, each.num_train, each.num_test) for each in result.per_class] == [
        ("dark", 16, 4),
        ("light", 12, 3),
    ]
    assert sum(each.correct for each in result.per_class) == found.correct.sum()
    assert sum(each.count for each in result.confused) == 7 - found.correct.sum()
    assert result.mean_per_class == np.mean([each.accuracy for each in result.per_class])
    assert result.baseline_pixels is not None and 0 <= result.baseline_pixels <= 1
    assert result.baseline_random == pytest.approx(np.mean(result.baseline_random_per_seed))
    assert (result.baseline_num_train, result.baseline_num_test) == (28, 7)
    assert "hold-out" in result.split and result.weights_hash == loaded.weights_hash
    assert "k = 200 was cut to the 28 training images." in result.notes
    assert list(dict.fromkeys(stages)) == ["training images", "test images", "random weights", "raw pixels"]
    assert result.curve == () and result.excluded is None


def test_sweep_equals_separate_votes(loaded: LoadedBackbone, images: str) -> None:
    result = evaluate_knn(loaded, images, ks=[9, 3], temperatures=(1.0, 0.07, 0.5, 1.0), baselines=False).result
    split = open_labelled(images, channels=3)
    bank, queries = (extract(loaded.backbone, part.source, transform_of(loaded)) for part in (split.train, split.test))
    labels = [torch.from_numpy(part.labels) for part in (split.train, split.test)]
    expected = {
        (temperature, k): accuracy(votes, labels[1])
        for temperature in (0.07, 0.5, 1.0)
        for k, votes in knn_vote(bank.cls, labels[0], queries.cls, [3, 9], temperature, 2).items()
    }
    assert {(cell.temperature, cell.k): (cell.top1, cell.top5) for cell in result.sweep} == expected
    assert [(cell.temperature, cell.k) for cell in result.sweep] == list(expected)
    assert (result.k, result.temperature) == (9, 0.07)  # no 20, so the first; the published temperature
    assert result.best.top1 == max(top1 for top1, _ in expected.values())
    assert result.per_k == {k: expected[0.07, k][0] for k in (3, 9)}


@pytest.mark.parametrize(
    ("ks", "temperatures", "first"),
    [([1, 20, 3], (0.5,), (20, 0.5)), ([3, 1], (0.5, 0.1), (3, 0.5)), ([900, 1], (0.1, 0.07), (28, 0.07))],
)
def test_what_is_reported_first(
    loaded: LoadedBackbone, images: str, ks: list[int], temperatures: tuple[float, ...], first: tuple[int, float]
) -> None:
    result = evaluate_knn(loaded, images, ks=ks, temperatures=temperatures, baselines=False).result
    assert (result.k, result.temperature) == first
    cell = next(cell for cell in result.sweep if (cell.k, cell.temperature) == first)
    assert (result.top1, result.top5) == (cell.top1, cell.top5)


def test_curve_equals_separate_evaluations(loaded: LoadedBackbone, images: str) -> None:
    others = [random_weights(loaded, seed) for seed in (1, 2)]
    stops = [Stop(10, 1, others[0]), Stop(2000, 2, others[1]), Stop(3000, 3, loaded)]
    stages: list[str] = []
    result = evaluate_knn(
        loaded, images, ks=[1, 5], temperatures=(0.07, 1.0), curve=iter(stops), progress=lambda x, *_: stages.append(x)
    ).result
    assert [(point.step, point.epoch) for point in result.curve] == [(10, 1), (2000, 2), (3000, 3)]
    for stop, point in zip(stops, result.curve, strict=True):
        alone = evaluate_knn(stop.loaded, images, ks=[1, 5], baselines=False).result
        assert (point.top1, point.per_k) == (alone.top1, alone.per_k)
        assert point.weights_hash == alone.weights_hash
    assert list(dict.fromkeys(stages)) == [
        "training images",
        "test images",
        "step 10: training images",
        "step 10: test images",
        "step 2,000: training images",
        "step 2,000: test images",
        "random weights",
        "raw pixels",
    ]


def test_baselines_are_measured_once(loaded: LoadedBackbone, images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate_knn(loaded, images, ks=[3]).result
    monkeypatch.setattr(baselines, "extract", None)
    assert evaluate_knn(loaded, images, ks=[3]).result == first
    with pytest.raises(TypeError):
        evaluate_knn(loaded, images, ks=[2])  # another k is another figure


def test_without_baselines_and_cache(tmp_path: Path, loaded: LoadedBackbone, images: str) -> None:
    result = evaluate_knn(loaded, images, ks=[2, 1], baselines=False, cache=False).result
    assert result.baseline_random is None and result.baseline_pixels is None and result.baseline_num_test is None
    assert not (tmp_path / "cache").exists()


def test_unreadable_images_and_small_baselines_are_noted(
    tmp_path: Path, loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "MAX_TRAIN", 6)
    folder = write_folder(tmp_path / "images", {"dark": 10, "light": 10})
    (folder / "dark" / "bad.png").write_bytes(b"no image")
    found = evaluate_knn(loaded, str(folder), ks=[3])
    result = found.result
    assert any("1 image could not be read and was left out" in note and "bad.png" in note for note in result.notes)
    assert any("The baselines use 6 training and 4 test images" in note for note in result.notes)
    assert result.num_train + result.num_test == 20 and len(found.correct) == result.num_test


def test_a_class_whose_training_images_are_all_unreadable(tmp_path: Path, loaded: LoadedBackbone) -> None:
    counts = {"dark": 3, "light": 3, "odd": 2}
    write_folder(tmp_path / "train", counts)
    write_folder(tmp_path / "val", counts)
    for place in range(2):
        (tmp_path / "train" / "odd" / f"{place}.png").write_bytes(b"no image")
    result = evaluate_knn(loaded, str(tmp_path), ks=[1], baselines=False).result
    assert any(note.startswith("2 images could not be read and were left out (") for note in result.notes)
    assert "Classes without a training image: odd. Their test images (2) count as errors." in result.notes
    assert result.per_class[2].num_train == 0 and result.per_class[2].accuracy == 0.0


def test_features_that_are_not_finite(loaded: LoadedBackbone, images: str) -> None:
    with torch.no_grad():
        next(loaded.backbone.parameters()).fill_(float("nan"))
    diverged = replace(loaded, weights_hash="another")
    with pytest.raises(WeightsError, match=r"The features of .*weights\.pth are not finite") as caught:
        evaluate_knn(diverged, images, ks=[1])
    assert caught.value.hint == "Check the weights: the training may have diverged."


def test_options_and_notes_of_the_feature_pass(
    loaded: LoadedBackbone, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    genuine = labelled_features.feature_pass

    def spy(*args: object, **options: object) -> object:
        table = genuine(*args, **options)
        table.notes = ("A stale cache was replaced.",)
        calls.append(options)
        return table

    monkeypatch.setattr(labelled_features, "feature_pass", spy)
    result = evaluate_knn(loaded, images, ks=[1], baselines=False, precision="bf16", cache=False, workers=1).result
    assert [(call["precision"], call["cache"], call["workers"]) for call in calls] == [("bf16", False, 1)] * 2
    assert result.notes.count("A stale cache was replaced.") == 1 and result.precision == "bf16"


def test_damaged_cache_is_noted_and_changes_nothing(tmp_path: Path, loaded: LoadedBackbone, images: str) -> None:
    first = evaluate_knn(loaded, images, ks=[3], baselines=False).result
    files = list((tmp_path / "cache").rglob("cls@1.f32"))
    assert len(files) == 2 and first.notes == ()
    for file in files:
        content = bytearray(file.read_bytes())
        content[5] ^= 0xFF
        file.write_bytes(content)
    again = evaluate_knn(loaded, images, ks=[3], baselines=False).result
    assert all("were damaged" in note for note in again.notes) and len(again.notes) >= 1
    assert replace(again, notes=()) == first


@pytest.fixture
def leaky(tmp_path: Path) -> Callable[[bool], str]:
    """Own split of 6 + 4 images of each class; the leak adds three copies of training images to the test part."""

    def make(leak: bool) -> str:
        root = tmp_path / f"leak {leak}"
        write_folder(root / "train", {"dark": 6, "light": 6}, seed=1)
        write_folder(root / "val", {"dark": 4, "light": 4}, seed=2)
        if leak:
            shutil.copy(root / "train" / "dark" / "3.png", root / "val" / "dark" / "copy.png")
            light = Image.open(root / "train" / "light" / "2.png")
            light.save(root / "val" / "light" / "other file.bmp")
            light.putpixel((0, 0), tuple(level + 1 for level in light.getpixel((0, 0))))
            light.save(root / "val" / "light" / "almost.png")
        return str(root)

    return make


def test_duplicates_are_left_out(loaded: LoadedBackbone, leaky: Callable[[bool], str]) -> None:
    pixels = raw_pixels(loaded)
    clean, leak = (evaluate_knn(pixels, leaky(which), ks=[3], baselines=False) for which in (False, True))
    assert (clean.result.num_test, leak.result.num_test) == (8, 11)
    found = evaluate_knn(pixels, leaky(True), ks=[3], exclude_duplicates=True, curve=[Stop(2, 2, pixels)])
    result, excluded = found.result, found.result.excluded
    assert excluded is not None and (excluded.identical, excluded.near, excluded.threshold) == (2, 1, 0.999)
    pairs = {(Path(pair.test).name, Path(pair.train).name, pair.kind) for pair in excluded.examples}
    assert pairs == {
        ("copy.png", "3.png", "identical"),
        ("other file.bmp", "2.png", "identical"),
        ("almost.png", "2.png", "near"),
    }
    assert result.num_test == 8 and result.num_train == 12 and result.baseline_num_test == 8
    assert found.correct.tolist() == clean.correct.tolist()
    assert result.per_class == clean.result.per_class and result.curve[0].top1 == clean.result.top1
    assert len({result.fingerprint, leak.result.fingerprint, clean.result.fingerprint}) == 3
    assert any(
        "3 test images were left out as in the training part too: 2 with identical pixels, 1 with a cosine of features "
        "above 0.999 (for example " in note
        for note in result.notes
    )


def test_no_duplicates(loaded: LoadedBackbone, leaky: Callable[[bool], str]) -> None:
    pixels, data = raw_pixels(loaded), leaky(False)
    plain = evaluate_knn(pixels, data, ks=[3], baselines=False).result
    checked = evaluate_knn(pixels, data, ks=[3], baselines=False, exclude_duplicates=True).result
    assert checked.notes == ("No test image was found among the training images.",)
    assert checked.fingerprint == plain.fingerprint and checked.top1 == plain.top1


def test_a_network_that_tells_nothing_apart(loaded: LoadedBackbone, images: str) -> None:
    class Constant(nn.Module):
        single_feature, dim = True, 3

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return batch.new_ones(len(batch), 1, 3)

    collapsed = replace(loaded, backbone=Constant(), weights_hash="constant")
    with pytest.raises(DataError, match=r"Every test image has a training image whose features have") as caught:
        evaluate_knn(collapsed, images, ks=[1], exclude_duplicates=True, cache=False)
    assert caught.value.hint is not None and "tells no image from another" in caught.value.hint
