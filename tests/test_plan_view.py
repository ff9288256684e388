"""How a plan and a result read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ibot_cli.errors import DataError
from ibot_cli.plan_view import plan_record, show_plan, show_result
from ibot_cli.train.launch import Prepared, PretrainResult, prepare
from ibot_cli.train.request import Request
from tests.train import runs

RESULT = PretrainResult(
    run=Path("runs/a"), data="photos", num_classes=None, first_step=0, steps=1, epochs=1, seconds=61.0,
    knn_accuracy=None, bad_files=0, peak_memory_gib=1.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    images = runs.make_images(tmp_path_factory.mktemp("data") / "images", per_class=6)
    return prepare(Request(data=str(images), preset="ibot_vits16", sets=runs.SMALL, out=Path("runs/a")))


def test_the_plan_of_a_run_goes_to_stderr(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(prepared, full=False)
    out, err = capsys.readouterr()
    text = " ".join(err.split())
    assert out == ""
    assert "18 images, 3 classes." in text and "4 epochs x 2 steps = 8 steps" in text
    assert "8 images = 2 forward passes x 4 images" in text
    assert "run directory runs/a" in text
    assert "memory" not in text and "Dry run" not in text and "ibot_vits16" not in text


def test_what_weights_decide_is_counted_and_a_dry_run_lists_it(
    prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {f"model.{name}": (value, "taken") for name, value in (("width", 24), ("depth", 2), ("heads", 3))}
    two = {f"data.{name}": (value, "taken") for name, value in (("mean", (0.5,)), ("std", (0.25,)))}
    plan = replace(prepared.plan, choices={**own, "model.arch": ("vit_tiny", "small"), **two})
    show_plan(replace(prepared, plan=plan), full=False)
    lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    assert {"model.* 3 settings taken", "model.arch vit_tiny small", "data.mean [0.5] taken"} <= set(lines)
    assert not any("model.width" in line for line in lines)
    show_plan(replace(prepared, plan=plan), full=True)
    out = capsys.readouterr().out
    assert all(path in out for path in plan.choices) and "3 settings" not in out


def test_a_refusal_is_told_in_a_dry_run(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    refused = replace(prepared, refusal=DataError("12 of 26 files cannot be read:\n  a", "Repair them."))
    expected = "This run would stop at once: 12 of 26 files cannot be read. Repair them."
    assert plan_record(refused)["warnings"][-1] == expected
    show_plan(refused, full=True)
    assert f"warning: {expected}\n" in capsys.readouterr().err
    show_plan(refused, full=False)  # the run itself ends with the whole error
    assert "would stop" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {},
            [
                "Done: 1 epoch, 1 step, 1:01 minutes, peak memory 1.50 GiB.",
                "Next: ibot knn-eval runs/a FOLDER, where FOLDER holds a sub-folder of images for each class.",
            ],
        ),
        (
            {"steps": 2000, "epochs": 3, "seconds": 7261.0, "knn_accuracy": 0.5, "num_classes": 2, "bad_files": 1},
            [
                "Done: 3 epochs, 2,000 steps, 2:01:01 hours, peak memory 1.50 GiB, "
                "k-NN 0.500 on held-out training images.",
                "warning: 1 unreadable file was replaced; see runs/a/bad_files.json.",
                "Next: ibot knn-eval runs/a photos",
            ],
        ),
        (
            {"steps": 9, "first_step": 4, "num_classes": 2, "data": "my photos"},
            [
                "Done: 1 epoch, 9 steps, 1:01 minutes since step 4, peak memory 1.50 GiB.",
                "Next: ibot knn-eval runs/a 'my photos'",
            ],
        ),
        (
            {"first_step": 1, "num_classes": 2},
            [
                "Nothing left to do: the run is complete (1 epoch, 1 step).",
                "Next: ibot knn-eval runs/a photos",
            ],
        ),
    ],
    ids=["short", "long", "resumed", "complete"],
)
def test_results(changes: dict[str, object], lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    show_result(replace(RESULT, **changes))  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "\n".join(lines) + "\n")
