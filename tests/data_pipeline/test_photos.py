"""The embedded photographs: disjoint rectangles, honest labels, crops that lie where their path says."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from ibot_cli.data.photos import PHOTOGRAPHS, RECTANGLES, SIDE, PhotosSource, Rectangle
from ibot_cli.data.sources import open_source
from ibot_cli.data.splits import open_splits

CLASSES = sorted({rectangle.label for rectangle in RECTANGLES})


def place(source: PhotosSource, index: int) -> tuple[str, int, int]:
    """Class, left and top as the path says them."""
    label, _, corner = source.path(index).removeprefix("builtin:photos/").rpartition("/")
    left, top = map(int, corner.split(","))
    return label, left, top


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_no_pixel_is_in_two_rectangles(photograph: str) -> None:
    times = np.zeros((427, 640), dtype=int)
    for _, _, left, top, right, bottom, _ in (r for r in RECTANGLES if r.photograph == photograph):
        assert 0 <= left < right <= 640 and 0 <= top < bottom <= 427
        times[top:bottom, left:right] += 1
    assert times.max() == 1


def test_no_pixel_is_in_a_training_crop_and_a_test_crop() -> None:
    covered = {
        (split, photograph): np.zeros((427, 640), dtype=bool)
        for split in ("train", "test")
        for photograph in PHOTOGRAPHS
    }
    for split in ("train", "test"):
        source = PhotosSource(channels=3, split=split)
        for index in range(len(source)):
            label, left, top = place(source, index)
            covered[split, label.split("/")[0]][top : top + SIDE, left : left + SIDE] = True
    for photograph in PHOTOGRAPHS:
        assert covered["train", photograph].any() and covered["test", photograph].any()
        assert not (covered["train", photograph] & covered["test", photograph]).any()


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_are_those_of_the_rectangle(split: str) -> None:
    source = open_source("builtin:photos", channels=3, split=split)
    for index in range(len(source)):
        label, left, top = place(source, index)
        around = [
            r
            for r in RECTANGLES
            if r.photograph == label.split("/")[0]
            and (r.left <= left and left + SIDE <= r.right)
            and (r.top <= top and top + SIDE <= r.bottom)
        ]
        assert [(r.label, r.split) for r in around] == [(label, split)]
        assert source.classes[source.labels[index]] == label


def test_every_class_has_both_parts_in_like_numbers() -> None:
    train, test, sentence = open_splits("builtin:photos", channels=3)
    assert train.classes == test.classes == CLASSES and 7 <= len(CLASSES) <= 10
    assert sentence == "The data's own split: 1,485 training and 440 test images."
    for part in (train, test):
        counts = np.bincount(part.labels, minlength=len(CLASSES))
        assert counts.max() < 1.6 * counts.min() and part.labels.dtype == np.int64


def test_all_is_the_training_part_and_then_the_test_part() -> None:
    train, test, whole = (PhotosSource(channels=3, split=split) for split in ("train", "test", "all"))
    paths = [whole.path(index) for index in range(len(whole))]
    assert paths == [part.path(index) for part in (train, test) for index in range(len(part))]
    assert len(set(paths)) == len(paths) and whole.labels.tolist() == [*train.labels, *test.labels]
    assert (train.name, test.name, whole.name) == (
        "builtin:photos (train)", "builtin:photos (test)", "builtin:photos",
    )  # fmt: skip


def test_crops_are_the_pixels_at_their_place() -> None:
    source = PhotosSource(channels=3, split="all")
    pictures = {name: load_sample_image(f"{name}.jpg") for name in PHOTOGRAPHS}
    for index in range(0, len(source), 37):
        label, left, top = place(source, index)
        crop = source.read(index)
        assert crop.mode == "RGB" and crop.size == (SIDE, SIDE)
        expected = pictures[label.split("/")[0]][top : top + SIDE, left : left + SIDE]
        np.testing.assert_array_equal(np.asarray(crop), expected)


def test_grey_crops_are_the_grey_version_of_the_colours() -> None:
    grey, colour = (PhotosSource(channels=channels, split="test") for channels in (1, 3))
    assert grey.read(3).mode == "L" and grey.fingerprint == colour.fingerprint
    np.testing.assert_array_equal(np.asarray(grey.read(3)), np.asarray(colour.read(3).convert("L")))
    assert grey.open(3).stored_mode == colour.open(3).stored_mode == "RGB"


def test_reading_again_gives_the_same_and_travels_to_worker_processes() -> None:
    source, again = (PhotosSource(channels=3, split="test") for _ in range(2))
    copy = pickle.loads(pickle.dumps(source))
    assert source.fingerprint == again.fingerprint and len(source.fingerprint) == 64
    for other in (source, again, copy):
        assert other.read(7).tobytes() == source.read(7).tobytes() and other.path(7) == source.path(7)
    prints = {PhotosSource(channels=3, split=split).fingerprint for split in ("train", "test", "all")}
    assert len(prints) == 3


def test_crops_slide_row_by_row_and_stay_inside() -> None:
    rectangle = Rectangle("china/sky", "train", 10, 20, 10 + SIDE + 5, 20 + SIDE + 4, 4)
    assert list(rectangle.corners()) == [(10, 20), (14, 20), (10, 24), (14, 24)]
    assert rectangle.photograph == "china"
