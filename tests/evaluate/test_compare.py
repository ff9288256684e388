import os
from pathlib import Path

import numpy as np
import pytest

from ibot_cli.errors import RunError
from ibot_cli.evaluate.compare import compare
from ibot_cli.evaluate.confidence import paired_difference, unpaired_difference, wilson
from tests.evaluate.records import add, add_finetune, add_knn, new_run


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return new_run(tmp_path / "a", 10)


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return new_run(tmp_path / "b", 10)


def test_one_run_beside_its_baselines(a: Path) -> None:
    add_knn(a, 0.95)
    found = compare([a])
    (column,) = found.columns
    assert (column.title, column.data, column.fingerprint) == ("k-NN top-1", "builtin:digits", "digits")
    assert column.settings == {"k": "20", "temperature": "0.07"}
    (cell,) = column.cells
    assert cell is not None
    assert (cell.value, cell.total, cell.random, cell.pixels, cell.step) == (0.95, 400, 0.4, 0.9, 10)
    assert cell.interval == pytest.approx(wilson(380, 400))
    assert (column.best, found.differences, found.notes, found.runs) == ((), (), (), ("a",))


def test_the_newest_evaluation_counts(a: Path) -> None:
    for share in (0.5, 0.9, 0.7):
        add_knn(a, share)
    (column,) = compare([a]).columns
    assert column.cells[0] is not None and column.cells[0].value == 0.7


def test_paired_where_both_judged_the_same_images(a: Path, b: Path) -> None:
    rng = np.random.default_rng(0)
    right = [rng.random(400) < 0.9, rng.random(400) < 0.95]
    for run, correct in zip((a, b), right, strict=True):
        add_knn(run, correct)
    (difference,) = compare([a, b]).differences
    expected = paired_difference(right[1], right[0])
    assert (difference.run, difference.reference, difference.method) == ("b", "a", "paired")
    assert (difference.difference, *(difference.interval or ())) == pytest.approx(expected)


def test_unpaired_without_the_answers_to_each_image(a: Path, b: Path) -> None:
    add_knn(a, 0.9)
    add_knn(b, 0.95, keep=False)
    found = compare([a, b])
    (difference,) = found.differences
    assert difference.method == "unpaired"
    assert (difference.difference, *(difference.interval or ())) == pytest.approx(
        unpaired_difference(380, 400, 360, 400)
    )
    assert found.columns[0].best == (1,)


def test_answers_that_do_not_give_the_figure_are_not_used(a: Path, b: Path) -> None:
    add_knn(a, 0.9)
    add(b, "knn-eval", correct=np.ones(400, dtype=np.bool_), top1=0.5, num_test=400, k=20, temperature=0.07)
    assert [each.method for each in compare([a, b]).differences] == ["unpaired"]


def test_answers_to_other_numbers_of_images_are_not_paired(a: Path, b: Path) -> None:
    add_knn(a, np.ones(400, dtype=np.bool_))
    add_knn(b, np.ones(399, dtype=np.bool_))
    assert [each.method for each in compare([a, b]).differences] == ["unpaired"]


def test_differences_are_to_the_first_run_that_has_the_figure(tmp_path: Path, a: Path, b: Path) -> None:
    c = new_run(tmp_path / "c", 10)
    for run, share in ((b, 0.9), (c, 0.8)):
        add_knn(run, share)
    add(a, "retrieve", mean_average_precision=0.5)
    add(c, "retrieve", mean_average_precision=0.75)
    found = [(each.title, each.run, each.reference, each.method) for each in compare([a, b, c]).differences]
    assert found == [("k-NN top-1", "c", "b", "paired"), ("retrieval mAP", "c", "a", "none")]


def test_equal_runs_are_both_best(a: Path, b: Path) -> None:
    for run in (a, b):
        add_knn(run, 0.9)
    assert compare([a, b]).columns[0].best == (0, 1)


