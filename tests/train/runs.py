"""Small real runs for the tests, in this process or in a forked one that may be killed."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ibot_cli.runs import checkpoint
from ibot_cli.train.launch import PretrainResult, Request, execute, prepare
from ibot_cli.train.reporter import Silent

# Autograd counts the devices at its first backward pass. The memory estimate pretends that there is a GPU; if it came
# first, threads would be started that forbid any backward pass in the forked processes of these tests.
torch.zeros(1, requires_grad=True).sum().backward()

SMALL = [
    "data.channels=1",
    "views.global_size=16",
    "views.local_size=8",
    "views.num_local=2",
    "model.arch=vit_tiny",
    "model.patch_size=4",
    "model.width=16",
    "model.depth=2",
    "model.heads=2",
    "model.drop_path=0.1",
    "head.prototypes=16",
    "head.hidden_size=24",
    "head.bottleneck_size=8",
    "optim.lr=0.01",
    "optim.warmup_epochs=1",
    "train.epochs=4",
    "train.batch_size=8",
    "train.micro_batch_size=4",
    "train.log_every=2",
    "train.checkpoint_steps=3",
    "monitor.knn_epochs=1",
    "monitor.knn_k=3",
    "monitor.tensorboard=false",
    "runtime.device=cpu",
    "runtime.precision=fp32",
    "runtime.threads=1",
    "runtime.workers=0",
    "runtime.compile=off",
]


def make_images(folder: Path, per_class: int = 14, classes: int = 3, size: int = 20) -> Path:
    """Class folders of small grey images; 42 in all, so that a batch of 8 leaves a remainder."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(per_class):
            levels = rng.integers(0, 100, (size, size)) + 50 * label
            Image.fromarray(levels.astype(np.uint8)).save(folder / f"class{label}" / f"{number}.png")
    return folder


def pretrain(data: Path | str | None, out: Path, *sets: str, resume: bool = False, **options: Any) -> PretrainResult:
    request = Request(
        data=None if data is None else str(data),
        preset=None if resume else "ibot_vits16",
        sets=list(sets) if resume else [*SMALL, *sets],
        out=out,
        resume=resume,
        **options,
    )
    return execute(prepare(request), Silent())


def in_child(work: Callable[[], object]) -> int:
    """Runs `work` in a forked process; returns its exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def signal_after(step: int, number: int) -> None:
    """From now on this process gets a signal right after update `step`, before anything is written for it."""
    from ibot_cli.train.loop import Loop

    original = Loop._after_update

    def patched(self: Loop, stop: Any) -> None:
        if self.step == step:
            os.kill(os.getpid(), number)
        original(self, stop)

    Loop._after_update = patched  # type: ignore[method-assign]


def kill_before_rename(count: int) -> None:
    """From now on this process dies between the writing and the renaming of its checkpoint number `count`."""
    from ibot_cli import durable

    original, seen = durable.rename, [0]

    def patched(temporary: Path, final: Path) -> None:
        if final.suffix == ".pt":
            seen[0] += 1
            if seen[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
        original(temporary, final)

    durable.rename = patched


def final_state(out: Path) -> dict[str, Any]:
    found = checkpoint.latest(out / "checkpoints")
    assert found is not None
    return {**found.state, "step": found.step}


def assert_same(a: Any, b: Any, where: str = "state") -> None:
    """Bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert a == b, where


def metrics(out: Path) -> list[dict[str, Any]]:
    """All records without those that measure time or memory."""
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if not k.startswith(("speed/", "memory/"))} for r in records]


def resumes(out: Path) -> list[tuple[int, list[str]]]:
    """Step and command of each time that the run went on."""
    path = out / "resumes.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(record.keys() > {"time", "ibot", "packages", "cpu", "threads"} for record in records)
    return [(record["step"], record["command"]) for record in records]
