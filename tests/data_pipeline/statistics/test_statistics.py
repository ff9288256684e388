"""The statistics of a folder in which everything occurs, against what was put there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from ibot_cli.data.decode import FilePicture
from ibot_cli.data.statistics.measure import Measuring
from ibot_cli.data.statistics.result import Spread, Statistics
from ibot_cli.data.statistics.statistics import measure_data
from ibot_cli.errors import DataError


def tile(left: int, top: int, width: int = 90, height: int = 60) -> Image.Image:
    """A place in a photograph."""
    return Image.fromarray(load_sample_image("china.jpg")).crop((left, top, left + width, top + height))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    for part in ("train/roof", "train/lake", "val/roof", "val/lake"):
        (root / part).mkdir(parents=True)
    tile(150, 80).save(root / "train/roof/0.png")
    tile(150, 80).save(root / "train/lake/1.jpg", quality=85)  # looks the same, in another class
    tile(150, 80).save(root / "train/roof/2.png", compress_level=1)  # the same pixels in another file
    for number in range(3, 8):
        tile(100 + 90 * (number - 3), 240).save(root / f"train/roof/{number}.png")
    (root / "val/roof/copy.png").write_bytes((root / "train/roof/3.png").read_bytes())
    tile(0, 300).convert("L").convert("RGB").save(root / "val/lake/grey.jpg")
    tile(300, 330, 40, 80).convert("L").save(root / "val/lake/stored.png")
    Image.new("RGB", (64, 64), (10, 200, 30)).save(root / "train/lake/blank.png")
    (root / "train/lake/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return root


@pytest.fixture(scope="module")
def found(folder: Path) -> Statistics:
    return measure_data(str(folder))


def test_images_classes_and_damaged_files_are_counted(found: Statistics, folder: Path) -> None:
    assert found.parts == {"train": 10, "val": 3}
    assert (found.num_images, found.num_checked, found.num_readable) == (13, 13, 12)
    assert list(found.unreadable) == [str(folder / "train/lake/broken.jpg")]
    assert found.classes is not None
    assert {each.name: each.images for each in found.classes} == {
        "lake": {"train": 3, "val": 2},
        "roof": {"train": 7, "val": 1},
    }
    assert found.formats == {"PNG": 10, "JPEG": 2}
    assert found.modes == {"RGB": 11, "L": 1}
    assert (found.stored_grey, found.content_grey) == (1, 1)
    files = [path for path in folder.rglob("*.*g") if path.name != "broken.jpg"]
    assert found.total_bytes == sum(path.stat().st_size for path in files)


def test_sizes_are_those_of_the_images(found: Statistics) -> None:
    assert (found.sizes.smallest, found.sizes.largest) == ((40, 80), (90, 60))
    assert found.sizes.num_sizes == 3
    assert found.sizes.short_side == Spread(40, 40, 60, 64, 64, (10 * 60 + 40 + 64) / 12)
    assert found.sizes.aspect.smallest == 0.5


def test_mean_and_deviation_weigh_every_image_the_same(found: Statistics, folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*.*g")) if path.name != "broken.jpg"]
    levels = [np.asarray(Image.open(path).convert("RGB"), dtype=np.float64).reshape(-1, 3) / 255 for path in files]
    mean = np.mean([each.mean(axis=0) for each in levels], axis=0)
    deviation = np.sqrt(np.mean([((each - mean) ** 2).mean(axis=0) for each in levels], axis=0))
    np.testing.assert_allclose(found.channels.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.channels.std, deviation, rtol=1e-9)
    np.testing.assert_allclose(
        found.channels.std_within, np.mean([each.std(axis=0) for each in levels], axis=0), atol=1e-8
    )


def test_duplicates_say_what_they_share_with_which_image(found: Statistics, folder: Path) -> None:
    known = found.duplicates
    described = [
        {(Path(copy.path).name, copy.part, copy.label, copy.same, copy.same_as) for copy in group}
        for group in known.groups
    ]
    first, other = str(folder / "train/lake/1.jpg"), str(folder / "train/roof/0.png")
    assert described == [
        {
            ("1.jpg", "train", "lake", None, None),
            ("0.png", "train", "roof", "look", first),
            ("2.png", "train", "roof", "pixels", other),
        },
        {
            ("3.png", "train", "roof", None, None),
            ("copy.png", "val", "roof", "file", str(folder / "train/roof/3.png")),
        },
    ]
    assert (known.num_images, known.num_extra) == (5, 3)
    assert (known.num_same_file, known.num_same_pixels, known.num_look_alike) == (1, 1, 1)
    assert (known.num_across, known.num_mixed) == (1, 1)
    assert found.flat == (str(folder / "train/lake/blank.png"),)


def test_advice_follows_what_was_found(found: Statistics) -> None:
    text = "\n".join(found.advice)
    mean = ",".join(f"{value:.4g}" for value in found.channels.mean)
    for part in (
        "1 image that cannot be read",
        "1 group of duplicates with images of both parts",
        "1 group of duplicates with several classes",
        "Remove the 2 images with the very pixels",
        f"--set data.mean={mean}",
    ):
        assert part in text
    assert "data pack" not in text and "largest class" not in text


def test_processes_change_nothing(found: Statistics, folder: Path) -> None:
    assert measure_data(str(folder), workers=2) == found


def test_grey_is_one_channel_without_the_question_of_colour(folder: Path) -> None:
    grey = measure_data(str(folder), channels=1)
    assert len(grey.channels.mean) == 1
    assert grey.content_grey is None
    assert not any("in grey" in text for text in grey.advice)


def test_a_sample_is_as_large_as_asked_and_always_the_same(folder: Path) -> None:
    first, again = (measure_data(str(folder), limit=5) for _ in range(2))
    assert first == again
    assert (first.num_images, first.num_checked) == (13, 5)


def test_data_without_parts_and_labels(tmp_path: Path) -> None:
    tile(0, 0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    found = measure_data(str(tmp_path))
    assert found.parts == {"all": 2}
    assert found.classes is None
    assert (found.duplicates.num_across, found.duplicates.num_mixed) == (None, None)
    assert found.duplicates.groups[0][1].same == "file"


def test_a_damaged_file_that_a_list_names_twice_counts_twice(tmp_path: Path) -> None:
    tile(0, 0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"damaged")
    (tmp_path / "list.txt").write_text("b.png\na.png\nb.png\n")
    found = measure_data(str(tmp_path / "list.txt"))
    assert (found.num_images, found.num_checked, found.num_readable, len(found.unreadable)) == (3, 3, 1, 1)


def test_embedded_images_have_no_files() -> None:
    found = measure_data("builtin:photos", limit=40)
    assert (found.total_bytes, found.file_bytes) == (None, None)
    assert found.formats == {"embedded": 40}
    assert found.duplicates.num_same_file == 0


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"None of the 1 images looked at .*\n.*the file is empty"):
        measure_data(str(tmp_path))


def test_a_file_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    levels = FilePicture.levels

    def counting(picture: FilePicture, shrink: int = 1) -> np.ndarray:
        decoded.append((picture, shrink))
        return levels(picture, shrink)

    monkeypatch.setattr(FilePicture, "levels", counting)
    assert measure_data(str(folder / "val")).num_readable == 3
    assert [shrink for _, shrink in decoded] == [1, 1, 1]


def test_large_images_are_told_to_be_packed(tmp_path: Path) -> None:
    tile(0, 0).resize((900, 600)).save(tmp_path / "a.jpg")
    assert any("ibot data pack" in text for text in measure_data(str(tmp_path)).advice)


def test_places_go_through_the_parts() -> None:
    class Numbers:
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

    measuring = Measuring([Numbers(2), Numbers(1), Numbers(3)], None)  # type: ignore[list-item, arg-type]
    assert [measuring.find(place) for place in range(6)] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


def test_images_of_other_bands_are_for_runs_of_such_channels(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for index in range(2):
        array = np.random.default_rng(index).integers(0, 4096, (2, 9, 8), dtype=np.uint16)
        tifffile.imwrite(tmp_path / f"{index}.tif", array, photometric="minisblack")
    deep = measure_data(str(tmp_path), channels=2, bits=16)
    assert deep.modes == {"uint16 x 2": 2}
    own = "Train with --set data.channels=2 --set data.bits=16; the run measures mean and deviation itself."
    assert deep.advice == (own,)
    shallow = measure_data(str(tmp_path), channels=2)
    lost = "2 images with more than 8 bits per level: --set data.bits=16 keeps them."
    assert shallow.advice == (lost, own.replace(" --set data.bits=16", ""))
    with pytest.raises(DataError, match="None of the 2 images looked at") as caught:
        measure_data(str(tmp_path), channels=5)
    assert "it has 2 channels, the network sees 5 (data.channels)" in str(caught.value)
    assert caught.value.hint is not None and caught.value.hint.startswith("--channels and --bits say")


def test_the_first_of_several_grey_pages_is_stored_without_colour(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8), dtype=np.uint8)) for seed in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    found = measure_data(str(tmp_path))
    assert found.modes == {"L, page 1 of 3": 1}
    assert (found.stored_grey, found.content_grey) == (1, 0)
