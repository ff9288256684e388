from pathlib import Path

import numpy as np
import pytest

from ibot_cli.errors import DataError
from ibot_cli.evaluate.labelled import label_parts, one_sided_notes, open_labelled
from tests.evaluate.images import Coloured, write_folder


def test_own_split_with_different_class_sets(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 3, "c": 2})
    write_folder(tmp_path / "val", {"b": 2, "c": 1})
    split = open_labelled(str(tmp_path), channels=3)
    assert split.classes == ["a", "b", "c"]
    assert split.train.labels.tolist() == [0, 0, 0, 2, 2]
    assert split.test.labels.tolist() == [1, 1, 2]
    assert split.notes == [
        "Classes without a training image: b. Their test images (2) count as errors.",
        "Classes without a test image: a. They can be predicted, but nothing tests them.",
    ]


def test_hold_out_is_stated_and_repeatable(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10, "b": 5})
    split, again = (open_labelled(str(tmp_path), channels=3, seed=3) for _ in range(2))
    assert np.bincount(split.test.labels).tolist() == [2, 1]
    assert "seed 3" in split.sentence and "hold-out" in split.sentence
    assert split.fingerprint == again.fingerprint
    assert split.fingerprint != open_labelled(str(tmp_path), channels=3, seed=4).fingerprint


def test_digits_use_their_own_split() -> None:
    split = open_labelled("builtin:digits", channels=1)
    assert (len(split.train.labels), len(split.test.labels), len(split.classes)) == (1437, 360, 10)


def test_numbers_are_ordered_by_value() -> None:
    source = Coloured([0, 1, 2])
    source.classes = ["10", "9", "x"]
    assert label_parts(source, source, "data", "").classes == ["9", "10", "x"]


def test_no_labels(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10})
    flat = tmp_path / "a"
    with pytest.raises(DataError, match="has no labels, which this evaluation needs") as caught:
        open_labelled(str(flat), channels=3)
    assert caught.value.hint is not None and "folder of its own" in caught.value.hint


def test_one_class() -> None:
    with pytest.raises(DataError, match="DATA has one class only, colour 1"):
        label_parts(Coloured([1, 1]), Coloured([1]), "DATA", "")


def renamed(labels: list[int], *classes: str) -> Coloured:
    source = Coloured(labels)
    source.classes = list(classes)
    return source


def test_one_training_class() -> None:
    with pytest.raises(DataError, match="The training images of DATA have one class only, cat; every answer") as caught:
        label_parts(renamed([0, 0], "cat"), renamed([0, 1], "cat", "dog"), "DATA", "")
    assert caught.value.hint == "Give training images of at least two classes."


def test_no_class_in_common() -> None:
    train, test = renamed([0, 1], "cat", "dog"), renamed(list(range(7)), "10", "9", "d", "c", "b", "a", "e")
    expected = (
        "The two parts of DATA have no class in common: cat, dog for training, 9, 10, a, b, c and 2 more for testing."
    )
    with pytest.raises(DataError) as caught:
        label_parts(train, test, "DATA", "")
    assert caught.value.message == expected
    assert caught.value.hint == "Name the folder of a class alike in both parts."
    with pytest.raises(DataError, match="no class in common: cat for training, dog for testing"):
        label_parts(renamed([0], "cat"), renamed([0], "dog"), "DATA", "")


def test_many_one_sided_classes_are_counted_and_not_all_named() -> None:
    labels = np.arange(9)
    notes = one_sided_notes([str(label) for label in labels], labels[:2], labels[1:])
    assert notes == [
        "Classes without a training image: 2, 3, 4, 5, 6 and 2 more. Their test images (7) count as errors.",
        "Classes without a test image: 0. They can be predicted, but nothing tests them.",
    ]
    assert one_sided_notes(["a", "b"], labels[:2], labels[:2]) == []


def test_a_class_of_one_image_is_not_held_out(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10, "lonely": 1})
    split = open_labelled(str(tmp_path), channels=3)
    assert "Classes without a test image: lonely. They can be predicted, but nothing tests them." in split.notes


def test_empty_part() -> None:
    with pytest.raises(DataError, match="too few images for a training and a test part"):
        label_parts(Coloured([0, 1]), Coloured([]), "DATA", "")


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        open_labelled(str(tmp_path), channels=3)


def test_parts_that_are_not_used_are_noted(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_folder(tmp_path / part, {"a": 2, "b": 2})
    split = open_labelled(str(tmp_path), channels=3)
    assert "The images are those in val/; train/, test/ not used." in split.notes
