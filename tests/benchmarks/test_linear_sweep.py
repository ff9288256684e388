"""What the benchmark of the linear sweep compares and reports; nothing is timed here."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from benchmarks import linear_sweep

CPU = torch.device("cpu")


def pretend(work: Callable[[], object], device: torch.device) -> float:
    """A step of all heads takes 1/4 s, a plain one 1/20 s."""
    return linear_sweep.STEPS / 4 if "together" in getattr(work, "__qualname__", "") else linear_sweep.ALONE_STEPS / 20


def test_the_last_line_is_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(linear_sweep, "seconds_of", pretend)
    monkeypatch.setattr(linear_sweep, "SIZES", ((8, 3), (4, 2)))
    monkeypatch.setattr(linear_sweep, "ROWS", 8192)
    linear_sweep.main(["--rounds", "2", "--device", "cpu", "--no-augmented", "--threads", str(torch.get_num_threads())])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["cached_sweep_speedup"] == pytest.approx(45 * 4 / 20)
    assert (found["dim"], found["classes"], found["heads"], found["batch"]) == (8, 3, 45, 128)
    assert [(size["dim"], size["classes"]) for size in found["cached"]] == [(8, 3), (4, 2)]
    assert found["cached"][0]["milliseconds_per_step_of_all_heads"]["sweep_fp32"] == pytest.approx(250)
    assert found["cached"][0]["milliseconds_per_step_of_all_heads"]["plain_fp32"] == pytest.approx(45 * 50)


def test_ratios_are_medians_over_rounds() -> None:
    log = {"a": [2.0, 30.0, 4.0], "b": [1.0, 1.0, 1.0]}
    assert linear_sweep.ratio(log, "a", "b") == 4.0
    assert linear_sweep.ratio(log, "a", "c") is None


def test_both_sides_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_sweep, "ROWS", 8192)
    cached = linear_sweep.Cached(4, 3, CPU)
    bank = linear_sweep.make_bank(linear_sweep.head_grid(), 4, 3, CPU, bf16=False)
    before = bank.weights()[0].clone()
    monkeypatch.setattr(linear_sweep, "make_bank", lambda *args: bank)
    cached.together(False)()
    assert not torch.equal(before, bank.weights()[0])
    heads: list[torch.nn.Linear] = []

    class Noted(torch.nn.Linear):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            heads.append(self)

    monkeypatch.setattr(linear_sweep.nn, "Linear", Noted)
    work = cached.alone(False, fused=False)
    start = heads[0].weight.detach().clone()
    work()
    assert not torch.equal(start, heads[0].weight)


def test_the_augmented_window_passes_every_batch_through_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def parts(backbone: object, images: torch.Tensor, names: object) -> dict[str, torch.Tensor]:
        passes.append(len(images))
        return {"cls@1": torch.ones(len(images), 2)}

    monkeypatch.setattr(linear_sweep, "compute_parts", parts)
    monkeypatch.setattr(linear_sweep, "parts_of", lambda *args: ["cls@1"])
    bank = linear_sweep.make_bank(linear_sweep.head_grid([0.1]), 2, 3, CPU, bf16=True)
    images, labels = torch.zeros(linear_sweep.BATCH, 1), torch.zeros(3 * linear_sweep.BATCH, dtype=torch.int64)
    linear_sweep.augmented_window(torch.nn.Identity(), bank, images, labels, "fp32")
    assert passes == [linear_sweep.BATCH] * 3