@pytest.mark.parametrize(
    ("change", "titles"),
    [
        ({"k": 10}, ("k-NN top-1 (k 20)", "k-NN top-1 (k 10)")),
        ({"settings": {"precision": "bf16"}}, ("k-NN top-1", "k-NN top-1")),
        (
            {"data": "photos/", "fingerprint": "f" * 64},
            ("k-NN top-1 (builtin:digits)", "k-NN top-1 (photos/)"),
        ),
        ({"fingerprint": "f" * 64}, ("k-NN top-1 (builtin:digits digits)", "k-NN top-1 (builtin:digits ffffffff)")),
    ],
)
def test_what_was_measured_otherwise_stands_apart(
    a: Path, b: Path, change: dict[str, object], titles: tuple[str, str]
) -> None:
    add_knn(a, 0.9)
    add_knn(b, 0.8, **change)
    found = compare([a, b])
    assert found.differences == () and all(column.best == () for column in found.columns)
    assert [[cell is not None for cell in column.cells] for column in found.columns] == [[True, False], [False, True]]
    assert tuple(column.title for column in found.columns) == titles or "settings" in change
    assert found.notes == (
        "k-NN top-1 was measured on different data or with different settings; such figures do not compare.",
    )


def test_long_settings_are_counted_in_titles(a: Path, b: Path) -> None:
    for run, rates in ((a, [0.1, 1.0]), (b, [0.1 * step for step in range(1, 46)])):
        add(run, "linear-probe", top1=0.9, num_test=400, settings={"lrs": rates})
    titles = [column.title for column in compare([a, b]).columns]
    assert titles == ["linear probe top-1 (lrs 0.1,1)", "linear probe top-1 (45 lrs)"]


@pytest.mark.parametrize(
    "settings", [{"device": "cuda"}, {"workers": 4}, {"ks": [20]}, {"no_baselines": True}, {"checkpoints": "all"}]
)
def test_settings_that_change_no_figure_keep_the_column(a: Path, b: Path, settings: dict[str, object]) -> None:
    add_knn(a, 0.9, settings={"device": "cpu", "workers": 0, "ks": [10, 20], "seed": 0})
    add_knn(b, 0.8, settings=settings)
    assert len(compare([a, b]).columns) == 1


def test_an_earlier_evaluation_fills_a_column_that_another_run_opened(a: Path, b: Path) -> None:
    add_knn(a, 0.9)
    add_knn(a, 0.85, k=10)
    add_knn(b, 0.8)
    columns = {column.title: column for column in compare([a, b]).columns}
    assert set(columns) == {"k-NN top-1 (k 20)", "k-NN top-1 (k 10)"}
    assert [cell and cell.value for cell in columns["k-NN top-1 (k 20)"].cells] == [0.9, 0.8]
    assert [column.title for column in compare([a]).columns] == ["k-NN top-1"]


def test_every_data_set_of_a_run_has_its_column(a: Path) -> None:
    add_knn(a, 0.9)
    add_knn(a, 0.6, data="photos/", fingerprint="photos")
    assert [column.title for column in compare([a]).columns] == [
        "k-NN top-1 (builtin:digits)",
        "k-NN top-1 (photos/)",
    ]


def test_what_was_not_measured_is_left_out(a: Path) -> None:
    add_knn(a, 0.9, baseline_random=None, baseline_pixels=None)
    add(a, "retrieve", mean_average_precision=None)
    (column,) = compare([a]).columns
    assert column.cells[0] is not None and column.cells[0].random is None and column.cells[0].pixels is None


def test_baselines_of_an_earlier_evaluation_stay(a: Path) -> None:
    add_knn(a, 0.5, baseline_random=0.3)
    add_knn(a, 0.9, baseline_random=None, baseline_pixels=0.8)
    add_knn(a, 0.6, k=10, baseline_random=None)
    add_knn(a, 0.9, baseline_random=None, baseline_pixels=None)
    cell = compare([a]).columns[0].cells[0]
    assert cell is not None and (cell.value, cell.random, cell.pixels) == (0.9, 0.3, 0.8)


