from pathlib import Path

import pytest

from ibot_cli.evaluate.comparison import Cell
from ibot_cli.visualize.report.evaluations import evaluated, evaluations_section, standing
from ibot_cli.visualize.report.record import read_run
from tests.evaluate.records import add, add_cluster, add_knn
from tests.visualize.report.runs import pretrain_run


def cell(value: float, interval: tuple[float, float] | None, random: float | None, pixels: float | None) -> Cell:
    return Cell(value=value, interval=interval, total=100, random=random, pixels=pixels, weights="", step=None, time="")


@pytest.mark.parametrize(
    ("given", "tone", "words"),
    [
        (cell(0.8, (0.7, 0.9), 0.4, 0.6), "good", "above random weights and raw pixels"),
        (cell(0.8, (0.7, 0.9), 0.4, 0.75), "warn", "not told apart from raw pixels"),
        (cell(0.8, (0.7, 0.9), 0.95, 0.75), "bad", "below random weights"),
        (cell(0.8, None, 0.7, None), "good", "above random weights"),
        (cell(0.8, None, 0.8, 0.9), "bad", "below raw pixels"),
        (cell(0.8, (0.7, 0.9), None, None), "", "no baseline was measured"),
    ],
)
def test_how_a_figure_stands_to_its_baselines(given: Cell, tone: str, words: str) -> None:
    assert (standing(given).tone, standing(given).words) == (tone, words)


def test_the_section(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    add_knn(path, 0.5, per_class=[{"name": "one", "num_test": 4, "correct": 1, "accuracy": 0.25}])
    add_knn(path, 0.7, per_class=[
        {"name": "easy", "num_test": 4, "correct": 4, "accuracy": 1.0},
        {"name": "hard", "num_test": 4, "correct": 2, "accuracy": 0.5},
    ])  # fmt: skip
    add_cluster(path, 0.8)
    run = read_run(path)
    values = evaluations_section(run, evaluated(run)).values
    first = values["rows"][0]  # type: ignore[index]
    assert (first["title"], first["value"], first["random"], first["pixels"]) == (
        "k-NN top-1",
        "70.00%",
        "40.00%",
        "90.00%",
    )
    assert values["behind"] == [
        "k-NN top-1 on builtin:digits: 70.00% is below raw pixels (random weights 40.00%, raw pixels 90.00%)."
    ]
    assert values["hardest"] == [("hard", "2 of 4", "50.0%"), ("easy", "4 of 4", "100.0%")]


def test_the_runs_own_images_come_first(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run", data="/data/photos")
    add(path, "knn-eval", top1=0.9, num_test=400, data="photos", fingerprint="own", k=20, temperature=0.07)
    add(path, "knn-eval", top1=0.5, num_test=400, data="elsewhere", fingerprint="other", k=20, temperature=0.07)
    found = evaluated(read_run(path)).find("linear probe top-1", "k-NN top-1")
    assert found is not None and (found[0].data, found[1].value) == ("photos", 0.9)
    assert evaluated(read_run(path)).find("retrieval mAP") is None


def test_damaged_records_are_a_note(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    (path / "evaluations.jsonl").write_text("{}\n")
    assert "line 1 is not the record of an evaluation" in evaluated(read_run(path)).notes[0]
