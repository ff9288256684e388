from pathlib import Path
from typing import Any

import pytest

from ibot_cli.evaluate.measures import figures_of, recipe_of, settings_of
from ibot_cli.runs.evaluations import read_evaluations
from tests.evaluate.records import add, add_cluster, add_finetune, add_knn, new_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return new_run(tmp_path / "run", 10)


def figures(run: Path) -> list[tuple[Any, ...]]:
    found = figures_of(read_evaluations(run)[-1])
    return [(each.measure, each.value, each.random, each.pixels) for each in found]


def test_knn(run: Path) -> None:
    add_knn(run, 0.95)
    (figure,) = figures_of(read_evaluations(run)[0])
    assert (figure.measure, figure.value, figure.total, figure.scored) == ("k-NN top-1", 0.95, 400, True)
    assert (figure.random, figure.pixels) == (0.4, 0.9)


@pytest.mark.parametrize(("solver", "measure"), [("sgd", "linear probe top-1"), ("lbfgs", "logistic regression top-1")])
def test_linear(run: Path, solver: str, measure: str) -> None:
    fields = {"baseline_random": 0.4, "baseline_pixels": 0.8, "num_test": 360, "chosen": {"solver": solver}}
    add(run, "linear-probe", top1=0.9, **fields)
    assert figures(run) == [(measure, 0.9, 0.4, 0.8)]


def test_clusters(run: Path) -> None:
    add_cluster(run, 0.8)
    found = [(name, round(value, 6), random, pixels) for name, value, random, pixels in figures(run)]
    assert found == [
        ("prototypes NMI", 0.6, None, None),
        ("prototypes AMI", 0.5, None, None),
        ("k-means ACC", 0.75, 0.2, 0.2),
        ("k-means NMI", 0.8, 0.3, 0.7),
        ("k-means AMI", 0.7, pytest.approx(0.2), pytest.approx(0.6)),
        ("k-means NMI, 50 clusters", 0.9, None, None),
        ("k-means AMI, 50 clusters", 0.8, None, None),
    ]
    assert all(figure.total is None and not figure.scored for figure in figures_of(read_evaluations(run)[0]))


def test_clusters_without_labels(run: Path) -> None:
    add(run, "cluster", rows=[{"method": "kmeans", "k": 10, "scores": None}], baselines=(), num_classes=None)
    assert figures(run) == []


def test_retrieval(run: Path) -> None:
    add(run, "retrieve", mean_average_precision=0.7, baselines={"random_map": 0.2, "pixels_map": 0.6})
    assert figures(run) == [("retrieval mAP", 0.7, 0.2, 0.6)]
    add(run, "retrieve", mean_average_precision=0.7, baselines=None)
    assert figures(run) == [("retrieval mAP", 0.7, None, None)]


def test_fine_tuning_has_settings_that_tell_columns_apart_and_a_recipe(run: Path) -> None:
    settings = {"optim.lr": 0.001, "labels.fraction": 0.1, "train.epochs": 20, "optim.betas": [0.9, 0.999]}
    settings |= {"train.eval_epochs": 5, "runtime.device": "cuda", "train.checkpoint_epochs": 5}
    add_finetune(run, run, 0.9, settings=settings, num_train=144)
    (record,) = read_evaluations(run)
    assert settings_of(record) == {"labels.fraction": "0.1"}
    assert recipe_of(record) == {"optim.lr": "0.001", "train.epochs": "20", "optim.betas": "0.9,0.999"}
    assert [each.measure for each in figures_of(record)] == ["fine-tuned top-1, 144 of 1,437 labels"]


def test_other_commands_have_settings_only(run: Path) -> None:
    add_knn(run, 0.9, settings={"device": "cuda", "precision": "bf16", "k": [5, 20], "which": "student"})
    (record,) = read_evaluations(run)
    assert settings_of(record) == {"k": "20", "precision": "bf16", "temperature": "0.07", "which": "student"}
    assert recipe_of(record) == {}


def test_unknown_commands_have_no_figures(run: Path) -> None:
    add(run, "divination", top1=1.0)
    assert figures(run) == []


def test_correspondence(run: Path) -> None:
    random = [{"accuracy": 0.1}, {"accuracy": 0.3}]
    seen = {"size": 48, "grid": 6, "changes": "not mirrored"}
    settings = {"pairs": 2, "changes": "run", "size": None}
    trained, chance = {"accuracy": 0.5, "interval": [0.4, 0.6]}, {"same_place": 0.45}
    add(run, "visualize-correspondence", trained=trained, random=random, chance=chance, settings=settings, **seen)
    assert figures(run) == [("patches found again", 0.5, pytest.approx(0.2), None)]
    (figure,) = figures_of(read_evaluations(run)[0])
    assert (figure.interval, figure.same_place, figure.total) == ((0.4, 0.6), 0.45, None)
    assert settings_of(read_evaluations(run)[0]) == {"changes": "not mirrored", "grid": "6", "pairs": "2", "size": "48"}
    add(run, "visualize-correspondence", trained={"accuracy": 0.5}, random=[], size=48)
    assert figures(run) == [("patches found again", 0.5, None, None)]
    assert figures_of(read_evaluations(run)[1])[0].interval is None
