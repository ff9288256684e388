"""Class probabilities against the classifier called by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch

from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError
from ibot_cli.evaluate.predict import as_csv, class_scores, open_images, predict
from ibot_cli.weights.load import LoadedBackbone, load_weights
from tests.evaluate.images import write_folder
from tests.weights.finetuned_files import write_run


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedBackbone:
    write_run(tmp_path / "run")
    return load_weights(str(tmp_path / "run"))


def test_probabilities_are_those_of_the_classifier(loaded: LoadedBackbone, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"a": 3, "b": 2})
    source = open_images([str(folder)], 1)
    found = predict(loaded, source)
    transform = eval_transform(16, 0.9, 1, (0.3,), (0.4,))
    with torch.no_grad():
        scores = loaded.classifier(torch.stack([transform(source.read(index)) for index in range(5)]))
    expected = scores.double().softmax(1)
    assert [image.path for image in found.images] == [source.path(index) for index in range(5)]
    for image, row in zip(found.images, expected, strict=True):
        ours = [image.probabilities[name] for name in found.classes]
        assert ours == pytest.approx(row.tolist(), abs=1e-6) and sum(ours) == pytest.approx(1)
        assert image.prediction == found.classes[int(row.argmax())] and image.confidence == max(ours)
        assert list(image.probabilities.values()) == sorted(ours, reverse=True)


def test_scores_keep_the_mode_of_the_classifier(loaded: LoadedBackbone, tmp_path: Path) -> None:
    source = open_images([str(write_folder(tmp_path / "images", {"a": 2}))], 1)
    transform = eval_transform(16, 0.9, 1, (0.3,), (0.4,))
    for training in (True, False):
        loaded.classifier.train(training)
        class_scores(loaded.classifier, source, transform)
        assert loaded.classifier.training is training


def test_files_and_folders_in_the_order_given(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"a": 11, "b": 1})
    single = str(folder / "b/0.png")
    source = open_images([single, str(folder / "a")], 3)
    names = [Path(source.path(index)).relative_to(folder).as_posix() for index in range(len(source))]
    assert names == ["b/0.png", *(f"a/{index}.png" for index in range(11))]


def test_folders_named_train_are_not_special(tmp_path: Path) -> None:
    write_folder(tmp_path / "images/train", {"a": 2})
    write_folder(tmp_path / "images/val", {"a": 3})
    assert len(open_images([str(tmp_path / "images")], 1)) == 5


def test_places_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no image"):
        open_images([str(tmp_path / "empty")], 1)
    with pytest.raises(DataError, match=r"There is no image or folder nothing\.jpg"):
        open_images(["nothing.jpg"], 1)
    with pytest.raises(DataError, match="builtin:digits") as caught:
        open_images(["builtin:digits"], 1)
    assert "embedded data set has no files" in str(caught.value.hint)


def test_top_classes_as_csv(loaded: LoadedBackbone, tmp_path: Path) -> None:
    source = open_images([str(write_folder(tmp_path / "images", {"a": 2}))], 1)
    whole, two, many = (predict(loaded, source, top=top) for top in (None, 2, 99))
    rows = list(csv.DictReader(io.StringIO(as_csv(two, 2))))
    for image, row in zip(whole.images, rows, strict=True):
        best = list(image.probabilities.items())[:2]
        assert list(row) == ["path", "prediction", "confidence", "class_1", "probability_1", "class_2", "probability_2"]
        assert [row["class_1"], row["class_2"]] == [name for name, _ in best]
        assert row["probability_2"] == f"{best[1][1]:.6f}" and row["prediction"] == row["class_1"]
    assert as_csv(many, 99).splitlines()[0].endswith("class_3,probability_3")
    assert as_csv(whole).splitlines()[0] == (
        "path,prediction,confidence,probability_dark,probability_light,probability_odd"
    )
