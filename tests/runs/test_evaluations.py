import json
import math
import os
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibot_cli import __version__
from ibot_cli.errors import RunError
from ibot_cli.runs import evaluations
from ibot_cli.runs.evaluations import correctness, read_evaluations, record_evaluation, run_of


@dataclass(frozen=True, kw_only=True)
class Result:
    top1: float = 0.75
    per_k: Any = None
    weights: str = "teacher of run/checkpoints/step-00000012.keep.pt, step 12"
    weights_hash: str = "ab12"
    data: str = "builtin:digits"
    fingerprint: str = "cd34"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("")
    return tmp_path / "run"


def lines(run: Path) -> list[str]:
    return (run / "evaluations.jsonl").read_text().splitlines()


def test_a_record_holds_settings_weights_and_data_exactly(run: Path) -> None:
    settings = {"ks": (10, 20), "temperature": 0.07, "pooling": "cls", "seed": 0, "baselines": True, "heads": None}
    right = np.array([True, False, True, True, False, False, True, True, True])
    written = record_evaluation(str(run), "knn-eval", settings=settings, result=Result(), correct=right)
    assert written == run / "evaluations.jsonl"
    (record,) = read_evaluations(run)
    assert record["settings"] == {**settings, "ks": [10, 20]}
    assert (record["command"], record["weights"], record["version"]) == ("knn-eval", str(run), __version__)
    assert (record["weights_hash"], record["data"], record["fingerprint"]) == ("ab12", "builtin:digits", "cd34")
    assert (record["checkpoint"], record["step"]) == ("step-00000012.keep.pt", 12)
    assert record["result"]["top1"] == 0.75 and record["result"]["weights"] == Result().weights
    assert record["time"].endswith("+00:00")
    found = correctness(record)
    assert found is not None and found.dtype == np.bool_ and found.tolist() == right.tolist()


@pytest.mark.parametrize(
    ("weights", "description", "expected"),
    [
        ("run", "teacher of run/checkpoints/step-00000012.pt, step 12", ("step-00000012.pt", 12)),
        ("run/checkpoints/step-00000007.pt", "anything", ("step-00000007.pt", 7)),
        ("run/checkpoints/best.pt", "classifier of run/checkpoints/best.pt, step 30", (None, 30)),
        ("run", "weights of step-2.pth", (None, None)),
    ],
)
def test_which_checkpoint_it_was(
    run: Path, monkeypatch: pytest.MonkeyPatch, weights: str, description: str, expected: tuple[object, object]
) -> None:
    for name in ("step-00000007.pt", "best.pt"):
        (run / "checkpoints" / name).write_text("")
    monkeypatch.chdir(run.parent)
    record_evaluation(weights, "knn-eval", settings={}, result=Result(weights=description))
    (record,) = read_evaluations(run)
    assert (record["checkpoint"], record["step"]) == expected


def test_what_json_lacks(run: Path) -> None:
    per_k = {1: np.float32(0.5), 2: math.nan, 3: [np.float32("inf"), Path("x"), np.int64(3)]}
    record_evaluation(str(run), "knn-eval", settings={"level": math.inf}, result=Result(per_k=per_k))
    (record,) = [json.loads(line, parse_constant=pytest.fail) for line in lines(run)]
    assert record["result"]["per_k"] == {"1": 0.5, "2": None, "3": [None, "x", 3]}
    assert record["settings"] == {"level": None}
    assert record["correct"] is None and correctness(record) is None


def test_a_million_images_at_most(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluations, "MAX_CORRECT", 4)
    for count in (4, 5):
        record_evaluation(str(run), "knn-eval", settings={}, result=Result(), correct=np.ones(count, dtype=np.bool_))
    assert [correctness(record) is None for record in read_evaluations(run)] == [False, True]


def test_which_run_weights_belong_to(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = run / "checkpoints" / "step-00000001.pt"
    elsewhere = tmp_path / "weights.pth"
    for path in (inside, elsewhere):
        path.write_text("")
    assert run_of(str(run)) == run and run_of(str(inside)) == run
    for other in (elsewhere, tmp_path, run / "checkpoints", run / "checkpoints" / "none.pt", run / "config.yaml"):
        assert run_of(str(other)) is None
    assert run_of("timm:vit_small_patch16_224") is None
    monkeypatch.chdir(inside.parent)
    assert run_of(inside.name) == run
    monkeypatch.chdir(run)
    assert run_of(".") == Path() and run_of("checkpoints/" + inside.name) == Path()


def test_weights_without_a_run_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("")
    assert record_evaluation(str(tmp_path / "weights.pth"), "knn-eval", settings={}, result=Result()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def test_only_the_first_process_writes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert record_evaluation(str(run), "knn-eval", settings={}, result=Result()) is None
    assert read_evaluations(run) == []


def test_half_written_last_line_is_dropped(run: Path) -> None:
    for step in (1, 2):
        record_evaluation(str(run), "knn-eval", settings={"n": step}, result=Result())
    path = run / "evaluations.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert [record["settings"]["n"] for record in read_evaluations(run)] == [1]
    record_evaluation(str(run), "knn-eval", settings={"n": 3}, result=Result())
    assert [record["settings"]["n"] for record in read_evaluations(run)] == [1, 3]


@pytest.mark.parametrize(
    "damage",
    [
        "garbage",
        "[1]",
        '{"command": "knn-eval"}',
        '{"command": 1, "result": 2}',
        '{"command": "", "result": {}, "step": "9"}',
    ],
)
def test_damaged_line_is_named(run: Path, damage: str) -> None:
    record_evaluation(str(run), "knn-eval", settings={}, result=Result())
    with (run / "evaluations.jsonl").open("a") as file:
        file.write(damage + "\n")
    with pytest.raises(RunError, match=r"evaluations\.jsonl, line 2 is not the record") as caught:
        read_evaluations(run)
    assert caught.value.hint == "Remove that line."


def test_a_run_that_cannot_be_written_is_a_warning(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "evaluations.jsonl").mkdir()  # also root cannot write there
    assert record_evaluation(str(run), "knn-eval", settings={}, result=Result()) is None
    assert "warning: The result is not recorded:" in capsys.readouterr().err


def test_a_result_must_say_what_was_evaluated(run: Path) -> None:
    @dataclass
    class Bare:
        weights: str = ""
        data: str = ""

    with pytest.raises(TypeError, match="Bare has no weights_hash, fingerprint"):
        record_evaluation(str(run), "knn-eval", settings={}, result=Bare())
    with pytest.raises(TypeError, match="dict is not the dataclass"):
        record_evaluation(str(run), "knn-eval", settings={}, result={"weights": ""})
    assert not (run / "evaluations.jsonl").exists()


def write_many(run: str, writer: int) -> None:
    right = np.zeros(40_000, dtype=np.bool_)  # lines longer than a buffer
    for number in range(10):
        record_evaluation(run, "knn-eval", settings={"at": [writer, number]}, result=Result(), correct=right)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_append_at_once_lose_nothing(run: Path) -> None:
    context = get_context("fork")
    writers = [context.Process(target=write_many, args=(str(run), writer)) for writer in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    found = [tuple(record["settings"]["at"]) for record in read_evaluations(run)]
    assert sorted(found) == [(writer, number) for writer in range(3) for number in range(10)]
