"""How the figures of `ibot bench` look."""

from __future__ import annotations

import pytest

from ibot_cli.bench_view import HEADINGS, markdown_row, show_bench, show_row
from ibot_cli.train.bench.result import BenchResult, Spread

RESULT = BenchResult(
    name="ibot_vits16", data="photos", device="cuda", device_name="A GPU", precision="bf16", compiled=True,
    checkpointing="blocks", processes=2, threads=1, workers=3, batch_size=256, micro_batch_size=32, micro_batches=4,
    step_seconds=Spread(median=0.5, low=0.41, high=0.6), images_per_second=Spread(median=512.0, low=400.0, high=600.0),
    peak_gib=10.25, estimated_gib=11.0, gflop=40_000.0, gflops=80_000.0, peak_gflops=160_000.0, gemm_share=0.5,
    loader_images_per_second=Spread(median=1000.0, low=900.0, high=1100.0), wait_share=0.015, seconds=[0.5] * 4,
    parameters={"backbone": 21_600_000, "head": 7_400_000}, versions={"ibot": "1", "python": "3", "torch": "2"},
    config={"model.arch": "vit_small"},
)  # fmt: skip


def test_the_row_has_a_cell_for_each_heading(capsys: pytest.CaptureFixture[str]) -> None:
    row = markdown_row(RESULT)
    assert row == (
        "| ibot_vits16 | photos | 2 x A GPU | bf16, compiled, checkpointing, 1 thread | 256 images = 2 x 4 x 32 | 0.5 "
        "| 512 | 80,000 | 0.50 | 10.25 | ibot 1, torch 2 |"
    )
    assert row.count("|") == len(HEADINGS) + 1
    show_row(RESULT)
    out, err = capsys.readouterr()
    assert out == row + "\n"  # alone, to be appended to a file
    assert err.startswith("| recipe | data |") and all(line.count("|") == row.count("|") for line in err.splitlines())


def test_the_table_says_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    show_bench(RESULT)
    out = capsys.readouterr().out
    for text in (
        "ibot_vits16: vit_small, backbone 21.60 M, head 7.40 M parameters",
        "bf16, compiled, checkpointing, 2 processes, 1 thread, 3 loader processes",
        "0.5 s (0.41 to 0.6 in the middle half of 4 steps)",
        "512 images/s (400 to 600 in the middle half)",
        "50.0% of 160,000 GFLOP/s",
        "10.25 GiB",
        "1,000 images/s (900 to 1,100 in the middle half)",
        "1.5% of the time for images",
    ):
        assert text in out
