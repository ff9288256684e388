"""What the end-to-end benchmark makes of known times, and that both sides get the same images in the same shapes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import end_to_end
from benchmarks.loader import make_images

LOG = {
    "reference_fp32": [(4.0, 0.4), (9.0, 0.9), (4.0, 2.0)],
    "ours_fp32": [(2.0, 0.2), (3.0, 0.0), (4.0, 1.0)],
    "ours_bf16": [(1.0, 0.5), (1.0, 0.5), (1.0, 0.1)],
}


def test_ratios_are_medians_over_the_rounds():
    found = end_to_end.figures(LOG, images=8)
    assert (found["ratio_fp32"], found["ratio_bf16"], found["ratio_bf16_over_reference_fp16"]) == (2.0, 4.0, None)
    assert found["images_per_second"]["ours_bf16"] == 8.0
    assert found["wait_share"] == pytest.approx({"reference_fp32": 0.1, "ours_fp32": 0.1, "ours_bf16": 0.5})


def test_the_first_step_of_a_round_does_not_count(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 100.0, 101.0, 103.0, 110.0, 114.0, 120.0])
    monkeypatch.setattr(end_to_end.time, "perf_counter", lambda: next(clock))
    seen: list[int] = []

    def data(count: int) -> Any:
        yield from range(count)

    # asked at 0; begun at 100, waited from 101 to 103 and from 110 to 114, done at 120
    assert end_to_end.one_round((data, seen.append), 2, torch.device("cpu")) == (10.0, 3.0)
    assert seen == [0, 1, 2]


def test_the_reference_trains_on_views_of_the_published_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    monkeypatch.setattr(end_to_end, "their_step", lambda device, half: seen.append)
    paths = make_images(tmp_path / "images", 2)
    args = argparse.Namespace(device="cpu", batch=2, workers=0)
    data, update = end_to_end.reference(paths, args)
    (step,) = data(1)
    update(step)
    (batch,) = seen
    assert batch.global_views.shape == (2, 2, 3, 224, 224) and batch.local_views.shape == (10, 2, 3, 96, 96)
    assert batch.mask.shape == (2, 2, 196) and len(batch.mask_index) == int(batch.mask.sum())
    second = end_to_end.Published(paths)[1][1]  # the masks stay with their image
    assert torch.equal(batch.mask[:, 1], second)
