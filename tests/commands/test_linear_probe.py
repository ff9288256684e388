import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ibot_cli.cli import app
from ibot_cli.errors import DataError, UsageError
from ibot_cli.runs.evaluations import correctness, read_evaluations
from tests.evaluate.images import write_folder
from tests.evaluate.probing import tiny_vit
from tests.train.runs import pretrain

QUICK = ("--epochs", "3", "--lrs", "0.1,1", "--batch-size", "8")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny_vit(tmp_path)
    return str(tmp_path / "weights.pth")


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(write_folder(tmp_path / "images", {"dark": 20, "light": 15}))


def run(*args: str) -> Result:
    command = ["linear-probe", *args, "--device", "cpu", "--heads", "2"]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def test_json_holds_every_head(weights: str, data: str) -> None:
    result = run(weights, data, *QUICK, "--pooling", "cls,cls2+mean", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and len(found["heads"]) == 4 and found["chosen"] == found["heads"][0]
    assert {head["pooling"] for head in found["heads"]} == {"cls", "cls2+mean"}
    assert found["best_on_test_top1"] >= found["top1"] and len(found["top1_interval"]) == 2
    assert found["baseline_random"] is not None and found["baseline_pixels"] is not None
    assert found["settings"]["lrs"] == [0.1, 1.0] and found["settings"]["epochs"] == 3


def test_table(weights: str, data: str) -> None:
    result = run(weights, data, "--epochs", "2", "--batch-size", "8")
    assert result.exit_code == 0 and result.stdout == ""
    for text in ("this network", "random weights", "raw pixels, 32 x 32", "95% interval", "The 10 best of 45 heads"):
        assert text in result.stderr
    assert "Best on the test images" in result.stderr and "optimistic, as chosen on them" in result.stderr
    assert "chosen by held-out training images" in result.stderr and "2 classes" in result.stderr
    assert "Recorded" not in result.stderr


def test_other_tables(weights: str, data: str) -> None:
    one = run(weights, data, "--lrs", "0.1", "--holdout", "0", "--epochs", "1", "--no-baselines", "--batch-size", "99")
    assert "chosen by nothing, as it is the only one" in one.stderr and "random weights" not in one.stderr
    assert "warning: The batch is 28 instead of 99" in one.stderr and "heads" not in one.stderr
    every = run(weights, data, *QUICK, "--all-optimizers", "--no-baselines", "--seed", "1")
    assert "All 8 heads" in every.stderr and "lars" in every.stderr and "Decay" in every.stderr
    logistic = run(weights, data, "--solver", "lbfgs", "--no-baselines")
    assert "Logistic regression on" in logistic.stderr and "Penalty" in logistic.stderr
    wild = run(weights, data, *QUICK[:2], "--lrs", "0.1,1e39", "--no-baselines", "--batch-size", "8", "--json")
    assert "All 2 heads, 1 diverged" in wild.stderr
    assert [head["diverged"] for head in json.loads(wild.stdout)["heads"]] == [False, True]


def test_a_run_is_recorded_and_says_whether_to_flip(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "run"
    pretrain(data, path, "views.flip_prob=0", "train.epochs=1", "monitor.knn_epochs=0")
    result = run(str(path), data, *QUICK, "--no-baselines", "--augment", "--precision", "bf16")
    assert result.exit_code == 0 and f"Recorded in {path / 'evaluations.jsonl'}." in result.stderr
    run(str(path), data, *QUICK, "--no-baselines", "--augment", "--flip", "--json")
    first, second = read_evaluations(path)
    assert (first["command"], first["settings"]["flip"], second["settings"]["flip"]) == ("linear-probe", False, True)
    assert first["settings"]["precision"] == "bf16" and first["settings"]["augment"] is True
    correct = correctness(first)
    assert correct is not None and correct.mean() == pytest.approx(first["result"]["top1"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--pooling", "cls,best"), "'best' is not a pooling"),
        (("--lrs", "0.1,x"), "--lrs 0.1,x: 'x' is not a positive number"),
        (("--holdout", "0.7"), "--holdout 0.7 is not between 0 and 0.5"),
        (("--holdout", "0"), "With --holdout 0 nothing can choose"),
        (("--epochs", "0"), "must be at least 1"),
        (("--precision", "fp16"), "There is no precision 'fp16'"),
        (("--solver", "lbfgs", "--augment"), "--solver lbfgs needs the same features"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(options: tuple[str, ...], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        run("no-weights.pth", "no-data", *options)
    assert text in caught.value.message and caught.value.exit_code == 2


def test_data_without_labels(weights: str, data: str) -> None:
    with pytest.raises(DataError, match="has no labels"):
        run(weights, str(Path(data) / "dark"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--augment",)])
def test_two_processes_share_the_heads(weights: str, data: str, options: tuple[str, ...]) -> None:
    arguments = [weights, data, "--heads", "2", "--device", "cpu", *QUICK, *options, "--lrs", "0.1,0.5,1", "--json"]
    alone = run(*arguments[:2], *QUICK, *options, "--lrs", "0.1,0.5,1", "--json")
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*starter, "-m", "ibot_cli", "linear-probe", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = json.loads(alone.stdout), json.loads(done.stdout)
    for name in ("top1", "best_on_test", "num_train", "baseline_random", "baseline_pixels", "notes"):
        assert two[name] == one[name], name
    assert two["chosen"]["lr"] == one["chosen"]["lr"]
    assert two["chosen"]["holdout_loss"] == pytest.approx(one["chosen"]["holdout_loss"], rel=1e-4)
