import inspect
import shlex
from pathlib import Path

import pytest

from ibot_cli.cli import COMMANDS
from ibot_cli.visualize.report.command_line import DEFAULTS, again, began, evaluations
from ibot_cli.visualize.report.record import read_run
from tests.evaluate.records import add
from tests.visualize.report.runs import finetune_run, pretrain_run

ELSEWHERE = {"poolings": "pooling", "baselines": "no_baselines"}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_commands(name: str) -> None:
    command = COMMANDS[name]
    assert callable(command)
    parameters = inspect.signature(command).parameters
    for setting, value in DEFAULTS[name].items():
        default = parameters[ELSEWHERE.get(setting, setting)].default
        if setting == "baselines":
            assert default is False and value is True
        elif setting == "lrs":
            assert default == "published" and len(value) == 45
        elif isinstance(value, list):
            assert [float(part) for part in default.split(",")] == value
        elif setting not in ("poolings", "flip"):
            assert default == value, setting


def test_how_the_run_began(tmp_path: Path) -> None:
    command = ("/usr/lib/ibot_cli/__main__.py", "pretrain", "my photos", "--out=x", "--set", "a.b=1", "--set=c.d=2")
    found = began(read_run(pretrain_run(tmp_path / "run", command=command)))
    assert found is not None and found.sets == ("a.b=1", "c.d=2")
    assert found.text == "ibot pretrain 'my photos' --out=x --set a.b=1 --set=c.d=2"
    assert began(read_run(pretrain_run(tmp_path / "other", command=("pytest",)))) is None


def test_training_again(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "a run")
    expected = ["ibot", "pretrain", "builtin:digits", "--config", f"{path}/config.yaml", "--out", f"{path}-again"]
    assert shlex.split(again(read_run(path))) == expected
    tuned = again(read_run(finetune_run(tmp_path / "tuned")))
    assert tuned.startswith("ibot finetune runs/digits builtin:digits --config")


def test_evaluating_again(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    knn = dict(DEFAULTS["knn-eval"])
    add(path, "knn-eval", settings=knn)
    add(path, "knn-eval", settings=knn)
    add(path, "knn-eval", settings=knn | {"k": [5, 10], "temperature": [0.05], "baselines": False, "seed": 3})
    add(path, "cluster", settings={**DEFAULTS["cluster"], "spherical": False, "k": [10]})
    probe = {**DEFAULTS["linear-probe"], "poolings": ["cls", "cls+mean"], "flip": None}
    add(path, "linear-probe", settings=probe)
    add(path, "linear-probe", settings=probe | {"lrs": [0.01, 0.1], "solver": "sgd"})
    add(path, "finetune", settings={})
    assert evaluations(read_run(path)) == [
        f"ibot knn-eval {path} builtin:digits",
        f"ibot knn-eval {path} builtin:digits --k 5,10 --temperature 0.05 --seed 3 --no-baselines",
        f"ibot cluster {path} builtin:digits --k 10 --no-spherical",
        f"ibot linear-probe {path} builtin:digits --pooling cls,cls+mean",
        f"ibot linear-probe {path} builtin:digits --pooling cls,cls+mean --lrs 0.01,0.1",
    ]
