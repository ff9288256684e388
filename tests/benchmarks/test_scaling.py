"""What the scaling benchmark makes of times that are known; nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scaling
from tests.train import runs


def test_distance_from_a_line_is_relative():
    assert scaling.off_a_line([1, 2, 4, 8], [3.0, 5.0, 9.0, 17.0]) == pytest.approx(0, abs=1e-9)
    assert scaling.off_a_line([1, 2, 3], [1.0, 8.0, 27.0]) > 0.2


def test_sizes_become_settings():
    args = scaling.arguments(["--batch", "2", "--set", "views.num_local=2"])
    for axis, setting in (("batch", "train.batch_size=9"), ("tokens", "views.global_size=48"), ("local", "=9")):
        assert scaling.request(args, axis, 9).sets[-1].endswith(setting)
    with pytest.raises(SystemExit):
        scaling.arguments(["--sizes", "3"])


def test_a_run_ends_with_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    seen = []
    monkeypatch.setattr(scaling, "bytes_of", lambda args, axis, size: size << 30)
    monkeypatch.setattr(scaling, "prepare_bench", lambda request: request.sets[-1])
    monkeypatch.setattr(scaling, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(scaling, "seconds_per_step", lambda benches, rounds: seen.extend(benches) or [1.0, 2.0, 5.0])
    scaling.main(["--axes", "local", "--sizes", "1", "2", "4", "--plot", str(tmp_path / "plots"), "--threads", "1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert seen == ["views.num_local=1", "views.num_local=2", "views.num_local=4"]
    assert result["local"]["gib_off_a_line"] < 1e-3 < result["local"]["seconds_off_a_line"]
    picture = (tmp_path / "plots" / "scaling_local.svg").read_text()
    assert "time of a step" in picture and "4 GiB" in picture


@pytest.mark.slow
def test_steps_are_those_of_a_run():
    sets = [part for text in runs.SMALL for part in ("--set", text)]
    args = scaling.arguments(["--axes", "batch", "--threads", "1", *sets])
    benches = [scaling.prepare_bench(scaling.request(args, "local", size)) for size in (0, 4)]
    assert [bench.plan.config.views.num_local for bench in benches] == [0, 4]
    assert all(seconds > 0 for seconds in scaling.seconds_per_step(benches, 1))
