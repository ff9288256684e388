"""Whole runs with a compiler, which is a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ibot_cli.core.compiled import compile_blocks, compile_losses
from ibot_cli.errors import TrainingError
from ibot_cli.train import compilation
from ibot_cli.train import loop as loop_module
from tests.train import runs
from tests.train.finetune import tuned

SHORT = ("train.epochs=1", "monitor.knn_epochs=0")
UNPADDED = (*SHORT, "head.norm=batch")  # batch norm forbids padding, which moves the last bits of the first step


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_images(tmp_path_factory.mktemp("data") / "images", per_class=9)


class Compiler:
    """Compiles nothing and counts the graphs that it gets; or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.graphs, self.fails = 0, fails

    def __call__(self, graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        if self.fails:
            raise RuntimeError("there is no compiler")
        found: Callable[..., Any] = graph.forward
        return found


def put(monkeypatch: pytest.MonkeyPatch, compiler: Compiler) -> Compiler:
    """Takes the place of the real compiler."""
    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "compile_blocks", lambda x, _, **kw: compile_blocks(x, compiler, **kw))
    monkeypatch.setattr(compilation, "compile_losses", lambda x, _: compile_losses(x, compiler))
    return compiler


def results(out: Path) -> dict[str, Any]:
    return {"metrics": runs.metrics(out), "state": runs.final_state(out)}


def without_config(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "state": {name: value for name, value in found["state"].items() if name != "config"}}


def test_where_the_compiler_fails_the_run_is_the_one_without(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.pretrain(images, tmp_path / "plain", *UNPADDED)
    put(monkeypatch, Compiler(fails=True))
    with pytest.raises(TrainingError, match=r"runtime\.compile is on, but the compiler failed: RuntimeError: there is"):
        runs.pretrain(images, tmp_path / "asked", *UNPADDED, "runtime.compile=on")
    monkeypatch.setattr(loop_module, "asked_for", lambda *where: False)
    runs.pretrain(images, tmp_path / "chosen", *UNPADDED, "runtime.compile=on")
    runs.assert_same(without_config(results(tmp_path / "chosen")), without_config(results(tmp_path / "plain")))


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("head.norm=batch",), ("runtime.checkpointing=blocks",)])
def test_a_compiled_run_is_the_plain_one_up_to_rounding(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...]
) -> None:
    compare(partial(runs.pretrain, images), tmp_path, monkeypatch, *SHORT, *extra)


@pytest.mark.slow
def test_so_is_a_compiled_fine_tuning(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tuned.pretrained(tmp_path / "weights")
    compare(partial(tuned.finetune, weights, images), tmp_path, monkeypatch, "train.epochs=1", "runtime.compile=off")


def compare(train: Callable[..., object], folder: Path, monkeypatch: pytest.MonkeyPatch, *sets: str) -> None:
    """Trains without and with a compiler; the weights agree within 1e-4."""
    train(folder / "plain", *sets)
    compiler = put(monkeypatch, Compiler())
    train(folder / "compiled", *sets, "runtime.compile=on")
    assert compiler.graphs > 0
    ours, theirs = (runs.final_state(folder / name) for name in ("compiled", "plain"))
    for part in ours.keys() & {"student", "teacher", "model"}:
        torch.testing.assert_close(ours[part], theirs[part], rtol=1e-3, atol=1e-4)
