"""IMAGES: files that must be readable, and samples of DATA."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ibot_cli.errors import DataError
from ibot_cli.visualize.attention.pictures import Pictures, open_pictures
from ibot_cli.visualize.whole_image import OverlongImage, whole_image
from tests.visualize.networks import loaded_network

REASON = "it would be 40,000 x 4 patches, which is more than 32,768"


def opened(*places: object, num: int = 3, seed: int = 0, channels: int = 1) -> Pictures:
    network = loaded_network(channels=channels)
    return open_pictures(
        [str(place) for place in places],
        lambda image: whole_image(image, network),
        channels=channels,
        num=num,
        seed=seed,
        taken=["pca"],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(8):
        Image.new("L", (16, 16), 20 * number).save(tmp_path / "images" / f"i{number}.png")
    return tmp_path / "images"


def names(found: Pictures) -> list[str]:
    return [picture.name for picture in found.pictures]


def test_files_in_the_order_named(folder: Path) -> None:
    found = opened(folder / "i5.png", folder / "i2.png")
    assert names(found) == ["i5", "i2"]
    assert [picture.whole.shown.getpixel((0, 0)) for picture in found.pictures] == [100, 40]
    assert found.pictures[0].path == str(folder / "i5.png")
    assert opened(folder / "i5.png", channels=3).pictures[0].whole.shown.mode == "RGB"


def test_a_sample_of_a_folder_depends_on_the_seed_and_keeps_the_order(folder: Path) -> None:
    first, second = names(opened(folder)), names(opened(folder, seed=1))
    assert first == names(opened(folder)) == sorted(first) and len(first) == 3
    assert first != second
    assert names(opened(folder, num=100)) == [f"i{number}" for number in range(8)]


def test_embedded_data_and_files_together(folder: Path) -> None:
    found = opened("builtin:digits", folder / "i2.png", num=2)
    assert len(found.pictures) == 3 and names(found)[2] == "i2"
    assert found.pictures[0].path.startswith("builtin:digits/")


def test_names_are_unlike_and_fit_for_files(tmp_path: Path) -> None:
    places = ["a b/one é.png", "x/One é.png", "x/one é-2.png", "x/pca.png", "x/..odd.png"]
    for place in places:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / place)
    found = names(opened(*(tmp_path / place for place in places)))
    assert found == ["one_é", "One_é-2", "one_é-2-2", "pca-2", "__odd"]
    assert len({name.lower() for name in found}) == 5


def test_names_that_are_long_in_bytes_fit_for_files(tmp_path: Path) -> None:
    places = [tmp_path / folder / ("\u65e5" * 80 + ".png") for folder in ("one", "two")]
    for place in places:
        place.parent.mkdir()
        Image.new("L", (8, 8)).save(place)
    first, second = names(opened(*places))
    assert first == "\u65e5" * 33 and second == first + "-2"


def test_images_that_are_too_long(folder: Path) -> None:
    Image.new("L", (40_000, 4)).save(folder / "strip.png")
    with pytest.raises(OverlongImage, match="An image of 40000 x 4 pixels is too large"):
        opened(folder / "strip.png")
    found = opened(folder, num=9)
    assert len(found.pictures) == 8
    assert found.unreadable == {str(folder / "strip.png"): REASON}


def test_a_named_file_must_be_readable(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png: not an image") as caught:
        opened(folder / "i1.png", folder / "broken.png")
    assert caught.value.hint is not None


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder or file .*i11\.png\. Did you mean .*i1\.png\?"):
        opened(folder / "i11.png")


def test_unreadable_images_of_data_are_replaced(folder: Path) -> None:
    for number in (0, 1, 2, 3, 4):
        (folder / f"i{number}.png").write_bytes(b"no image")
    found = opened(folder)
    assert names(found) == ["i5", "i6", "i7"]
    assert set(found.unreadable.values()) == {"not an image, or in a format that Pillow does not know"}
    for number in (5, 6, 7):
        (folder / f"i{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"No image of .* can be read"):
        opened(folder)
