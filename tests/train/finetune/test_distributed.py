"""Two gloo processes fine-tune as one does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli import distributed
from tests.train import runs
from tests.train.finetune import tuned
from tests.train.test_distributed import compare_metrics, compare_weights, free_port


def train(weights: Path, images: Path, out: Path, rank: int, world: int, port: int, sets: tuple[str, ...]) -> None:
    """What torchrun would start."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with distributed.process_group():
        result = tuned.finetune(weights, images, out, "train.epochs=2", *sets)
    torch.save({"top1": result.top1, "top5": result.top5, "loss": result.test_loss}, out / f"result{rank}.pt")


def run(weights: Path, images: Path, out: Path, world: int, *sets: str) -> list[dict[str, Any]]:
    port = free_port()
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                train(weights, images, out, rank, world, port, sets)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * world
    return [torch.load(out / f"result{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize("sets", [(), ("train.holdout_ratio=0.2", "model.pooling=cls", "optim.clip_grad=0.5")])
def test_two_processes_equal_one(tmp_path: Path, sets: tuple[str, ...]) -> None:
    images = tuned.make_images(tmp_path / "images", per_class=9)  # 6 test images are shared out as 3 and 3
    (images / "class0/0.png").write_bytes(b"unreadable")
    weights = tuned.pretrained(tmp_path / "weights")
    accept = "data.max_bad_ratio=0.5"
    results = run(weights, images, tmp_path / "one", 1, accept, *sets)
    results += run(weights, images, tmp_path / "two", 2, accept, *sets)
    one, two = (runs.final_state(tmp_path / name) for name in ("one", "two"))
    assert results[1] == results[2]
    assert results[0] == pytest.approx(results[1], abs=1e-5)
    compare_metrics(runs.metrics(tmp_path / "one"), runs.metrics(tmp_path / "two"), 1e-6)
    for name, value in one["model"].items():
        compare_weights(name, value, two["model"][name])
    assert one["best"] == pytest.approx(two["best"])
