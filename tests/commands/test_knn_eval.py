import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from ibot_cli.cli import app
from ibot_cli.config.load import flatten, to_yaml
from ibot_cli.config.schema import Config, DataConfig, ModelConfig, ViewsConfig
from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.core.objective import Network
from ibot_cli.errors import DataError, RunError, UsageError, WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.runs.evaluations import correctness, read_evaluations
from tests.evaluate.images import write_folder


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    backbone = build_backbone(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=16, depth=1, heads=2)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


@pytest.fixture
def training(tmp_path: Path, weights: str) -> Path:
    """A run with checkpoints of three networks, of steps 5, 10 and 15."""
    config = replace(
        Config(),
        data=DataConfig(channels=1),
        views=ViewsConfig(global_size=16, local_size=8),
        model=ModelConfig(arch="vit_tiny", patch_size=4, width=16, depth=1, heads=2),
    )
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_config(to_yaml(config))
    shape = {"arch": "vit_tiny", "image_size": 16, "channels": 1, "patch_size": 4, "width": 16, "depth": 1, "heads": 2}
    for step in (5, 10, 15):
        with torch.random.fork_rng():
            torch.manual_seed(step)
            states = {
                name: Network(build_backbone(**shape), Head(16, 10, hidden_size=12, bottleneck_size=6)).state_dict()
                for name in ("student", "teacher")
            }
        path = directory.checkpoints / f"step-{step:08d}{'.keep' if step == 10 else ''}.pt"
        checkpoint.save(path, {"config": flatten(config), **states}, step=step, epoch=step // 5)
    return directory.path


@pytest.fixture
def images(tmp_path: Path) -> str:
    return str(write_folder(tmp_path / "images", {"dark": 10, "light": 10}))


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


def test_curve_over_checkpoints(training: Path, images: str) -> None:
    result = run(str(training), images, "--checkpoints", "all", "--k", "1,3", "--no-baselines", "--json")
    found = json.loads(result.stdout)
    assert [(point["step"], point["epoch"]) for point in found["curve"]] == [(5, 1), (10, 2), (15, 3)]
    assert "step-00000015.pt" in found["weights"] and found["top1"] == found["curve"][-1]["top1"]
    assert "Top-1 over the training" in result.stderr
    assert len({point["weights_hash"] for point in found["curve"]}) == 3
    for point, name in zip(found["curve"], ("05.pt", "10.keep.pt", "15.pt"), strict=True):
        file = next((training / "checkpoints").glob(f"*{name}"))
        alone = json.loads(run(str(file), images, "--k", "1,3", "--no-baselines", "--json").stdout)
        assert (alone["per_k"], alone["weights_hash"]) == (point["per_k"], point["weights_hash"])
        assert alone["curve"] == []


def test_student_and_chosen_steps(training: Path, images: str) -> None:
    options = ("--k", "1", "--no-baselines", "--json")
    student = json.loads(run(str(training), images, "--which", "student", "--checkpoints", "5,10", *options).stdout)
    assert student["weights"].startswith("student of") and "step 10" in student["weights"]
    assert [point["step"] for point in student["curve"]] == [5, 10]
    teacher = json.loads(run(str(training), images, "--checkpoints", "5,10", *options).stdout)
    assert {point["weights_hash"] for point in student["curve"]}.isdisjoint(
        point["weights_hash"] for point in teacher["curve"]
    )


def test_checkpoints_that_cannot_be_taken(training: Path, weights: str, images: str) -> None:
    with pytest.raises(UsageError, match="is not a run directory"):
        run(weights, images, "--checkpoints", "all")
    with pytest.raises(UsageError, match="has no checkpoint of step 6"):
        run(str(training), images, "--checkpoints", "5,6")
    (training / "checkpoints" / "step-00000005.pt").write_bytes(b"half")
    with pytest.raises(RunError, match=r"step-00000005\.pt cannot be read") as caught:
        run(str(training), images, "--checkpoints", "all", "--k", "1")
    assert caught.value.hint == "Name the steps of the other checkpoints instead."


def test_evaluations_of_a_run_are_recorded(training: Path, images: str) -> None:
    spoken = run(str(training), images, "--k", "1,3", "--no-baselines", "--temperature", "0.1,0.05")
    assert f"Recorded in {training / 'evaluations.jsonl'}." in spoken.stderr
    silent = run(str(training), images, "--no-baselines", "--seed", "3", "--k", "2", "--json")
    assert "Recorded" not in silent.stderr
    first, second = read_evaluations(training)
    assert first["command"] == "knn-eval" and first["step"] == 15
    assert first["settings"] == {
        "k": [1, 3],
        "temperature": [0.1, 0.05],
        "checkpoints": None,
        "exclude_duplicates": False,
        "precision": "fp32",
        "which": "teacher",
        "seed": 0,
        "baselines": False,
        "heads": None,
        "partial": False,
    }
    right = correctness(first)
    assert right is not None and len(right) == 4 and np.mean(right) == first["result"]["top1"]
    assert second["settings"]["seed"] == 3 and second["result"] == json.loads(silent.stdout)


def test_other_weights_are_not_recorded(weights: str, images: str) -> None:
    result = run(weights, images, "--k", "1", "--no-baselines", "--heads", "2")
    assert result.exit_code == 0 and "Recorded" not in result.stderr


def test_per_class_table(training: Path, images: str) -> None:
    options = ("--k", "1", "--no-baselines", "--json")
    plain, asked = run(str(training), images, *options), run(str(training), images, "--per-class", *options)
    assert "By class" in asked.stderr and "By class" not in plain.stderr
    assert json.loads(plain.stdout)["per_class"] == json.loads(asked.stdout)["per_class"]


def test_hold_out_by_seed(training: Path, images: str) -> None:
    results = [
        json.loads(run(str(training), images, "--k", "1", "--no-baselines", "--json", "--seed", seed).stdout)
        for seed in ("0", "1")
    ]
    assert "seed 1" in results[1]["split"] and results[0]["fingerprint"] != results[1]["fingerprint"]


def test_duplicates_by_an_untrained_network(training: Path, images: str) -> None:
    with pytest.raises(DataError, match=r"Every test image has a training image whose features have a cosine above"):
        run(str(training), images, "--exclude-duplicates")


def test_precision_that_does_not_exist(weights: str) -> None:
    with pytest.raises(UsageError, match="There is no precision 'fp8'"):
        run(weights, "builtin:digits", "--precision", "fp8")


def test_bf16_and_no_cache(training: Path, images: str, tmp_path: Path) -> None:
    options = ("--k", "1", "--no-baselines", "--no-cache", "--precision", "bf16", "--json")
    assert json.loads(run(str(training), images, *options).stdout)["precision"] == "bf16"
    assert not (tmp_path / "cache").exists()


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2))
    torch.save(network.state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"no vision transformer: patch_embed\.proj\.weight is missing") as caught:
        run(str(tmp_path / "other.pth"), "builtin:digits")
    assert caught.value.hint is not None


