from pathlib import Path

import numpy as np
import pytest

from ibot_cli.errors import RunError
from ibot_cli.visualize.report.metrics import read_metrics

LINES = (
    '{"step": 1, "epoch": 0, "lr": 0.5, "skipped": false}\n'
    "not json\n"
    '{"step": 2, "epoch": 0, "lr": null, "skipped": true}\n'
    '{"step": 2, "lr": NaN}\n'
    "\n"
    '{"no": "step"}\n'
    '{"step": 2, "epochs_done": 1, "knn_accuracy": 0.25}\n'
    '{"step": 4, "epochs_done": 2, "bad_files": 0}\n'
    '{"step": 4, "epochs_done": "two"}\n'
    "[1]\n"
)


def test_records_become_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(LINES + '{"step": 3, "lr": 0.')
    found = read_metrics(path)
    assert found.of_steps("lr").steps.tolist() == [1] and found.of_steps("lr").last == 0.5
    assert set(found.series) == {"lr"}
    assert found.skipped == (2,) and found.last_step == 4
    assert found.of_epochs("knn_accuracy").values.tolist() == [0.25]
    assert found.of_epochs("bad_files").steps.tolist() == [2]
    assert found.damaged == (2, 6, 9, 10), "the half-written last line is no damage"
    assert len(found.of_steps("nothing")) == 0 and found.of_epochs("nothing").last is None


def test_a_halved_loss_scale_is_no_skipped_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss_scale": 8.0, "grad_norm": null, "skipped": true, "overflow": true}\n'
        '{"step": 2, "loss_scale": 4.0, "grad_norm": 1.5, "skipped": true, "overflow": false}\n'
    )
    found = read_metrics(path)
    assert found.skipped == (2,) and set(found.series) == {"loss_scale", "grad_norm"}


def test_a_run_without_records(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl").last_step == 0


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        read_metrics(tmp_path)


def test_numbers_are_floats(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "used": 3}\n{"step": 2, "used": 4.5}\n')
    assert read_metrics(path).of_steps("used").values.dtype == np.float64
