import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ibot_cli.data.sources import open_source
from ibot_cli.data.splits import parts_of_images
from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.features import feature_pass
from ibot_cli.evaluate.retrieval.duplicate_result import duplicates_csv
from ibot_cli.evaluate.retrieval.duplicate_search import check_threshold, find_duplicates
from ibot_cli.weights.load import LoadedBackbone
from tests.evaluate.passes import loaded


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Parts with an image three times, one of them within another part, a file that is none, and noise."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for part in ("train", "val"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for index in range(4):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    root / part / name / f"{index}.png"
                )
    original = Image.open(root / "train" / "a" / "1.png")
    original.save(root / "train" / "b" / "copy.bmp")
    original.save(root / "val" / "a" / "copy.tiff")
    (root / "val" / "b" / "bad.png").write_bytes(b"no image")
    return root


def pixels(levels: float = 1.0) -> LoadedBackbone:
    """A network whose features are far apart for noise."""
    return loaded(mean=(0.5,) * 3, std=(0.1 / levels,) * 3)


def test_identical_images_across_parts_and_classes(data: Path) -> None:
    result, source = find_duplicates(pixels(), str(data), threshold=0.99999)
    (group,) = [group for group in result.groups if any(image.identical_to for image in group)]
    paths = [str(data / name) for name in ("train/a/1.png", "train/b/copy.bmp", "val/a/copy.tiff")]
    assert [image.path for image in group] == paths == [source.path(image.place) for image in group]
    assert [image.part for image in group] == ["train", "train", "val"]
    assert [image.label for image in group] == ["a", "b", "a"]
    assert [image.identical_to for image in group] == [None, paths[0], paths[0]]
    assert [image.similarity for image in group] == [1.0] * 3
    assert (result.num_images, result.num_identical) == (18, 2)
    assert result.num_grouped - len(result.groups) == result.num_extra >= 2
    assert (result.num_across, result.num_mixed) == (1, 1)
    assert any("bad.png could not be read and was left out" in note for note in result.notes)


def test_threshold_decides_and_similarity_is_that_of_the_nearest(data: Path) -> None:
    source = open_source(str(data), channels=3, split="all")
    rows = feature_pass(pixels(), source).pooled("cls").double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T - 9 * np.eye(len(rows))
    threshold = float(np.quantile(cosines.max(axis=1), 0.4))
    result, _ = find_duplicates(pixels(), str(data), threshold=threshold)
    similar = {image.path: image.similarity for group in result.groups for image in group}
    readable = feature_pass(pixels(), source).index
    expected = {
        source.path(int(readable[row])): value for row, value in enumerate(cosines.max(axis=1)) if value > threshold
    }
    assert similar == pytest.approx(expected, abs=1e-6) and len(similar) > 3


def test_parts_only_where_there_are_some(data: Path) -> None:
    result, _ = find_duplicates(pixels(), str(data), part="train", threshold=0.99999)
    assert result.num_across is None and result.num_images == 9
    assert {image.part for group in result.groups for image in group} == {None}
    flat, _ = find_duplicates(pixels(), str(data / "train" / "a"))
    assert flat.num_across is None and flat.num_mixed is None
    digits = open_source("builtin:digits", channels=1, split="all")
    names = parts_of_images("builtin:digits", digits)
    assert names is not None and (names.count("train"), names.count("test")) == (1437, 360)


def test_crowded_features_raise_doubts(data: Path) -> None:
    far = loaded(mean=(-50.0,) * 3, std=(0.01,) * 3)  # all images look alike to it
    result, _ = find_duplicates(far, str(data))
    assert result.typical_cosine is not None and result.typical_cosine > 0.99
    assert any(
        "more likely images that this network hardly tells apart than copies" in note and "--sheet" in note
        for note in result.notes
    )
    assert len(result.groups) == 1 and result.num_grouped == 18


def test_none_and_a_single_image(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "a.png")
    result, _ = find_duplicates(pixels(), str(tmp_path / "one"))
    assert result.groups == () and result.typical_cosine is None and result.num_identical == 0
    (tmp_path / "one" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="can be read"):
        find_duplicates(pixels(), str(tmp_path / "one"))


def test_as_csv(data: Path) -> None:
    result, _ = find_duplicates(pixels(), str(data), threshold=0.99999)
    rows = list(csv.DictReader(io.StringIO(duplicates_csv(result.groups))))
    images = [image for group in result.groups for image in group]
    assert [row["path"] for row in rows] == [image.path for image in images]
    assert [row["identical_to"] for row in rows] == [image.identical_to or "" for image in images]
    assert {row["group"] for row in rows} == {str(number + 1) for number in range(len(result.groups))}
    assert list(rows[0]) == ["group", "path", "part", "label", "similarity", "identical_to"]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.0, 0.9999999, float("nan")])
def test_thresholds_that_separate_nothing(threshold: float) -> None:
    with pytest.raises(UsageError, match=r"--threshold .* is not above 0 and at most 0\.99999") as caught:
        check_threshold(threshold)
    assert caught.value.hint is not None and "Identical images are named as such at any threshold" in caught.value.hint
    assert check_threshold(0.95) == 0.95
