from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.errors import DataError, UsageError, WeightsError
from ibot_cli.evaluate.baselines import raw_pixels
from ibot_cli.evaluate.linear import protocol as linear_protocol
from ibot_cli.evaluate.linear.data import fitting, held_out
from ibot_cli.evaluate.linear.protocol import LinearEvaluation, evaluate_linear
from ibot_cli.evaluate.linear.settings import Means, ProbeSettings, parse_poolings, published_pooling
from ibot_cli.weights.load import LoadedBackbone
from tests.evaluate.images import write_folder
from tests.evaluate.probing import tiny_vit

MEANS = Means(device=torch.device("cpu"))
SETTINGS = ProbeSettings(poolings=("cls", "mean"), rates=(0.1, 1.0), epochs=3, batch_size=8)
LBFGS = replace(SETTINGS, solver="lbfgs")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedBackbone:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tiny_vit(tmp_path)


def folder(tmp_path: Path, dark: int = 20, light: int = 15) -> str:
    return str(write_folder(tmp_path / "images", {"dark": dark, "light": light}))


def probe(loaded: LoadedBackbone, data: str, settings: ProbeSettings = SETTINGS, **more: bool) -> LinearEvaluation:
    return evaluate_linear(loaded, data, settings, MEANS, **{"baselines": False, **more})


@pytest.mark.parametrize("settings", [SETTINGS, LBFGS, replace(SETTINGS, augment=True)])
def test_result_beside_baselines(tmp_path: Path, loaded: LoadedBackbone, settings: ProbeSettings) -> None:
    found = probe(loaded, folder(tmp_path), settings, baselines=True)
    result = found.result
    assert (result.num_train, result.num_holdout, result.num_test, result.num_classes) == (25, 3, 7, 2)
    assert result.top1 == found.correct.mean() == result.chosen.test_top1 and found.correct.shape == (7,)
    assert result.top1_interval[0] <= result.top1 <= result.top1_interval[1] and result.top5 == 1.0
    assert result.chosen == result.heads[0] and len(result.heads) == (14 if settings.solver == "lbfgs" else 4)
    assert result.best_on_test_top1 >= result.top1
    assert result.baseline_random is not None and result.baseline_pixels is not None
    assert (result.baseline_num_train, result.baseline_num_test) == (28, 7)
    assert result.weights_hash == loaded.weights_hash and len(result.fingerprint) == 64
    assert "3 of the training images choose the head" in result.split
    assert ("without augmentation" in " ".join(result.notes)) is settings.augment
    assert result.settings["solver"] == settings.solver and result.settings.get("batch_size", 8) == 8


def test_baselines_are_measured_once(tmp_path: Path, loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path)
    first = probe(loaded, data, baselines=True)
    monkeypatch.setattr(linear_protocol, "random_weights", None)
    assert probe(loaded, data, baselines=True).result == first.result
    with pytest.raises(TypeError):
        probe(loaded, data, replace(SETTINGS, epochs=2), baselines=True)  # another schedule, another figure


def test_without_baselines(tmp_path: Path, loaded: LoadedBackbone) -> None:
    result = probe(loaded, folder(tmp_path)).result
    assert result.baseline_random is None and result.baseline_num_train is None


def test_global_generators_are_left_alone(tmp_path: Path, loaded: LoadedBackbone) -> None:
    data = folder(tmp_path)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    probe(loaded, data, replace(SETTINGS, augment=True), baselines=True)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpys == np.random.get_state()[1]).all()  # noqa: NPY002


def test_small_baselines_are_noted(tmp_path: Path, loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_protocol, "MAX_TRAIN", 12)
    notes = probe(loaded, folder(tmp_path), baselines=True).result.notes
    assert "The baselines use 12 training and 7 test images, so they are a little low." in notes


def test_fewer_images_than_the_batch(tmp_path: Path, loaded: LoadedBackbone) -> None:
    result = probe(loaded, folder(tmp_path), replace(SETTINGS, batch_size=128)).result
    assert result.settings["batch_size"] == 25
    text = "The batch is 25 instead of 128, for 25 training images; learning rates are scaled with it."
    assert text in result.notes
    assert fitting(25, 25) == (25, ())


@pytest.mark.parametrize("augment", [False, True])
def test_one_head_needs_no_hold_out(tmp_path: Path, loaded: LoadedBackbone, augment: bool) -> None:
    settings = replace(SETTINGS, rates=(0.5,), poolings=("cls",), holdout=0.0, augment=augment)
    result = probe(loaded, folder(tmp_path), settings).result
    assert (result.num_train, result.num_holdout, result.chosen.holdout_top1) == (28, 0, None)
    assert "choose the head" not in result.split