def test_a_checkpoint_whose_tensors_are_of_another_architecture(training: Path) -> None:
    path = training / "checkpoints" / "step-00000015.pt"
    content = checkpoint.load(path)
    teacher = dict(content.state["teacher"])
    teacher["backbone.pos_embed"] = torch.zeros(1, 50, 16)
    del teacher["backbone.norm.weight"]
    checkpoint.save(path, {**content.state, "teacher": teacher}, step=15, epoch=3)
    with pytest.raises(WeightsError) as caught:
        run(str(training), "builtin:digits")
    for text in (str(path), "missing: backbone.norm.weight", "backbone.pos_embed is [1, 50, 16], not [1, 17, 16]"):
        assert text in caught.value.message


def test_grey_weights_on_colour_images_and_colour_weights_on_grey(training: Path, images: str, tmp_path: Path) -> None:
    colour = build_backbone(arch="vit_tiny", image_size=16, channels=3, patch_size=4, width=16, depth=1, heads=2)
    torch.save(colour.state_dict(), tmp_path / "colour.pth")
    options = ("--k", "1", "--no-baselines", "--json")
    assert json.loads(run(str(training), images, *options).stdout)["num_test"] == 4
    digits = run(str(tmp_path / "colour.pth"), "builtin:digits", "--heads", "2", *options)
    assert json.loads(digits.stdout)["num_test"] == 360


def test_unreadable_images(training: Path, images: str) -> None:
    bad = Path(images) / "dark" / "bad.png"
    bad.write_bytes(b"no image")
    result = run(str(training), images, "--k", "1", "--no-baselines")
    assert result.exit_code == 0
    assert "warning: 1 image could not be read and was left out (" in result.stderr and "bad.png" in result.stderr
    for path in Path(images).rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"No image of .* can be read \("):
        run(str(training), images, "--k", "1")