def test_notes_on_steps_and_unknown_commands(tmp_path: Path) -> None:
    run = new_run(tmp_path / "a", 10, 30)
    add_knn(run, 0.9, step=20)
    add(run, "retrieve", step=10, mean_average_precision=0.5)
    add(run, "divination", luck=1)
    assert compare([run]).notes == (
        "a: evaluations of divination are not compared by this version.",
        "a was evaluated at different steps: k-NN top-1 at 20, retrieval mAP at 10.",
        "a was evaluated at step 20, but has a checkpoint of step 30.",
    )


def test_fine_tuned_runs_may_have_different_recipes(a: Path, b: Path) -> None:
    add_finetune(a, a, 0.9, settings={"optim.lr": 0.001, "model.from_scratch": False, "train.epochs": 20})
    add_finetune(
        b, b, 0.7, from_scratch=True, settings={"optim.lr": 0.001, "model.from_scratch": True, "train.epochs": 20}
    )
    found = compare([a, b])
    assert [column.title for column in found.columns] == ["fine-tuned top-1"]
    assert [each.method for each in found.differences] == ["paired"]
    assert found.notes == ("fine-tuned top-1: the runs differ in model.from_scratch.",)
    add_finetune(b, b, 0.8, settings={"model.image_size": 32})
    assert [column.title for column in compare([a, b]).columns] == [
        "fine-tuned top-1",
        "fine-tuned top-1 (model.image_size 32)",
    ]


def test_training_from_scratch_is_the_baseline_in_the_run_that_it_began_with(tmp_path: Path, a: Path) -> None:
    def cells() -> dict[str, tuple[float, float | None] | None]:
        return {
            column.title: each and (each.value, each.random) for column in compare([a]).columns for each in column.cells
        }

    add_finetune(a, tmp_path / "scratch", 0.6, from_scratch=True)
    assert cells() == {"from scratch top-1": (0.6, None)}
    add_finetune(a, tmp_path / "tuned", 0.9)
    add_finetune(a, tmp_path / "few", 0.8, num_train=100)
    add_finetune(a, tmp_path / "scratch", 0.7, from_scratch=True)
    assert cells() == {"fine-tuned top-1": (0.9, 0.7), "fine-tuned top-1, 100 of 1,437 labels": (0.8, None)}
    add_finetune(a, tmp_path / "longer", 0.75, from_scratch=True, settings={"train.epochs": 500})
    add_finetune(a, tmp_path / "scratch", 0.65, from_scratch=True)
    assert cells()["fine-tuned top-1"] == (0.9, 0.75)
    add_finetune(a, tmp_path / "again", 0.95, scratch_top1=0.8)
    assert cells()["fine-tuned top-1"] == (0.95, 0.8)


def test_runs_of_the_same_name(tmp_path: Path) -> None:
    runs = [new_run(tmp_path / part / "run", 10) for part in ("x", "y")]
    for run in runs:
        add_knn(run, 0.9)
    assert compare(runs).runs == tuple(map(str, runs))


def test_a_name_is_found_for_the_current_directory(a: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_knn(a, 0.9)
    monkeypatch.chdir(a)
    assert compare([Path(os.curdir)]).runs == ("a",)


def test_runs_without_evaluations(a: Path, b: Path) -> None:
    with pytest.raises(RunError, match=r"No evaluation is recorded in .*a or .*b\.") as caught:
        compare([a, b])
    assert caught.value.hint == f"Evaluate first, for example: ibot knn-eval {a} DATA"
    assert compare([a, b], allow_empty=True).columns == ()
    add_knn(a, 0.9)
    assert compare([a, b]).notes == (f"b has no recorded evaluation; run for example: ibot knn-eval {b} DATA",)


def test_what_is_no_run(tmp_path: Path, a: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        compare([a, tmp_path / "none"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="is not a run"):
        compare([tmp_path / "folder"])
