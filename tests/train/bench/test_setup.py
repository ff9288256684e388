"""What is timed: the plan of a run, cut to a batch that this machine can do in some seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibot_cli.config.load import flatten
from ibot_cli.errors import DataError, UsageError
from ibot_cli.train.bench import setup
from ibot_cli.train.bench.setup import prepare_bench
from ibot_cli.train.launch import prepare
from ibot_cli.train.request import Request
from tests.train import runs

OPEN = [text for text in runs.SMALL if not text.startswith(("train.batch_size", "train.micro_batch_size"))]


def test_without_data_the_views_are_noise_of_the_recipes_size() -> None:
    bench = prepare_bench(Request(sets=[*runs.SMALL, "data.bits=16", "data.channels=5", "views.local_size=8"]))
    assert bench.synthetic and bench.name == "ibot_vits16"
    assert bench.plan.config.runtime.workers == 0
    levels = bench.source.levels(3)
    assert levels.shape == (16, 16, 5) and levels.dtype == "uint16"
    assert (levels == bench.source.levels(3)).all() and (levels != bench.source.levels(4)).any()
    assert len(bench.plan.config.data.mean) == 5  # measured, as a run would


def test_workers_without_images_are_refused() -> None:
    with pytest.raises(UsageError, match="--workers is for the loader, and without DATA nothing is loaded"):
        prepare_bench(Request(sets=runs.SMALL, workers=2))


def test_a_batch_that_was_asked_for_stands() -> None:
    assert prepare_bench(Request(sets=runs.SMALL)).plan.schedule.batch_size == 8
    assert prepare_bench(Request(sets=runs.SMALL), 12).plan.schedule.batch_size == 12
    plan = prepare_bench(Request(sets=OPEN), 12).plan
    assert (plan.schedule.batch_size, plan.micro_batches) == (12, 1)


def test_else_it_is_what_takes_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(rate: float) -> int:
        monkeypatch.setattr(setup, "CORE_FLOPS", {"fp32": rate})
        return prepare_bench(Request(sets=OPEN)).plan.schedule.batch_size

    flops = setup.count_operations(prepare_bench(Request(sets=runs.SMALL)).plan.config, 1, 0).total
    assert [found(flops / setup.STEP_SECONDS * images) for images in (0.5, 5.0)] == [1, 4]
    assert found(1e20) == 1024  # the recipe's, and no more


def test_with_data_it_is_the_plan_of_the_run(tmp_path: Path) -> None:
    request = Request(data=str(runs.make_images(tmp_path / "images")), preset="ibot_vits16", sets=runs.SMALL)
    bench, run = prepare_bench(request), prepare(request)
    assert not bench.synthetic and len(bench.source) == 42
    ours, theirs = flatten(bench.plan.config), flatten(run.plan.config)
    assert {path for path in ours if ours[path] != theirs[path]} == {"monitor.knn_epochs"}
    assert bench.plan.schedule == run.plan.schedule


def test_no_more_images_than_there_are(tmp_path: Path) -> None:
    images = str(runs.make_images(tmp_path / "images", per_class=1))
    assert prepare_bench(Request(data=images, preset="ibot_vits16", sets=OPEN)).plan.schedule.batch_size <= 3
    with pytest.raises(DataError, match="3 images do not fill a batch of 8"):
        prepare_bench(Request(data=images, preset="ibot_vits16", sets=runs.SMALL))


def test_a_file_names_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {batch_size: 6}\n")
    bench = prepare_bench(Request(config=file, sets=OPEN))
    assert (bench.name, bench.plan.schedule.batch_size) == (str(file), 6)
