from pathlib import Path

import numpy as np
import pytest

from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.cluster.images import choose_ks, classes_of, open_images
from tests.evaluate.images import Coloured, write_folder


def test_the_test_part_where_there_is_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 3, "b": 4})
    write_folder(tmp_path / "val", {"a": 2, "b": 3}, seed=1)
    sizes = {part: open_images(str(tmp_path), channels=3, part=part) for part in ("auto", "test", "train", "all")}
    assert [len(found.source) for found in sizes.values()] == [5, 5, 7, 12]
    assert sizes["auto"].sentence == f"5 images: test images of {tmp_path}."
    assert sizes["train"].sentence == f"7 images: training images of {tmp_path}."
    assert sizes["auto"].fingerprint == sizes["test"].fingerprint
    assert len({found.fingerprint for found in sizes.values()}) == 3
    assert all(classes_of(found.source, np.arange(5))[0] is not None for found in sizes.values())


def test_everything_where_there_is_none(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 3, "b": 4})
    found = open_images(str(tmp_path), channels=3)
    assert len(found.source) == 7 and found.sentence == f"7 images: all images of {tmp_path}."
    with pytest.raises(DataError, match="no test"):
        open_images(str(tmp_path), channels=3, part="test")


def test_labels_are_renumbered_over_the_classes_that_occur() -> None:
    found, excuse = classes_of(Coloured([2, 0, 1, 2, 0]), np.array([0, 1, 3]))
    assert found is not None and excuse is None
    assert found.names == ("colour 0", "colour 2") and found.labels.tolist() == [1, 0, 1]


def test_classes_without_names_are_ordered_by_value() -> None:
    source = Coloured([10, 2, 10])
    source.classes = None
    found, _ = classes_of(source, np.arange(3))
    assert found is not None and found.names == ("2", "10") and found.labels.tolist() == [1, 0, 1]


def test_no_labels_and_one_class() -> None:
    assert classes_of(Coloured(None, 4), np.arange(4)) == (None, None)
    found, excuse = classes_of(Coloured([1, 1, 2]), np.array([0, 1]))
    assert found is None and excuse is not None
    assert excuse == "All images are of one class, colour 1, with which no clusters can agree; it is left out."


@pytest.mark.parametrize(
    ("ks", "images", "classes", "expected"),
    [
        (None, 360, 10, [10]),
        (None, 360, None, [10, 20, 50]),
        (None, 10_000, None, [10, 20, 50, 100]),
        (None, 49, None, [9]),
        (None, 4, None, [2]),
        (None, 1, None, [1]),
        ([20, 5, 20], 360, 10, [5, 20]),
        ([360], 360, None, [360]),
    ],
)
def test_numbers_of_clusters(ks: list[int] | None, images: int, classes: int | None, expected: list[int]) -> None:
    assert choose_ks(ks, images, classes) == expected


def test_more_clusters_than_images() -> None:
    with pytest.raises(UsageError, match=r"--k 361: there are only 360 images") as caught:
        choose_ks([10, 361], 360, 10)
    assert caught.value.hint == "Ask for 360 clusters at most, or take more images with --split all."
