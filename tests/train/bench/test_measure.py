"""The steps that are timed are those of a run; the times themselves are not looked at."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ibot_cli import console, distributed
from ibot_cli.errors import TrainingError
from ibot_cli.train.bench import measure as module
from ibot_cli.train.bench.measure import measure
from ibot_cli.train.bench.operations import Product, count_operations
from ibot_cli.train.bench.peak import gemm_rate
from ibot_cli.train.bench.result import Spread, result_of
from ibot_cli.train.bench.setup import Bench, prepare_bench
from ibot_cli.train.loop import Loop
from ibot_cli.train.out_of_memory import Rehearsals
from ibot_cli.train.reporter import Silent
from ibot_cli.train.request import Request
from tests.train import runs


@pytest.fixture(autouse=True)
def no_long_products(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "gemm_rate", lambda products, dtype, device: 1e9)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def synthetic() -> Bench:
    return prepare_bench(Request(sets=[*runs.SMALL, "mask.ratio=0.5", "mask.ratio_var=0", "mask.kind=random"]))


def test_synthetic_views_go_through_the_updates_of_a_run(
    synthetic: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    original = Loop.update

    def update(self: Loop, data: Any) -> None:
        seen.append((self.step, data.micro[0].global_views))
        original(self, data)

    monkeypatch.setattr(Loop, "update", update)
    state = torch.get_rng_state()
    timings = measure(synthetic, steps=3, warmup=1, reporter=Silent())
    assert torch.equal(torch.get_rng_state(), state)
    assert [step for step, _ in seen] == [2, 3, 4, 5]  # from the middle of 4 epochs of one step
    assert torch.equal(seen[0][1], seen[2][1]) and not torch.equal(seen[0][1], seen[1][1])
    assert (len(timings.seconds), len(timings.waited), timings.loading) == (3, 3, None)
    assert min(timings.seconds) > 0 and timings.peak_bytes > 0
    # two micro-batches of 4 images, 2 views of 16 patches each, half of which are masked
    assert timings.operations == 2 * count_operations(synthetic.plan.config, 4, 4 * 2 * 8).total
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "world", "compiled", "expected"), [(1, 1, False, 1), (1, 2, False, 2), (1, 1, True, 2), (5, 2, True, 5)]
)
def test_steps_that_are_tried_or_compiled_first_do_not_count(
    asked: int, world: int, compiled: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "world", lambda: world)
    loop: Any = SimpleNamespace(
        rehearsals=Rehearsals(torch.device("cpu")), compilation=SimpleNamespace(active=compiled)
    )
    assert module.warmup_of(loop, asked) == expected


def test_real_images_are_loaded_by_themselves_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = runs.make_images(tmp_path / "images")
    bench = prepare_bench(Request(data=str(images), preset="ibot_vits16", sets=runs.SMALL))
    timings = measure(bench, steps=2, warmup=1, reporter=Silent())
    assert timings.loading is not None and len(timings.loading) == len(timings.seconds) == 2
    assert all(0 < waited <= seconds for waited, seconds in zip(timings.waited, timings.seconds, strict=True))
    result = result_of(bench, timings)
    assert result.loader_images_per_second is not None
    assert result.wait_share == pytest.approx(sum(timings.waited) / sum(timings.seconds))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: not enough")])
def test_too_little_memory_is_an_error_with_a_way_out(
    synthetic: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def update(self: Loop, data: Any) -> None:
        raise error

    monkeypatch.setattr(Loop, "update", update)
    with pytest.raises(TrainingError) as caught:
        measure(synthetic, steps=1, warmup=1, reporter=Silent())
    assert caught.value.message == "A step of ibot_vits16 with 4 images at once does not fit into the memory of cpu."
    assert caught.value.hint == (
        "Lower --batch-size (it is 8) or set train.micro_batch_size or runtime.checkpointing=blocks."
    )


def test_another_failure_is_passed_on(synthetic: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def update(self: Loop, data: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(Loop, "update", update)
    with pytest.raises(RuntimeError, match="something else"):
        measure(synthetic, steps=1, warmup=1, reporter=Silent())


def test_the_figures_follow_from_the_times(synthetic: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    timings = module.Timings(
        seconds=[1.0, 2.0, 4.0], waited=[0.0] * 3, loading=None, peak_bytes=3 << 29, operations=8 * 10**9,
        peak_rate=16e9,
    )  # fmt: skip
    result = result_of(synthetic, timings)
    assert result.step_seconds == Spread(median=2.0, low=1.5, high=3.0)
    assert result.images_per_second.median == 4.0
    assert (result.gflop, result.gflops, result.peak_gflops, result.gemm_share) == (8.0, 4.0, 16.0, 0.25)
    assert (result.peak_gib, result.batch_size, result.micro_batches, result.wait_share) == (1.5, 8, 2, None)
    console.emit_json(result)
    assert json.loads(capsys.readouterr().out)["config"]["model.width"] == 16
    assert Spread.of([3.0]) == Spread(median=3.0, low=3.0, high=3.0)
    assert replace(result, name="x").name == "x" and asdict(result)["threads"] == 1


def test_the_peak_is_the_rate_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    from ibot_cli.train.bench import peak

    monkeypatch.setattr(peak, "seconds_of", lambda work, device: (work(), 0.5)[1])
    products = [Product(2, 3, 4), Product(8, 4, 2)]
    # one call takes half a second, so that two fill a second
    assert gemm_rate(products, torch.bfloat16, torch.device("cpu"), seconds=1.0) == 2 * (2 * 8 * 4 * 2) / 0.5
