from dataclasses import replace

import pytest

from ibot_cli.evaluate.knn.confusion import ClassAccuracy, Confused
from ibot_cli.evaluate.knn.result import CurvePoint, KnnResult, SweepCell
from ibot_cli.evaluate.knn.table import show

CELLS = tuple(
    SweepCell(k=k, temperature=temperature, top1=top1, top5=1.0)
    for temperature, values in ((0.05, (0.5, 0.625)), (0.07, (0.75, 0.25)))
    for k, top1 in zip((10, 20), values, strict=True)
)
RESULT = KnnResult(
    top1=0.25, top1_interval=(0.0712, 0.5907), top5=1.0, mean_per_class=0.3, k=20, temperature=0.07,
    per_k={10: 0.75, 20: 0.25}, sweep=CELLS, best=CELLS[2],
    per_class=(
        ClassAccuracy(name="cat", num_train=1200, num_test=6, correct=3, accuracy=0.5),
        ClassAccuracy(name="cow", num_train=9, num_test=0, correct=0, accuracy=None),
        ClassAccuracy(name="dog", num_train=5, num_test=2, correct=0, accuracy=0.0),
    ),
    confused=(Confused(true="dog", predicted="cat", count=2),),
    num_train=1214, num_test=8, num_classes=3, baseline_random=0.125, baseline_random_per_seed=(0.1, 0.15),
    baseline_pixels=0.5, baseline_num_train=1214, baseline_num_test=8, split="Split.", weights="teacher of runs/a",
    weights_hash="w", data="photos", fingerprint="f", precision="fp32", notes=("A note.",),
)  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str], result: KnnResult, *, per_class: bool = False) -> list[str]:
    show(result, per_class=per_class)
    captured = capsys.readouterr()
    assert captured.out == "" and max(map(len, captured.err.splitlines())) <= 80
    return [" ".join(line.split()) for line in captured.err.splitlines()]


def test_one_temperature(capsys: pytest.CaptureFixture[str]) -> None:
    one = replace(RESULT, sweep=CELLS[2:], best=CELLS[2])
    assert [line for line in shown(capsys, one) if line and "─" not in line] == [
        "k-NN on photos: teacher of runs/a",
        "Features k Top-1",
        "this network 10 75.00%",
        "this network 20 25.00%",
        "random weights, mean of 2 seeds 20 12.50%",
        "raw pixels, 32 x 32 20 50.00%",
        "Top-1 at k = 20, T = 0.07: 25.00% (95% interval 7.1% to 59.1%).",
        "Best: 75.00% at k = 10, T = 0.07; optimistic, as chosen on the test images.",
        "Split. 3 classes.",
        "warning: A note.",
    ]


def test_several_temperatures(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, RESULT)
    assert "Features k T = 0.05 T = 0.07" in lines
    assert "this network 20 62.50% 25.00%" in lines
    assert "raw pixels, 32 x 32 20 50.00%" in lines


def test_without_baselines_and_nothing_better(capsys: pytest.CaptureFixture[str]) -> None:
    words = shown(
        capsys,
        replace(RESULT, baseline_random=None, baseline_random_per_seed=None, baseline_pixels=None, best=CELLS[3]),
    )
    assert not any(line.startswith(("random", "raw", "Best")) for line in words)


def test_curve(capsys: pytest.CaptureFixture[str]) -> None:
    points = tuple(
        CurvePoint(step=step, epoch=step // 100, top1=0.5, per_k={10: 0.5, 20: step / 1e4}, weights_hash="w")
        for step in (900, 2000)
    )
    lines = shown(capsys, replace(RESULT, curve=points))
    start = lines.index("Top-1 over the training, T = 0.07")
    assert lines[start + 1] == "Step Epoch k = 10 k = 20"
    assert lines[start + 3 : start + 5] == ["900 9 50.00% 9.00%", "2,000 20 50.00% 20.00%"]


def test_classes_least_recognised_first_and_confused_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, RESULT, per_class=True)
    start = lines.index("By class, k = 20; the mean over the classes is 30.00%")
    assert lines[start + 3 : start + 6] == [
        "dog 5 2 0.0%",
        "cat 1,200 6 50.0%",
        "cow 9 0 -",
    ]
    assert "dog cat 2" in lines
    assert "No test image was taken for another class." in shown(capsys, replace(RESULT, confused=()), per_class=True)
