"""When training waits for its images: what is said, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ibot_cli.config.schema import RuntimeConfig
from ibot_cli.train import waiting
from ibot_cli.train.waiting import Loading, WaitWatch, crowding

GPU = Loading(
    workers=4, threads=1, cores=16, on_device=True, picture=(500, 375), view_size=224, num_local=10
)  # fmt: skip
CPU = replace(GPU, on_device=False, workers=0, threads=4, cores=4)
LARGE = {"picture": (4000, 3000)}


@pytest.mark.parametrize(
    ("loading", "share", "wanted"),
    [
        (GPU, 0.5, 8),  # twice as many images
        (GPU, 0.9, 15),  # ten times, but one core stays with the main process
        (replace(GPU, workers=0), 0.6, 3),
        (replace(GPU, cores=64, workers=16), 0.5, 32),  # more than a plan takes without being asked
    ],
)
def test_more_workers_where_cores_are_free(loading: Loading, share: float, wanted: int) -> None:
    hint = loading.hint(share, 0.01)
    assert hint is not None and hint.startswith(f"Training waits for images {share:.0%} of the time. ")
    assert hint.endswith(f"stop with Ctrl-C and go on with --resume --workers {wanted}.")
    assert f"and there are {loading.cores} cores" in hint


def test_on_a_cpu_cores_move_from_computing_to_loading() -> None:
    """A sample loads for 30 ms and computes for 10 ms of one core; three workers beside one thread take 10 ms."""
    hint = CPU.hint(0.03 / 0.0325, 0.0325)
    assert hint is not None
    assert "The main process loads them itself" in hint
    assert hint.endswith("--resume --workers 3 --set runtime.threads=1.")


def test_on_a_cpu_that_is_shared_well_nothing_about_workers() -> None:
    """Loading takes 30 % of the time, but the network needs every core."""
    assert replace(CPU, num_local=4).hint(0.3, 1.0) is None


def test_no_workers_for_what_is_loaded_faster_than_handed_over() -> None:
    assert replace(CPU, num_local=4).hint(0.5, 0.0018) is None
    assert replace(CPU, num_local=4).hint(0.5, 0.0022) is not None


def test_large_images_where_no_core_is_free() -> None:
    hint = replace(GPU, workers=15, **LARGE).hint(0.4, 0.01)
    assert hint is not None
    assert "a typical image has 4000 x 3000 pixels" in hint
    assert hint.endswith("ibot data pack DATA OUT --short-side 320 makes copies with 88 times fewer.")
    larger = replace(GPU, workers=15, view_size=384, **LARGE).hint(0.4, 0.01)
    assert larger is not None and "--short-side 576" in larger


def test_fewer_crops_where_nothing_else_is_left() -> None:
    hint = replace(GPU, workers=15).hint(0.4, 0.01)
    assert hint is not None and "views.num_local=5 instead of 10" in hint
    assert replace(GPU, workers=15, num_local=0).hint(0.4, 0.01) is None


def look(watch: WaitWatch, shares: list[float], seconds: float = 20.0) -> list[Any]:
    return [watch.look({"speed/wait_share": share}, 10, seconds) for share in shares]


def test_one_hint_after_a_minute_beyond_the_first_readings() -> None:
    hints = look(WaitWatch(GPU, 64), [0.9, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert [hint is not None for hint in hints] == [False] * 4 + [True] + [False] * 3
    assert "50%" in hints[4] and "--workers 8" in hints[4]


def test_the_start_and_single_slow_readings_count_little() -> None:
    assert not any(look(WaitWatch(GPU, 64), [1.0, 1.0, 0.0, 0.5, 0.0, 0.1, 0.1, 0.1]))


def test_waiting_may_begin_later() -> None:
    hints = look(WaitWatch(GPU, 64), [0.0] * 8 + [0.4] * 3)
    assert hints[-1] is not None and not any(hints[:-1])


def test_training_that_images_wait_for_needs_no_hint() -> None:
    assert not any(look(WaitWatch(GPU, 64), [0.01] * 20))


def test_too_many_workers_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "free_cores", lambda: 4)
    asked, decided = RuntimeConfig(workers=4), RuntimeConfig(workers=4, threads=2)
    (warning,) = crowding(asked, decided, torch.device("cpu"))
    assert warning.startswith("runtime.workers = 4 and runtime.threads = 2 need 6 cores, but 4 are free")
    (warning,) = crowding(asked, decided, torch.device("cuda"))
    assert warning.startswith("runtime.workers = 4 and the main process need 5 cores, but 4 are free")
    assert crowding(RuntimeConfig(workers=3), RuntimeConfig(workers=3, threads=1), torch.device("cpu")) == []
    assert crowding(RuntimeConfig(), decided, torch.device("cpu")) == []
    assert crowding(RuntimeConfig(workers=0), RuntimeConfig(workers=0, threads=9), torch.device("cpu")) == []
