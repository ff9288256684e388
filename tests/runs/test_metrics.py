import json
import math
from pathlib import Path

import pytest

from ibot_cli.errors import RunError
from ibot_cli.runs.metrics import MetricsLog


def test_appends_and_reads(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.read() == []
    log.append({"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan, "deep": {"x": [math.inf]}})
    log.sync()
    log.append({"step": 3})
    assert log.read() == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None, "deep": {"x": [None]}}, {"step": 3}]
    for line in log.path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_truncate_keeps_up_to_the_step(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.truncate_after(3) == 0
    log.append(*({"step": step} for step in (1, 2, 3, 3, 4, 5)))
    assert log.truncate_after(3) == 2
    log.append({"step": 4})
    log.close()
    assert [record["step"] for record in log.read()] == [1, 2, 3, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("tail", ['{"step": 9, "lo', '{"step": 9}'])
def test_half_written_last_line_is_dropped(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + tail)
    log = MetricsLog(path)
    assert log.read() == [{"step": 1}]
    log.append({"step": 2})
    log.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\ngarbage\n{"step": 3}\n')
    with pytest.raises(RunError, match="line 2 is not a record with a step"):
        MetricsLog(path).read()


def test_records_need_an_integer_step(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    with pytest.raises(KeyError):
        log.append({"loss": 1.0})
    with pytest.raises(TypeError, match="step must be an int"):
        log.append({"step": 1.0})
