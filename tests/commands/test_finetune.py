"""`ibot finetune` as people type it: real files, real small runs, what the screen says and how it exits."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.commands.conftest import Ibot
from tests.commands.test_pretrain import everything
from tests.evaluate.images import write_folder
from tests.train.finetune import tuned

QUICK = [word for setting in [*tuned.SMALL, "train.holdout_ratio=0"] for word in ("--set", setting)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working directory with weights and images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tuned.pretrained(tmp_path / "pretrained")
    tuned.make_images(tmp_path / "images")
    return tmp_path


def test_from_weights_to_predictions(ibot: Ibot, here: Path) -> None:
    done = ibot("finetune", "pretrained", "images", "--out", "run", *QUICK, "--labels-per-class", "5")
    assert (done.code, done.out) == (0, "")
    for text in (
        "teacher of pretrained/checkpoints/step-00000012.pt, step 12",
        "new: the norm of the mean of the patches, in place of the final norm",
        "15 of 33 training images, 3 classes",
        "0.01, falling by 0.8 per layer to 0.0051",
        "finetune_small 33 training images are fewer than 50,000",
        "epoch 3: loss ",
        "fine-tuned, last step",
        "fine-tuned, best on test, as published, optimistic (epoch ",
        "raw pixels 32 x 32, k-NN, k = ",
        "same training images",
        "95 % interval",
        "(9 test images). 15 of 33 labels.",
        "Recorded in run/evaluations.jsonl and ",
        "Next: ibot predict run IMAGES",
    ):
        assert text in done.words, text
    assert "from random weights" not in done.words
    predicted = ibot("predict", "run", "images")
    rows = list(csv.DictReader(io.StringIO(predicted.out)))
    assert (
        predicted.code == 0
        and len(rows) == 42
        and {row["prediction"] for row in rows} <= {"class0", "class1", "class2"}
    )


def test_what_the_other_commands_take(ibot: Ibot, here: Path) -> None:
    assert ibot("finetune", "pretrained", "images", "--out", "run", *QUICK, "--no-baselines").code == 0
    for weights in ("run", "run/checkpoints/best.pt"):
        done = ibot("knn-eval", weights, "images", "--json", "--device", "cpu", "--no-baselines")
        assert done.code == 0 and json.loads(done.out)["num_classes"] == 3, done.err
    again = ibot("finetune", "run", "images", "--out", "again", "--dry-run", *QUICK)
    assert again.code == 0 and "kept: the classifier of 3 classes, which has the same names" in again.words
    write_folder(here / "other", {"cat": 5, "dog": 5})
    other = ibot("finetune", "run", "other", "--out", "again", "--dry-run", *QUICK)
    assert "replaced: the classifier of 2 classes; the weights had 3 other classes" in other.words


def test_json_and_the_comparison_with_random_weights(ibot: Ibot, here: Path) -> None:
    scratch = ibot("finetune", "pretrained", "images", "--out", "scratch", *QUICK, "--from-scratch", "--json")
    assert scratch.code == 0 and "all weights are random, seed 0" in scratch.err
    assert any("raise train.epochs to be fair to them" in note for note in json.loads(scratch.out)["notes"])
    found = json.loads(scratch.out)
    assert found["from_scratch"] and 0 <= found["top1_low"] <= found["top1"] <= found["top1_high"] <= 1
    assert found["best"]["chosen_on"] == "test images" and found["run"] == "scratch"
    done = ibot("finetune", "pretrained", "images", "--out", "run", *QUICK)
    assert f"from random weights, same labels, best recorded (scratch) {found['top1']:.2%}" in done.words


def test_a_dry_run_computes_and_writes_nothing(ibot: Ibot, here: Path) -> None:
    before = everything(here)
    done = ibot("finetune", "pretrained", "images", "--out", "run", *QUICK, "--dry-run")
    assert done.code == 0 and everything(here) == before
    assert "GiB at the peak" in done.out and "Dry run: nothing was computed" in done.err
    assert "optim.lr 0.01 --set" in done.words
    record = json.loads(ibot("finetune", "pretrained", "images", *QUICK, "--dry-run", "--json").out)
    assert (record["num_train"], record["num_test"], record["steps"]) == (33, 9, 12)
    assert record["classes"] == ["class0", "class1", "class2"] and record["memory"]["peak"] > 0
    assert record["out"].startswith("runs/finetune_small-")
    assert everything(here) == before


def test_resume_from_another_folder(ibot: Ibot, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ibot("finetune", "pretrained", "images", "--out", "run", *QUICK).code == 0
    newest = sorted((here / "run/checkpoints").glob("step-*.pt"))[-1]
    newest.unlink()
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    done = ibot("finetune", "--out", "../run", "--resume")
    assert done.code == 0 and "resumed after step 8 of 12" in done.words
    assert newest.is_file()
    complete = ibot("finetune", "--out", "../run", "--resume")
    assert "Nothing left to train: the run is complete (12 steps)." in complete.words
    assert "Recorded in" not in complete.words


FINE = ("finetune", "pretrained", "images", "--out", "run")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("finetune",), 2, "error: WEIGHTS is missing."),
        (("finetune", "pretrained"), 2, "error: DATA is missing."),
        (
            (*FINE, "--label-fraction", "0.1", "--labels-per-class", "3"), 2,
            "error: --label-fraction and --labels-per-class both say how many labels are used.",
        ),
        ((*FINE, "--labels-per-class", "99"), 1, "has 11 images, fewer than labels.per_class = 99"),
        ((*FINE, "--labels-per-class", "0"), 2, "labels.per_class = 0 (--labels-per-class): must be a whole number"),
        ((*FINE, "--label-fraction", "1.5"), 2, "labels.fraction = 1.5 (--label-fraction): must be a number > 0"),
        (("finetune", "pretrained", "images/class0", "--out", "run"), 1, "has no labels"),
        (("finetune", "pretrained", "one", "--out", "run"), 1, "has no labels"),
        (("finetune", "nothing", "images", "--out", "run"), 1, "error: nothing does not exist."),
        (("finetune", "pretrained", "nowhere", "--out", "run"), 1, "error: There is no folder or file nowhere."),
        (("finetune", "pretrained", "images", "--out", "pretrained"), 1, "error: pretrained already holds a run."),
        (("finetune", "pretrained", "images", "--out", "images"), 1, "error: images is not empty and is not a run."),
        (("finetune", "--resume"), 2, "error: --resume needs the run directory."),
        (("finetune", "--resume", "--out", "pretrained"), 1, "is a run of `ibot pretrain`, not of `ibot finetune`."),
        ((*FINE, "--preset", "finetune_tiny"), 2, "there is no preset of this name"),
        ((*FINE, "--set", "optim.lrr=1"), 2, "did you mean optim.lr?"),
        ((*FINE, "--heads", "0"), 2, "Invalid value for '--heads'"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_said_before_anything_is_written(
    ibot: Ibot, here: Path, args: tuple[str, ...], code: int, message: str
) -> None:
    write_folder(here / "one", {"a": 4})
    before = everything(here)
    done = ibot(*args)
    assert done.code == code and message in " ".join(done.err.split()), done.err
    assert done.out == "" and everything(here) == before
