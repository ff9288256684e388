"""A run that was killed and resumed ends exactly like one that was not."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from ibot_cli.core.scale import LossScale
from ibot_cli.errors import DataError, RunError, UsageError
from tests.train import runs

STEPS = 4 * 5  # 42 images in batches of 8, four epochs


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    runs.pretrain(images, out)
    return out


def check(whole: Path, out: Path) -> None:
    ours, theirs = runs.final_state(out), runs.final_state(whole)
    assert ours["step"] == STEPS
    for state in (ours, theirs):
        state["config"]["runtime"].pop("workers")
    runs.assert_same(ours, theirs)
    assert runs.metrics(out) == runs.metrics(whole)


def test_uninterrupted_run_holds_each_step_once(whole: Path) -> None:
    records = runs.metrics(whole)
    assert [r["step"] for r in records if "lr" in r] == list(range(1, STEPS + 1))
    epochs = [r for r in records if "epochs_done" in r]
    assert [r["epochs_done"] for r in epochs] == [1, 2, 3, 4]
    assert all(0 <= r["knn_accuracy"] <= 1 and "clusters/ami" in r for r in epochs)


@pytest.mark.parametrize(("step", "workers"), [(2, 0), (7, 0), (13, 2), (15, 0)])
def test_killed_at_a_step(images: Path, whole: Path, tmp_path: Path, step: int, workers: int) -> None:
    out = tmp_path / "run"

    def work() -> None:
        runs.signal_after(step, signal.SIGKILL)
        runs.pretrain(images, out, f"runtime.workers={workers}")

    assert runs.in_child(work) == -signal.SIGKILL
    runs.pretrain(None, out, resume=True, workers=2 - workers)
    check(whole, out)


def test_fp16_goes_on_with_its_loss_scale(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a checkpoint in the middle; the gradient of this network is so large that the scale first comes down."""
    monkeypatch.setattr("ibot_cli.train.loop.LossScale", partial(LossScale, initial=2.0**7))
    whole, out = tmp_path / "whole", tmp_path / "run"
    runs.pretrain(
        images, whole, "runtime.precision=fp16", "train.epochs=1", "train.max_bad_steps=1", "monitor.knn_epochs=0"
    )
    shutil.copytree(whole, out)
    (out / "checkpoints" / "step-00000005.pt").unlink()
    runs.pretrain(None, out, resume=True)
    records = [r for r in runs.metrics(out) if "lr" in r]
    skipped = [r["loss_scale"] for r in records if r["skipped"]]
    assert skipped == [2.0 ** (7 - number) for number in range(len(skipped))] and 0 < len(skipped) < len(records) == 5
    assert all(r["overflow"] == r["skipped"] for r in records)
    assert records == [r for r in runs.metrics(whole) if "lr" in r]
    runs.assert_same(runs.final_state(out), runs.final_state(whole))


@pytest.mark.parametrize("count", [1, 3])
def test_killed_between_write_and_rename(images: Path, whole: Path, tmp_path: Path, count: int) -> None:
    out = tmp_path / "run"

    def work() -> None:
        runs.kill_before_rename(count)
        runs.pretrain(images, out)

    assert runs.in_child(work) == -signal.SIGKILL
    assert [p.name for p in (out / "checkpoints").iterdir() if p.suffix != ".pt"] != []
    runs.pretrain(None, out, resume=True)
    assert {p.suffix for p in (out / "checkpoints").iterdir()} == {".pt"}
    check(whole, out)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_and_tells_how_to_go_on(images: Path, whole: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "run"

    def work() -> None:
        from ibot_cli.train.interrupt import Interrupted

        runs.signal_after(11, number)
        try:
            runs.pretrain(images, out)
        except Interrupted as error:
            assert "after step 11" in error.message
            assert error.hint == f"Continue with: ibot pretrain --out {out} --resume"
            raise SystemExit(error.exit_code) from None

    assert runs.in_child(work) == code
    assert runs.final_state(out)["step"] == 11
    command = ("ibot", "pretrain", "--out", str(out), "--resume")
    runs.pretrain(None, out, resume=True, arguments=command)
    check(whole, out)
    assert runs.resumes(out) == [(11, list(command))]


def test_killed_twice(images: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def first() -> None:
        runs.signal_after(8, signal.SIGKILL)
        runs.pretrain(images, out, "runtime.workers=2")

    def second() -> None:
        runs.signal_after(17, signal.SIGKILL)
        runs.pretrain(None, out, resume=True)

    assert runs.in_child(first) == runs.in_child(second) == -signal.SIGKILL
    runs.pretrain(None, out, resume=True)
    check(whole, out)
    assert [step for step, _ in runs.resumes(out)] == [6, 15]


def test_unreadable_last_checkpoint_falls_back(images: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def work() -> None:
        runs.signal_after(14, signal.SIGKILL)
        runs.pretrain(images, out)

    assert runs.in_child(work) == -signal.SIGKILL
    newest = sorted((out / "checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    from ibot_cli.train.launch import Request, prepare

    prepared = prepare(Request(out=out, resume=True))
    assert any(newest.name in text and "instead" in text for text in prepared.plan.warnings)
    runs.pretrain(None, out, resume=True)
    check(whole, out)


def test_resuming_a_complete_run_changes_nothing(whole: Path) -> None:
    before = runs.metrics(whole)
    runs.pretrain(None, whole, resume=True)
    assert runs.metrics(whole) == before
    assert runs.resumes(whole) == []


def test_refusals(images: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"optim\.lr: 0\.01 in the run, 0\.1 asked for"):
        runs.pretrain(None, whole, "optim.lr=0.1", resume=True)
    with pytest.raises(RunError, match="already holds a run"):
        runs.pretrain(images, whole)
    with pytest.raises(RunError, match="does not exist"):
        runs.pretrain(None, tmp_path / "nothing", resume=True)
    from ibot_cli.train.launch import Request, prepare

    with pytest.raises(UsageError, match="--resume needs the run directory"):
        prepare(Request(resume=True))
    fewer = runs.make_images(tmp_path / "fewer", per_class=10)
    with pytest.raises(DataError, match="saw 42 images"):
        runs.pretrain(fewer, whole, resume=True)
