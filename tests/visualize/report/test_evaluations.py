from dataclasses import replace
from pathlib import Path

import pytest

from ibot_cli.evaluate.comparison import Cell
from ibot_cli.visualize.pages.numbers import NOTHING
from ibot_cli.visualize.pages.page import render_page
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
        (replace(cell(0.8, (0.7, 0.9), 0.4, None), same_place=0.75), "warn", "not told apart from the same place"),
        (replace(cell(0.8, (0.7, 0.9), 0.4, None), same_place=0.95), "bad", "below the same place"),
        (replace(cell(0.8, (0.7, 0.9), 0.4, None), same_place=0.5), "good", "above random weights and the same place"),
        (
            replace(cell(0.8, (0.7, 0.9), 0.71, None), same_place=0.85),
            "warn",
            "not told apart from random weights and the same place",
        ),
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
    assert (first["title"], first["value"]) == ("k-NN top-1", "70.00%")
    assert first["baselines"] == {"random": "40.00%", "pixels": "90.00%", "same_place": NOTHING}
    assert values["baselines"] == [("random", "Random weights"), ("pixels", "Raw pixels")]
    assert values["behind"] == [
        "k-NN top-1 on builtin:digits: 70.00% is below raw pixels (random weights 40.00%, raw pixels 90.00%)."
    ]
    assert values["hardest"] == [("hard", "2 of 4", "50.0%"), ("easy", "4 of 4", "100.0%")]


@pytest.mark.parametrize("damaged", ["text", 3, {"name": 1}, [1, {"name": "half", "accuracy": "0.5"}]])
def test_classes_of_another_kind_are_left_out(tmp_path: Path, damaged: object) -> None:
    path = pretrain_run(tmp_path / "run")
    add_knn(path, 0.7, per_class=damaged)
    run = read_run(path)
    assert evaluations_section(run, evaluated(run)).values["hardest"] == []


def test_patches_found_again_are_judged_by_their_interval_and_the_same_place(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    add(path, "visualize-correspondence", trained={"accuracy": 0.157, "interval": [0.131, 0.187]},
        random=[{"accuracy": 0.125}], chance={"accuracy": 0.03, "same_place": 0.154}, size=48)  # fmt: skip
    run = read_run(path)
    section = evaluations_section(run, evaluated(run))
    (row,) = section.values["rows"]  # type: ignore[misc, attr-defined]
    assert (row["tone"], row["words"], row["interval"]) == (
        "warn",
        "not told apart from the same place",
        "13.1 to 18.7 %",
    )
    assert section.values["baselines"][-1] == ("same_place", "Same place")  # type: ignore[index]
    assert "(random weights 12.50%, the same place 15.40%)" in section.values["behind"][0]  # type: ignore[index]
    page = render_page(section.template, values=section.values)
    assert "Same place</th>" in page and "that never looks at the picture" in page


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
