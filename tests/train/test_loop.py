"""Whole small runs: what they write, what they tell, and when they stop."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ibot_cli.errors import DataError, TrainingError
from ibot_cli.runs import checkpoint
from ibot_cli.train import loop as loop_module
from ibot_cli.train.interrupt import Interrupted
from ibot_cli.train.launch import PretrainResult, execute, prepare
from ibot_cli.train.loop import Loop
from ibot_cli.train.reporter import Silent
from ibot_cli.train.request import Request
from tests.train import pictures, runs

RGB = "data.channels=3"


class Recorder(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.epochs: list[Mapping[str, Any]] = []
        self.steps: list[int] = []
        self.readings: list[int] = []

    def advance(self, step: int) -> None:
        self.steps.append(step)

    def progress(self, record: Mapping[str, Any]) -> None:
        self.readings.append(record["step"])

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.epochs.append(record)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def train(data: Path, out: Path, *sets: str) -> tuple[PretrainResult, Recorder]:
    told = Recorder()
    request = Request(data=str(data), preset="ibot_vits16", sets=[*runs.SMALL, *sets], out=out)
    return execute(prepare(request), told), told


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 images in 3 classes: 5 steps of 8 in an epoch."""
    return runs.make_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 images of every mode without labels: 2 steps of 8 in an epoch."""
    return pictures.mixed(tmp_path_factory.mktemp("data") / "flat", 16)


def steps_saved(out: Path) -> list[str]:
    return [path.name for path in checkpoint.paths(out / "checkpoints")]


def test_what_is_told_and_written(images: Path, tmp_path: Path) -> None:
    result, told = train(images, tmp_path / "run", "train.epochs=2")
    assert told.steps == list(range(1, 11))
    # every second step, every third because of the checkpoints, and at the end of an epoch
    assert told.readings == [2, 3, 4, 5, 6, 8, 9, 10]
    assert [record["epochs_done"] for record in told.epochs] == [1, 2]
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "config.yaml", "env.json", "data.json", "metrics.jsonl", "checkpoints", "figures",
    }  # fmt: skip
    records = runs.metrics(tmp_path / "run")
    step = next(record for record in records if record["step"] == 3)
    assert step["loss/total"] == pytest.approx(step["loss/cls"] + step["loss/patch"])
    assert {"lr", "weight_decay", "teacher_momentum", "teacher_temp", "grad_norm", "agreement"} <= step.keys()
    epoch = records[-1]
    for slot in ("cls", "patch"):
        assert 0 <= epoch[f"target_entropy/{slot}"] <= 1 and 0 <= epoch[f"marginal_entropy/{slot}"] <= 1
        assert 1 <= epoch[f"used_prototypes/{slot}"] <= 16
    assert {f"clusters/{name}" for name in ("nmi", "ami", "ari", "fmi")} <= epoch.keys()
    assert result.knn_accuracy == epoch["knn_accuracy"]


def test_without_labels_there_is_health_but_no_knn(flat: Path, tmp_path: Path) -> None:
    result, told = train(flat, tmp_path / "run", RGB, "train.epochs=2")
    assert result.knn_accuracy is None and result.num_classes is None
    for record in told.epochs:
        assert "target_entropy/cls" in record and "used_prototypes/patch" in record
        assert not any(name.startswith(("clusters/", "knn")) for name in record)


@pytest.mark.parametrize(
    ("sets", "kept"),
    [
        (("train.keep_last=1",), ["step-00000020.pt"]),
        (("train.keep_last=3",), ["step-00000015.pt", "step-00000018.pt", "step-00000020.pt"]),
        (
            ("train.keep_last=1", "train.keep_every_epochs=2", "train.checkpoint_steps=0"),
            ["step-00000010.keep.pt", "step-00000020.keep.pt"],
        ),
        (("train.checkpoint_steps=0", "train.checkpoint_epochs=0", "train.keep_every_epochs=0"), ["step-00000020.pt"]),
    ],
)
def test_retention(images: Path, tmp_path: Path, sets: tuple[str, ...], kept: list[str]) -> None:
    train(images, tmp_path / "run", "monitor.knn_epochs=0", *sets)
    assert steps_saved(tmp_path / "run") == kept


def test_a_checkpoint_every_so_many_minutes(flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 20))
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: float(next(clock)))
    saved: list[int] = []
    original = Loop._save
    monkeypatch.setattr(Loop, "_save", lambda self, end: (saved.append(self.step), original(self, end)))
    sets = ("train.checkpoint_steps=0", "train.checkpoint_epochs=0", "train.log_every=1")
    train(flat, tmp_path / "run", RGB, *sets, "train.checkpoint_minutes=1")
    assert saved[-1] == 8 and 1 < len(saved) < 8


def test_bad_files_are_replaced_counted_and_named(tmp_path: Path) -> None:
    bad = pictures.spoil(pictures.mixed(tmp_path / "images", 14), 3)
    result, told = train(tmp_path / "images", tmp_path / "run", RGB, "train.epochs=2")
    assert result.bad_files == 3
    named = json.loads((tmp_path / "run/bad_files.json").read_text())
    assert sorted(Path(path).name for path in named["files"]) == sorted(bad) and named["count"] == 3
    assert told.epochs[-1]["bad_files"] == 3
    assert all(math.isfinite(r["loss/total"]) for r in runs.metrics(tmp_path / "run") if "loss/total" in r)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_files_stop_a_run_and_are_named(tmp_path: Path, workers: int) -> None:
    folder = pictures.mixed(tmp_path / "images", 30)
    sets = (RGB, "data.max_bad_files=3", f"runtime.workers={workers}", "train.micro_batch_size=1")
    request = Request(data=str(folder), preset="ibot_vits16", sets=[*runs.SMALL, *sets], out=tmp_path / "run")
    prepared = prepare(request)
    for path in sorted(folder.iterdir())[::3]:  # readable when the run was planned
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"of 30 files cannot be read; a run stops above 3 files") as stopped:
        execute(prepared, Silent())
    named = json.loads((tmp_path / "run/bad_files.json").read_text())["files"]
    assert len(named) >= 4 and all(path in stopped.value.message for path in named)
    assert "data.max_bad_files" in str(stopped.value.hint)


def test_dino_trains_without_a_patch_target(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path / "run", "objective.patch=none", "train.epochs=2")
    records = runs.metrics(tmp_path / "run")
    assert all("loss/patch" not in record for record in records)
    assert not any("patch" in name for name in records[-1])
    state = runs.final_state(tmp_path / "run")
    assert not any("masked_embed" in name for name in state["student"])


def test_patches_alone_train(images: Path, tmp_path: Path) -> None:
    sets = ("objective.cls=none", "views.num_local=0", "views.num_global=1", "train.epochs=1")
    _, told = train(images, tmp_path / "run", *sets)
    assert "target_entropy/patch" in told.epochs[0] and "target_entropy/cls" not in told.epochs[0]


@pytest.mark.parametrize("balance", ["center", "sinkhorn"])
def test_masks_that_start_later(images: Path, tmp_path: Path, balance: str) -> None:
    sets = ("mask.start_epoch=1", "train.epochs=2", f"objective.balance={balance}")
    _, told = train(images, tmp_path / "run", *sets)
    assert "target_entropy/patch" in told.epochs[1]
    steps = [record for record in runs.metrics(tmp_path / "run") if "loss/patch" in record]
    assert all(record["loss/patch"] == 0 for record in steps if record["epoch"] == 0)
    assert any(record["loss/patch"] > 0 for record in steps if record["epoch"] == 1)


def test_swin_trains(tmp_path: Path) -> None:
    sets = (
        RGB, "model.arch=swin_tiny", "model.patch_size=4", "model.width=auto", "model.depth=auto", "model.heads=auto",
        "model.window_size=2", "views.global_size=64", "views.local_size=32", "train.batch_size=4", "train.epochs=1",
        "train.checkpoint_steps=0",
    )  # fmt: skip
    result, _ = train(pictures.mixed(tmp_path / "images", 4), tmp_path / "run", *sets)
    assert result.steps == 1
    (record,) = [r for r in runs.metrics(tmp_path / "run") if "loss/total" in r]
    assert math.isfinite(record["loss/total"]) and not record["skipped"] and record["grad_norm"] > 0


def test_batch_norm_resumes_bit_for_bit(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = ("head.norm=batch", "train.epochs=2")
    train(images, tmp_path / "whole", *sets)

    original = Loop._after_update

    def stop_at_7(self: Loop, stop: Any) -> None:
        if self.step == 7:
            stop.signal_number = 15
        original(self, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_after_update", stop_at_7)
        with pytest.raises(Interrupted, match="after step 7"):
            train(images, tmp_path / "run", *sets)
    execute(prepare(Request(out=tmp_path / "run", resume=True)), Silent())
    runs.assert_same(runs.final_state(tmp_path / "run"), runs.final_state(tmp_path / "whole"))
    assert runs.metrics(tmp_path / "run") == runs.metrics(tmp_path / "whole")
    state = runs.final_state(tmp_path / "run")["student"]
    assert any("running_mean" in name and value.abs().sum() > 0 for name, value in state.items())


def make_infinite(monkeypatch: pytest.MonkeyPatch, steps: set[int], name: str) -> None:
    """From now on the loss term is infinite in these steps, counted from 1."""
    from ibot_cli.core.objective import Objective, Outcome

    original, seen = Objective.losses, [0]

    def patched(self: Objective, *args: Any) -> Outcome:
        seen[0] += 1
        outcome = original(self, *args)
        if seen[0] in steps:
            outcome.terms[name] = outcome.terms[name] * math.inf
        return outcome

    monkeypatch.setattr(Objective, "losses", patched)


def test_single_bad_steps_are_skipped_and_told_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_infinite(monkeypatch, {4, 5}, "patch")
    _, told = train(images, tmp_path / "run", "train.micro_batch_size=8", "train.epochs=2")
    (warning,) = told.warnings
    assert warning == (
        "1 of the last 1 updates were skipped, the first at step 4: loss/patch not finite. "
        "Training stops after 20 in a row."
    )
    records = {record["step"]: record for record in runs.metrics(tmp_path / "run") if "lr" in record}
    assert [step for step, record in records.items() if record["skipped"]] == [4, 5]
    assert records[4]["loss/patch"] is None and records[6]["loss/patch"] > 0
    state = runs.final_state(tmp_path / "run")
    assert state["bad_steps"] == 0
    assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} <= {8, 5, 3, 10}


def test_losses_that_stay_infinite_end_the_run_with_intact_checkpoints(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_infinite(monkeypatch, set(range(7, 1000)), "patch")
    with pytest.raises(TrainingError) as stopped:
        train(images, tmp_path / "run", "train.micro_batch_size=8", "train.max_bad_steps=6")
    assert stopped.value.exit_code == 1
    assert stopped.value.message == (
        "6 steps in a row were not finite, the last at step 12: loss/patch. "
        "Their updates were skipped, so the saved weights are intact."
    )
    assert "optim.lr" in str(stopped.value.hint)
    names = steps_saved(tmp_path / "run")
    assert names == ["step-00000009.pt", "step-00000010.pt"]
    good, later = (checkpoint.load(tmp_path / "run/checkpoints" / name).state for name in names)
    for state in (good, later):
        tensors = [*state["student"].values(), *state["teacher"].values(), *state["centers"].values()]
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
    for part in ("student", "teacher", "centers"):  # steps 7 to 10 were skipped, so nothing moved
        runs.assert_same(good[part], later[part], part)
    runs.assert_same(good["optimizer"]["state"], later["optimizer"]["state"], "moments")
    steps = [record["step"] for record in runs.metrics(tmp_path / "run") if "lr" in record]
    assert steps == sorted(set(steps))


def test_a_state_that_is_not_finite_is_never_saved(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Loop._save

    def spoil(self: Loop, epoch_end: bool) -> None:
        if self.step == 6:
            self.objective.teacher.head.state_dict()["last_layer.weight_g"].fill_(math.nan)
        original(self, epoch_end)

    monkeypatch.setattr(Loop, "_save", spoil)
    with pytest.raises(TrainingError, match="weights are not finite at step 6; nothing was saved"):
        train(images, tmp_path / "run")
    assert steps_saved(tmp_path / "run") == ["step-00000003.pt", "step-00000005.pt"]


def temperatures(value: float) -> list[str]:
    names = ("teacher_temp", "teacher_patch_temp", "warmup_teacher_temp", "warmup_teacher_patch_temp")
    return [f"objective.{name}={value}" for name in names]


@pytest.mark.parametrize(
    ("balance", "fix"),
    [
        ("center", "set objective.balance=sinkhorn, or lower objective.teacher_temp (and its warm-up value)."),
        ("sinkhorn", "lower objective.teacher_temp (and its warm-up value)."),
    ],
)
def test_a_collapse_to_uniform_is_told_once_in_words(images: Path, tmp_path: Path, balance: str, fix: str) -> None:
    _, told = train(images, tmp_path / "run", f"objective.balance={balance}", *temperatures(100))
    cls, patch = told.warnings
    assert cls.startswith("Collapse to uniform: the teacher's class-token targets carry 100.0% of the largest possible")
    assert cls.endswith(f"To fix it, {fix}")
    assert "patch targets" in patch and "objective.teacher_patch_temp" in patch


def test_a_collapse_to_few_prototypes_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(16):  # all the same, so the teacher puts all of them into one prototype
        Image.fromarray(np.full((20, 20), 128, np.uint8)).save(folder / f"{number}.png")
    sets = ("objective.center_momentum=1", "objective.patch_center_momentum=1", *temperatures(0.001))
    _, told = train(folder, tmp_path / "run", *sets)
    cls = next(text for text in told.warnings if "class-token" in text)
    assert cls.startswith("Collapse to few prototypes: the teacher's class-token targets use about 1.0 of 16 ")
    assert cls.endswith("set objective.balance=sinkhorn, raise objective.teacher_temp, or lower optim.lr.")


def test_tensorboard_is_no_requirement(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    train(images, tmp_path / "run", "monitor.tensorboard=true", "train.epochs=1")
    assert not (tmp_path / "run/tensorboard").exists()
