"""Two gloo processes compute what one does."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli import distributed
from tests.train import runs

STEPS = 5
# A shift of all rows before a batch normalisation has no effect: a zero gradient but for rounding, as for key biases.
REMOVED_BY_BATCH_NORM = ("backbone.norm.bias", "head.mlp.0.bias", "head.mlp.3.bias", "running_mean")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_images(tmp_path_factory.mktemp("data") / "images")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def record_gradients(store: dict[str, Any]) -> None:
    """Notes the averaged gradients of every step, before clipping."""
    from ibot_cli.train import step

    original = step.clip_gradients

    def noting(parameters: Any, *limits: Any) -> torch.Tensor:
        parameters = list(parameters)
        store.setdefault("gradients", []).append([None if p.grad is None else p.grad.clone() for p in parameters])
        return original(parameters, *limits)

    step.clip_gradients = noting


def train(images: Path, out: Path, rank: int, world: int, port: int, sets: tuple[str, ...]) -> None:
    """What torchrun would start."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    store: dict[str, Any] = {}
    record_gradients(store)
    with distributed.process_group():
        runs.pretrain(images, out, "train.epochs=1", *sets)
    if rank == 0:
        torch.save(store, out / "gradients.pt")


def exit_codes(images: Path, out: Path, world: int, *sets: str) -> list[int]:
    port = free_port()
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                train(images, out, rank, world, port, sets)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def run(images: Path, out: Path, world: int, *sets: str) -> None:
    assert exit_codes(images, out, world, *sets) == [0] * world


@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("objective.balance=sinkhorn", "train.micro_batch_size=4", "train.seed=3"),
        ("head.norm=batch", "train.micro_batch_size=4", "optim.lr=0.002"),
        ("objective.patch=none", "optim.clip_mode=global"),
    ],
    ids=["center", "sinkhorn", "batch norm", "dino"],
)
def test_two_processes_equal_one(images: Path, tmp_path: Path, sets: tuple[str, ...]) -> None:
    # Targets that depend on the composition of a forward pass need the same composition: 8 images, or 2 x 4 at once.
    joint = "train.micro_batch_size=8" if "train.micro_batch_size=4" in sets else "train.micro_batch_size=4"
    run(images, tmp_path / "one", 1, *sets, joint)
    run(images, tmp_path / "two", 2, *sets)
    one, two = (runs.final_state(tmp_path / name) for name in ("one", "two"))
    # Batch statistics of a few rows multiply rounding; everything else stays within 1e-6.
    tolerance = 1e-5 if "head.norm=batch" in sets else 1e-6
    compare_metrics(runs.metrics(tmp_path / "one"), runs.metrics(tmp_path / "two"), tolerance)
    compare_gradients(*(torch.load(tmp_path / name / "gradients.pt") for name in ("one", "two")), tolerance)
    for network in ("student", "teacher"):
        for name, value in one[network].items():
            if "head.norm=batch" in sets and name.endswith(REMOVED_BY_BATCH_NORM):
                continue
            compare_weights(name, value, two[network][name])
    torch.testing.assert_close(one["centers"], two["centers"], atol=1e-6, rtol=1e-5)
    runs.assert_same(one["epoch_sums"], two["epoch_sums"])


def compare_metrics(one: list[dict[str, Any]], two: list[dict[str, Any]], tolerance: float) -> None:
    assert [r["step"] for r in one] == [r["step"] for r in two]
    for ours, theirs in zip(one, two, strict=True):
        for name in ours:
            if name.startswith("loss/"):
                assert ours[name] == pytest.approx(theirs[name], abs=tolerance, rel=tolerance), name


def compare_gradients(one: dict[str, Any], two: dict[str, Any], tolerance: float) -> None:
    """Relative to the largest entry of each tensor: the gradients of this tiny network are far above 1."""
    assert len(one["gradients"]) == STEPS
    for ours, theirs in zip(one["gradients"], two["gradients"], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                scale = max(1.0, float(a.abs().max()))
                torch.testing.assert_close(a / scale, b / scale, atol=tolerance, rtol=0)


def compare_weights(name: str, one: torch.Tensor, two: torch.Tensor) -> None:
    if name.endswith("attn.qkv.bias"):  # the gradient of the key third is zero but for rounding, which Adam amplifies
        third = len(one) // 3
        one, two = (torch.cat([x[:third], x[2 * third :]]) for x in (one, two))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5, msg=lambda text: f"{name}: {text}")
