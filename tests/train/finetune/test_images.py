"""Which labels are used, and data that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import from_mapping
from ibot_cli.errors import DataError
from ibot_cli.evaluate.labelled import open_labelled
from ibot_cli.train.finetune.images import FinetuneImages, choose_images, require_every_class
from tests.evaluate.images import write_folder


def choose(data: Path | str, **settings: object) -> FinetuneImages:
    config = from_mapping({path.replace("__", "."): value for path, value in settings.items()}, "test", FinetuneConfig)
    return choose_images(open_labelled(str(data), channels=1), config)


def test_all_labels() -> None:
    images = choose("builtin:digits")
    assert (len(images.train.source), images.holdout, len(images.test.source)) == (1437, None, 360)
    assert images.available == images.labels_used == 1437 and images.classes == tuple("0123456789")


def test_so_many_of_each_class_with_their_labels() -> None:
    images = choose("builtin:digits", labels__per_class=10)
    assert np.bincount(images.train.labels).tolist() == [10] * 10
    split = open_labelled("builtin:digits", channels=1)
    where = {split.train.source.path(index): label for index, label in enumerate(split.train.labels.tolist())}
    source = images.train.source
    assert [where[source.path(index)] for index in range(100)] == images.train.labels.tolist()
    assert source.labels.tolist() == images.train.labels.tolist()
    assert images.fingerprint == split.fingerprint


def test_a_holdout_is_a_part_of_the_chosen_labels() -> None:
    images = choose("builtin:digits", labels__per_class=10, train__holdout_ratio=0.2)
    assert np.bincount(images.train.labels).tolist() == [8] * 10
    assert np.bincount(images.holdout.labels).tolist() == [2] * 10
    assert images.labels_used == 100
    chosen = choose("builtin:digits", labels__per_class=10).train.source
    parts = [part.source for part in (images.train, images.holdout)]
    names = [{part.path(index) for index in range(len(part))} for part in parts]
    assert names[0] | names[1] == {chosen.path(index) for index in range(100)} and not names[0] & names[1]


def test_a_share_of_tiny_classes_takes_one_and_says_so(tmp_path: Path) -> None:
    images = choose(write_folder(tmp_path, {"a": 30, "b": 4}), labels__fraction=0.1)
    assert np.bincount(images.train.labels).tolist() == [2, 1]
    assert "1 classes have so few images that one of each was taken all the same." in images.notes


def test_the_numbering_is_common_to_both_parts(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_folder(tmp_path / part, {"10": 3, "9": 3, "x": 3})
    images = choose(tmp_path)
    assert images.classes == ("9", "10", "x")
    for part in (images.train, images.test):
        names = [Path(part.source.path(index)).parent.name for index in range(len(part.source))]
        assert [images.classes[label] for label in part.labels] == names
    source = images.train.source
    assert [source.classes[label] for label in source.labels] == [
        images.classes[label] for label in images.train.labels
    ]


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ({"a": 3, "b": 3}, {"a": 2, "b": 2, "c": 2}, "only the test images have c"),
        ({"a": 3, "b": 3, "cat": 3}, {"a": 2, "b": 2}, "only the training images have cat"),
        ({"a": 3, "cat": 3}, {"a": 2, "cats": 2}, "only the training images have cat; only the test images have cats"),
    ],
)
def test_class_folders_that_differ(tmp_path: Path, train: dict[str, int], val: dict[str, int], message: str) -> None:
    write_folder(tmp_path / "train", train)
    write_folder(tmp_path / "val", val)
    with pytest.raises(DataError) as caught:
        choose(tmp_path)
    expected = f"The class folders of the training and the test images differ: {message}."
    assert caught.value.message == expected and caught.value.hint is not None


def test_a_class_of_a_single_image_has_none_to_test(tmp_path: Path) -> None:
    images = choose(write_folder(tmp_path, {"a": 5, "b": 5, "lonely": 1}))
    assert np.bincount(images.train.labels).tolist() == [4, 4, 1]


def test_data_that_cannot_be_learnt(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "images", {"a": 5, "b": 5})
    with pytest.raises(DataError, match="has no labels"):
        choose(data / "a")
    with pytest.raises(DataError, match=r"has 4 images, fewer than labels\.per_class = 9"):
        choose(data, labels__per_class=9)


def test_every_class_needs_an_image() -> None:
    require_every_class(np.array([1, 0, 1]), ["a", "b"])
    with pytest.raises(DataError, match=r"There is no training image of b, d among the chosen labels\."):
        require_every_class(np.array([0, 2, 2]), ["a", "b", "c", "d"])
