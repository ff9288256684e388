"""A fine-tuning that was killed and resumed ends exactly like one that was not."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from ibot_cli.errors import DataError, RunError, UsageError
from ibot_cli.runs import checkpoint
from ibot_cli.train.finetune.prepare import prepare
from ibot_cli.train.interrupt import Interrupted
from tests.train import runs
from tests.train.finetune import tuned

STEPS = 3 * 4  # 33 of 42 images in batches of 8, three epochs


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned.make_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned.pretrained(tmp_path_factory.mktemp("weights") / "pretrained")


@pytest.fixture(scope="module")
def whole(images: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    tuned.finetune(weights, images, out)
    return out


def check(whole: Path, out: Path) -> None:
    ours, theirs = runs.final_state(out), runs.final_state(whole)
    assert ours["step"] == STEPS
    for state in (ours, theirs):
        state["config"]["runtime"].pop("workers")
    runs.assert_same(ours, theirs)
    assert runs.metrics(out) == runs.metrics(whole)
    best = [checkpoint.load(run / "checkpoints/best.pt") for run in (out, whole)]
    assert best[0].step == best[1].step == ours["best"]["step"]
    runs.assert_same(best[0].state["model"], best[1].state["model"])


def test_uninterrupted_run_holds_each_step_once(whole: Path) -> None:
    records = runs.metrics(whole)
    assert [r["step"] for r in records if "lr" in r] == list(range(1, STEPS + 1))
    epochs = [r for r in records if "epochs_done" in r]
    assert [r["epochs_done"] for r in epochs] == [1, 2, 3]
    assert all(0 <= r["test/top1_accuracy"] <= 1 and r["train/loss"] > 0 for r in epochs)


@pytest.mark.parametrize(
    ("step", "workers"),
    [pytest.param(2, 0, marks=pytest.mark.slow), (6, 2), pytest.param(8, 0, marks=pytest.mark.slow)],
)
def test_killed_at_a_step(images: Path, weights: Path, whole: Path, tmp_path: Path, step: int, workers: int) -> None:
    out = tmp_path / "run"

    def work() -> None:
        tuned.signal_after(step, signal.SIGKILL)
        tuned.finetune(weights, images, out, f"runtime.workers={workers}")

    assert runs.in_child(work) == -signal.SIGKILL
    tuned.resume(out, workers=2 - workers)
    check(whole, out)


@pytest.mark.parametrize("count", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_between_write_and_rename(images: Path, weights: Path, whole: Path, tmp_path: Path, count: int) -> None:
    """The first file is the best weights, the second the checkpoint of the same epoch."""
    out = tmp_path / "run"

    def work() -> None:
        runs.kill_before_rename(count)
        tuned.finetune(weights, images, out)

    assert runs.in_child(work) == -signal.SIGKILL
    assert [p.name for p in (out / "checkpoints").iterdir() if p.suffix != ".pt"] != []
    tuned.resume(out)
    assert {p.suffix for p in (out / "checkpoints").iterdir()} == {".pt"}
    check(whole, out)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_and_tells_how_to_go_on(
    images: Path, weights: Path, whole: Path, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "run"

    def work() -> None:
        tuned.signal_after(7, number)
        try:
            tuned.finetune(weights, images, out)
        except Interrupted as error:
            assert "after step 7" in error.message
            assert error.hint == f"Continue with: ibot finetune --out {out} --resume"
            raise SystemExit(error.exit_code) from None

    assert runs.in_child(work) == code
    assert runs.final_state(out)["step"] == 7
    tuned.resume(out)
    check(whole, out)
    assert [step for step, _ in runs.resumes(out)] == [7]


@pytest.mark.slow
def test_unreadable_last_checkpoint_falls_back(images: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def work() -> None:
        tuned.signal_after(10, signal.SIGKILL)
        tuned.finetune(weights, images, out)

    assert runs.in_child(work) == -signal.SIGKILL
    newest = sorted((out / "checkpoints").glob("step-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    warnings = prepare(tuned.request(None, None, out, resume=True)).plan.warnings
    assert any(newest.name in text and "instead" in text for text in warnings)
    tuned.resume(out)
    check(whole, out)


def test_resuming_a_complete_run_trains_and_records_nothing(whole: Path) -> None:
    before, recorded = runs.metrics(whole), (whole / "evaluations.jsonl").read_bytes()
    result = tuned.resume(whole)
    assert result.first_step == result.steps == STEPS and runs.resumes(whole) == []
    assert runs.metrics(whole) == before and (whole / "evaluations.jsonl").read_bytes() == recorded
    assert result.top1 == json.loads(recorded)["result"]["top1"]


def test_weights_may_be_named_again_and_must_be_the_same(
    images: Path, weights: Path, whole: Path, tmp_path: Path
) -> None:
    prepare(tuned.request(weights, images, whole, resume=True))
    deeper = tuned.pretrained(tmp_path / "deeper", depth=3)
    with pytest.raises(RunError, match=r"has another architecture than the weights .* depth=3, .* not .*depth=2"):
        prepare(tuned.request(deeper, None, whole, resume=True))
    other = tuned.pretrained(tmp_path / "other", seed=5)
    with pytest.raises(RunError, match="holds other weights than those") as caught:
        prepare(tuned.request(other, None, whole, resume=True))
    assert "Leave WEIGHTS out" in str(caught.value.hint)


def test_refusals(images: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"optim\.lr: 0\.01 in the run, 0\.1 asked for"):
        tuned.resume(whole, "optim.lr=0.1")
    with pytest.raises(RunError, match=r"labels\.per_class: None in the run, 3 asked for"):
        tuned.resume(whole, labels_per_class=3)
    with pytest.raises(RunError, match="already holds a run"):
        tuned.finetune(weights, images, whole)
    with pytest.raises(RunError, match="does not exist"):
        tuned.resume(tmp_path / "nothing")
    with pytest.raises(UsageError, match="--resume needs the run directory"):
        prepare(tuned.FinetuneRequest(resume=True))
    with pytest.raises(RunError, match=r"is a run of `ibot pretrain`, not of `ibot finetune`") as caught:
        tuned.resume(weights)
    assert caught.value.hint == f"Continue it with: ibot pretrain --out {weights} --resume"
    fewer = tuned.make_images(tmp_path / "fewer", per_class=10)
    with pytest.raises(DataError, match="The run trains on 33 images; the data give 24"):
        tuned.finetune(None, fewer, whole, resume=True)
    renamed = Path(shutil.copytree(images, tmp_path / "renamed"))
    (renamed / "class0").rename(renamed / "another")
    with pytest.raises(DataError, match="The run learns the classes class0, class1, class2; the data have another"):
        tuned.finetune(None, renamed, whole, resume=True)


def test_pretrain_does_not_resume_a_fine_tuning(whole: Path) -> None:
    with pytest.raises(RunError, match="is a run of `ibot finetune`, not of `ibot pretrain`"):
        runs.pretrain(None, whole, resume=True)


def test_a_run_without_a_checkpoint_starts_from_its_weights(
    images: Path, weights: Path, whole: Path, tmp_path: Path
) -> None:
    tuned.finetune(weights, images, tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").iterdir():
        path.unlink()
    prepared = prepare(tuned.request(None, None, tmp_path / "run", resume=True))
    assert "The run has no checkpoint yet; it starts from the beginning." in prepared.plan.warnings
    assert tuned.resume(tmp_path / "run").first_step == 0
    check(whole, tmp_path / "run")
