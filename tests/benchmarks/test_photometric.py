"""The comparison of photometric operations, on a few small views."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import photometric


def test_every_operation_is_compared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setattr(sys, "argv", ["photometric.py", "--size", "24", "--batch", "12", "--rounds", "1"])
    photometric.main()
    *lines, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert [line.split()[0] for line in lines[1:]] == list(found["operations"])
    for operation, row in found["operations"].items():
        assert set(row) == {"ours", "pillow", "torchvision"} and row["ours"]["ratio"] == 1
        assert row["ours"]["largest"] < (1.1 if operation == "published" else 0.1)
    assert found["operations"]["hue"]["pillow"]["largest"] > 2
    assert 0 < found["half_distance"]["mean"] < found["half_distance"]["largest"] < 1
