"""Two gloo processes share a feature pass and see what one sees."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli import distributed
from ibot_cli.cache_folder import cache_folder
from ibot_cli.evaluate.cached_values import cached_value
from ibot_cli.evaluate.feature_cache.entry import DiskStore
from tests.evaluate.feature_cache.test_cache import Stop, stopping
from tests.evaluate.passes import EVERYTHING, NUM, Pictures, counted, loaded, run

BAD = (2, 20, 21, 22, 23)
NOTHING: Callable[[int], None] = lambda rank: None  # noqa: E731


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def work(rank: int, out: Path, prepare: Callable[[int], None], options: dict[str, Any]) -> None:
    prepare(rank)
    for seed in (1, 2):  # a command makes several passes
        run(loaded(seed), Pictures(5), cache=False)
    model, calls = loaded(), list[tuple[int, int]]()
    found = run(model, Pictures(bad=BAD), progress=lambda *call: calls.append(call), **options)
    content = {
        "features": {pooling: found.pooled(pooling) for pooling in EVERYTHING},
        "index": torch.from_numpy(found.index),
        "bad": found.bad,
        "notes": found.notes,
        "counted": counted(model),
        "calls": calls,
    }
    torch.save(content, out / f"{rank}.pt")


def both(out: Path, prepare: Callable[[int], None] = NOTHING, **options: Any) -> list[dict[str, Any]]:
    in_two_processes(lambda rank: work(rank, out, prepare, options))
    return [torch.load(out / f"{rank}.pt") for rank in range(2)]


def in_two_processes(run_one: Callable[[int], object]) -> None:
    port, children = free_port(), []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.environ |= environment(rank, port)
                run_one(rank)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]


def check(found: list[dict[str, Any]], notes: tuple[str, ...] = (), precision: str = "fp32") -> None:
    """Both processes have exactly what a single one has."""
    expected = run(loaded(), Pictures(bad=BAD), cache=False, precision=precision)
    for one in found:
        assert one["notes"] == notes
        assert one["index"].tolist() == expected.index.tolist() and one["bad"] == expected.bad
        for pooling, features in one["features"].items():
            assert torch.equal(features, expected.pooled(pooling)), pooling
        assert one["calls"][-1] == (NUM, NUM) and one["calls"] == sorted(set(one["calls"]))


def full_disk(rank: int) -> None:
    """The second process can write one block."""
    original, seen = DiskStore.write, list[int]()

    def write(self: DiskStore, block: Any) -> None:
        seen.append(block.number)
        if rank == 1 and len(seen) > 1:
            raise OSError(28, "No space left on device")
        original(self, block)

    DiskStore.write = write  # type: ignore[method-assign]


def other_machine(rank: int) -> None:
    """The second process does not find the directory that the first one names."""
    original = distributed.agree

    def agree(value: Any) -> Any:
        found = original(value)
        return tuple(part / "elsewhere" if isinstance(part, Path) else part for part in found)

    if rank == 1:
        distributed.agree = agree


def test_each_computes_its_share_and_the_cache_serves_all(tmp_path: Path) -> None:
    found = both(tmp_path)
    check(found)
    assert [one["counted"] for one in found] == [20 - 1, 17 - 4]  # 5 of 10 blocks of 4 each
    again = both(tmp_path)
    check(again)
    assert [one["counted"] for one in again] == [0, 0]
    model = loaded()
    run(model, Pictures(bad=BAD))
    assert counted(model) == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_a_cache(tmp_path: Path, precision: str) -> None:
    found = both(tmp_path, cache=False, precision=precision)
    check(found, precision=precision)
    assert [one["counted"] for one in found] == [20 - 1, 17 - 4]
    assert not cache_folder().exists()


def test_what_one_process_began_two_finish(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(loaded(), Pictures(bad=BAD), progress=stopping(8), poolings=("cls", "mean"))
    found = both(tmp_path)
    check(found)
    again = loaded()
    run(again, Pictures(bad=BAD))
    assert counted(again) == 0


def test_a_disk_that_is_full_for_one(tmp_path: Path) -> None:
    check(
        both(tmp_path, full_disk),
        ("The features could not be written to the cache and were not kept: No space left on device.",),
    )
    assert list((cache_folder("features")).iterdir()) == []


@pytest.mark.parametrize("complete", [False, True])
def test_processes_without_a_common_directory(tmp_path: Path, complete: bool) -> None:
    if complete:
        run(loaded(), Pictures(bad=BAD))
    found = both(tmp_path, other_machine)
    check(found, ("The processes do not share a cache directory, so the features stayed in memory.",))
    assert [one["counted"] for one in found] == ([0, 0] if complete else [20 - 1, 17 - 4])


@pytest.mark.parametrize("known", [0, 1])
def test_small_results_are_measured_by_all_processes_or_none(tmp_path: Path, known: int) -> None:
    def work(rank: int) -> None:
        os.environ["XDG_CACHE_HOME"] = str(tmp_path / str(rank))
        calls = list[int]()

        def measure() -> dict[str, int]:
            calls.append(rank)
            return {"rank": rank}

        value = cached_value("kind", "key", measure)
        torch.save((value, calls), tmp_path / f"{rank}.pt")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / str(known)))
        cached_value("kind", "key", lambda: {"rank": 5})
    in_two_processes(work)
    expected = [({"rank": 5}, []), ({"rank": 5}, [])] if known == 0 else [({"rank": 0}, [0]), ({"rank": 0}, [1])]
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == expected
