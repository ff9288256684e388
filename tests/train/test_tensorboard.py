"""TensorBoard files, with a stand-in for the package, which need not be installed."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from ibot_cli.train.tensorboard import Board


class Writer:
    """What the package would offer."""

    def __init__(self, folder: str) -> None:
        self.folder, self.closed = folder, False
        self.values: list[tuple[str, float, int]] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.values.append((name, value, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
def test_every_number_at_its_step(tmp_path: Path) -> None:
    board = Board(tmp_path, True)
    writer = board._writer
    board.write([{"step": 3, "loss/cls": 0.5, "name": "x", "nothing": None}, {"step": 4, "epochs_done": 1}])
    assert writer.values == [("loss/cls", 0.5, 3), ("epochs_done", 1, 4)]
    assert writer.folder == str(tmp_path / "tensorboard")
    board.close()
    board.close()
    board.write([{"step": 5, "loss/cls": 0.5}])
    assert writer.closed and len(writer.values) == 2


@pytest.mark.usefixtures("installed")
def test_switched_off(tmp_path: Path) -> None:
    board = Board(tmp_path, False)
    board.write([{"step": 1, "a": 1.0}])
    board.close()
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    board = Board(tmp_path, True)
    board.write([{"step": 1, "a": 1.0}])
    board.close()
    assert list(tmp_path.iterdir()) == []
