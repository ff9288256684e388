import json
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from ibot_cli.cli import app
from ibot_cli.core.backbone import build_backbone
from ibot_cli.errors import DataError, UsageError, WeightsError
from tests.evaluate.images import write_folder


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    backbone = build_backbone(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=16, depth=1, heads=2)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["knn-eval", *args, "--device", "cpu"], catch_exceptions=False)


def test_digits_as_json(weights: str) -> None:
    result = run(weights, "builtin:digits", "--json", "--heads", "2")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["num_train"], found["num_test"], found["num_classes"], found["k"]) == (1437, 360, 10, 20)
    assert set(found["per_k"]) == {"10", "20", "100", "200"} and found["per_k"]["20"] == found["top1"]
    assert 0.1 < found["baseline_random"] < found["baseline_pixels"] and found["baseline_pixels"] > 0.9
    assert len(found["baseline_random_per_seed"]) == 3
    for text in ("this network", "random weights, mean of 3 seeds", "raw pixels, 32 x 32", found["split"]):
        assert text in result.stderr


def test_folder_as_table(weights: str, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "images", {"dark": 10, "light": 10})
    result = run(weights, str(data), "--k", "3, 50", "--heads", "2", "--no-baselines")
    assert result.exit_code == 0 and result.stdout == ""
    assert "hold-out" in result.stderr and "2 classes" in result.stderr
    assert "warning: k = 50 was cut to the 16 training images." in result.stderr
    assert "random weights" not in result.stderr


@pytest.mark.parametrize("text", ["10,x", "0", "-3", "", "5,,6", "1.5"])
def test_bad_k(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a positive whole number") as caught:
        run("weights.pth", "data", "--k", text)
    assert caught.value.hint is not None and "--k 10,20" in caught.value.hint


@pytest.mark.parametrize(("text", "part"), [("0", "0"), ("0.07,x", "x"), ("-1", "-1"), ("nan", "nan"), ("inf", "inf")])
def test_bad_temperature(text: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        run("weights.pth", "data", "--temperature", text)
    assert caught.value.message == f"--temperature {text}: {part!r} is not a number above 0."
    assert caught.value.hint is not None and "The published value is 0.07" in caught.value.hint


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        run(str(tmp_path / "nothing.pth"), "builtin:digits")


def test_unusual_width_needs_heads(weights: str) -> None:
    with pytest.raises(WeightsError, match="attention heads") as caught:
        run(weights, "builtin:digits")
    assert caught.value.hint == "Say it with --heads N."


def test_data_without_labels_or_images(weights: str, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "images", {"dark": 4, "light": 4})
    with pytest.raises(DataError, match="has no labels"):
        run(weights, str(data / "dark"), "--heads", "2")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        run(weights, str(tmp_path / "empty"), "--heads", "2")


def test_class_that_only_the_test_part_has(weights: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "images" / "train", {"dark": 4, "light": 4})
    write_folder(tmp_path / "images" / "val", {"dark": 2, "odd": 2})
    result = run(weights, str(tmp_path / "images"), "--heads", "2", "--k", "3", "--no-baselines")
    assert result.exit_code == 0
    assert "warning: Classes without a training image: odd." in result.stderr
