from pathlib import Path

import pytest

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.errors import RunError
from ibot_cli.visualize.report.record import read_run
from tests.visualize.report.runs import BATCH, STEPS, append_line, finetune_run, pretrain_run


def test_a_finished_run(tmp_path: Path) -> None:
    run = read_run(pretrain_run(tmp_path / "digits"))
    assert (run.name, run.task, run.finished, run.problems) == ("digits", "pretrain", True, ())
    assert (run.epochs_done, run.epochs_planned, run.steps_per_epoch, run.batch_size) == (6, 6, STEPS, BATCH)
    assert run.seconds == pytest.approx(6 * STEPS * BATCH / 320)
    assert [(each.step, each.size) for each in run.checkpoints] == [(120, 1000)]


def test_an_unfinished_run(tmp_path: Path) -> None:
    run = read_run(pretrain_run(tmp_path / "digits", epochs=0))
    assert (run.finished, run.epochs_done, run.seconds, run.checkpoints) == (False, 0, None, ())
    assert run.steps_per_epoch == 1437 // BATCH, "from the images, while no epoch is complete"


def test_a_fine_tuning_run(tmp_path: Path) -> None:
    run = read_run(finetune_run(tmp_path / "tuned"))
    assert run.task == "finetune" and isinstance(run.config, FinetuneConfig) and run.finished


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "digits")
    append_line(path, "what\n")
    (path / "data.json").write_text("{")
    (path / "env.json").unlink()
    (path / "config.yaml").write_text("model: {arch: of_the_future}")
    (path / "evaluations.jsonl").write_text("?\n")
    run = read_run(path)
    assert run.config is None and run.data == {} and run.evaluations == () and run.epochs_done == 6
    told = " ".join(run.problems)
    assert "data.json is missing or damaged." in told and "env.json is missing or damaged." in told
    assert "1 line of metrics.jsonl (line 127) could not be read" in told
    assert "config.yaml cannot be read by this version" in told
    assert "evaluations.jsonl, line 1 is not the record of an evaluation." in told


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run: it has no config\.yaml"):
        read_run(tmp_path)
    with pytest.raises(RunError, match="does not exist"):
        read_run(tmp_path / "nowhere")