def test_classes_that_nothing_can_be_held_out_of(tmp_path: Path, loaded: LoadedBackbone) -> None:
    for name, counts in (("train", {"a": 1, "b": 1}), ("val", {"a": 2, "b": 2})):
        write_folder(tmp_path / "single" / name, counts)
    with pytest.raises(DataError, match="every class has one image only") as caught:
        probe(loaded, str(tmp_path / "single"))
    assert caught.value.hint is not None and "--holdout 0" in caught.value.hint
    write_folder(tmp_path / "single" / "train", {"a": 9})
    result = probe(loaded, str(tmp_path / "single")).result
    assert "1 of 2 classes have a single training image, so none is held out." in result.notes
    assert result.num_train == 9 and result.num_holdout == 1


def test_held_out_images_are_stratified_and_seeded() -> None:
    labels = np.repeat([0, 1], [60, 40])
    held = held_out(labels, SETTINGS)
    assert (held[:60].sum(), held[60:].sum()) == (6, 4)
    assert (held == held_out(labels, SETTINGS)).all() and (held != held_out(labels, replace(SETTINGS, seed=1))).any()


@pytest.mark.parametrize(("augment", "text"), [(False, "was left out"), (True, "were replaced by others, 1 in all")])
def test_unreadable_images(tmp_path: Path, loaded: LoadedBackbone, augment: bool, text: str) -> None:
    for part, count in (("train", 16), ("val", 3)):
        write_folder(tmp_path / "images" / part, {"dark": count, "light": count})
    (tmp_path / "images" / "train" / "dark" / "5.png").write_bytes(b"no image")
    settings = replace(SETTINGS, augment=augment, batch_size=28)  # an epoch shows every image
    result = probe(loaded, str(tmp_path / "images"), settings).result
    assert [text in note for note in result.notes if "dark/5.png" in note] == [True]
    assert result.num_train + result.num_holdout == (32 if augment else 31)


def test_a_class_without_training_images(tmp_path: Path, loaded: LoadedBackbone) -> None:
    write_folder(tmp_path / "odd" / "train", {"dark": 6, "light": 6})
    write_folder(tmp_path / "odd" / "val", {"dark": 3, "odd": 3})
    for settings in (SETTINGS, LBFGS):
        found = probe(loaded, str(tmp_path / "odd"), settings)
        assert any("Classes without a training image: odd." in note for note in found.result.notes)
        assert found.result.num_classes == 3 and not found.correct[3:].any()


def test_errors_of_the_data(tmp_path: Path, loaded: LoadedBackbone) -> None:
    with pytest.raises(DataError, match="has no labels"):
        probe(loaded, str(Path(folder(tmp_path)) / "dark"))
    write_folder(tmp_path / "one" / "train", {"dark": 4, "light": 0})
    write_folder(tmp_path / "one" / "val", {"dark": 4, "light": 0})
    with pytest.raises(DataError, match="one class only"):
        probe(loaded, str(tmp_path / "one"))


def test_errors_of_the_features(tmp_path: Path, loaded: LoadedBackbone) -> None:
    with pytest.raises(WeightsError, match="needs 4 blocks"):
        probe(loaded, folder(tmp_path), replace(SETTINGS, poolings=("cls4",)))
    with torch.no_grad():
        loaded.backbone.norm.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="are not finite"):
        probe(loaded, folder(tmp_path), replace(SETTINGS, poolings=("cls",)))


def test_poolings_as_text() -> None:
    assert parse_poolings("cls, cls4,cls+mean,cls") == ("cls", "cls4", "cls+mean")
    with pytest.raises(UsageError, match="'best' is not a pooling"):
        parse_poolings("cls,best")


def test_published_poolings(loaded: LoadedBackbone) -> None:
    shapes = {
        "cls4": {"arch": "vit_small", "image_size": 32},
        "cls+mean": {"arch": "vit_tiny", "image_size": 32, "width": 768, "depth": 2, "heads": 2},
        "cls2": {"arch": "vit_tiny", "image_size": 32, "width": 32, "depth": 6, "heads": 2},
        "cls": {"arch": "vit_tiny", "image_size": 32, "width": 32, "depth": 3, "heads": 2},
    }
    with torch.random.fork_rng():
        for wanted, shape in shapes.items():
            assert published_pooling(build_backbone(**shape)) == wanted  # type: ignore[arg-type]
        assert published_pooling(build_backbone(arch="swin_tiny", image_size=32)) == "cls4"
    assert published_pooling(raw_pixels(loaded).backbone) == "cls"
