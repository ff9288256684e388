"""`--partial`, `--heads` and `--which` reach the loader from every command that takes WEIGHTS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.errors import WeightsError
from ibot_cli.evaluate import predict
from ibot_cli.train.finetune import prepare
from ibot_cli.weights import load
from tests.commands.conftest import Ibot
from tests.evaluate.images import write_folder

ARGUMENTS = {
    "knn-eval": ("images",),
    "linear-probe": ("images",),
    "cluster": ("images",),
    "retrieve": ("images",),
    "embed": ("images", "--out", "f.npy"),
    "predict": ("images/a",),
    "finetune": ("images", "--out", "run", "--dry-run"),
    "visualize-attention": ("images/a/0.png",),
    "visualize-correspondence": ("images",),
    "visualize-patterns": ("images",),
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    backbone = build_backbone(arch="vit_tiny", image_size=16, channels=3, patch_size=4, width=16, depth=2, heads=2)
    state = backbone.state_dict()
    del state["norm.bias"]
    torch.save(state, tmp_path / "weights.pth")
    write_folder(tmp_path / "images", {"a": 4, "b": 4})
    return tmp_path


@pytest.mark.parametrize("command", ARGUMENTS)
def test_every_command_hands_them_on(ibot: Ibot, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    asked: list[dict[str, Any]] = []

    def record(weights: str, **options: Any) -> None:
        asked.append({"weights": weights, **options})
        raise WeightsError("seen")

    monkeypatch.setattr(load, "load_weights", record)
    for module in (prepare, predict):  # these have imported it already
        monkeypatch.setattr(module, "load_weights", record)
    which = () if command == "predict" else ("--which", "student")
    done = ibot(command, "weights.pth", *ARGUMENTS[command], "--partial", "--heads", "2", *which)
    assert done.code == 1 and "error: seen" in done.err, done.err
    expected = {"weights": "weights.pth", "partial": True, "heads": 2}
    assert asked == [expected | ({"which": "student"} if which else {})]


@pytest.mark.parametrize("command", ["knn-eval", "cluster", "visualize-correspondence"])
def test_what_partial_left_out_is_said(ibot: Ibot, command: str) -> None:
    options = ("--heads", "2", "--no-baselines", "--device", "cpu")
    done = ibot(command, "weights.pth", "images", *options)
    assert done.code == 1 and "missing: backbone.norm.bias" in done.words and "--partial loads what fits" in done.words
    done = ibot(command, "weights.pth", "images", *options, "--partial")
    assert done.code == 0, done.err
    assert "Partly loaded: 29 of 30 tensors of the network." in done.words
    assert "Left at fresh values: backbone.norm.bias." in done.words


@pytest.mark.slow
def test_a_fine_tuned_run_remembers_it(ibot: Ibot) -> None:
    words = ("images", "--out", "run", "--heads", "2", "--device", "cpu", "--set", "train.epochs=1")
    assert ibot("finetune", "weights.pth", *words).code == 1
    done = ibot("finetune", "weights.pth", *words, "--partial", "--no-baselines")
    assert done.code == 0 and "Partly loaded: 29 of 30" in done.words, done.err
    origin = json.loads(Path("run/data.json").read_text())["origin"]
    assert (origin["partial"], origin["which"], origin["heads"]) == (True, "teacher", 2)
    for file in Path("run/checkpoints").iterdir():
        file.unlink()
    done = ibot("finetune", "weights.pth", "--out", "run", "--resume")  # the same weights need the same --partial
    assert done.code == 0, done.err
