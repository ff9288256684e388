"""Two images of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ibot_cli.errors import DataError, UsageError
from ibot_cli.visualize.correspondence.images import match_images
from ibot_cli.visualize.correspondence.subject import check_two_files, open_subject, spread_index
from tests.visualize.correspondence.known import loaded, map_image, write_map


def test_an_image_matches_itself(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.png")
    found, seen = match_images(loaded(), (path, path))
    assert len(found.matches) == 64 and found.sizes == ((256, 256), (256, 256)) and found.grids == ((8, 8), (8, 8))
    assert all(match.first == match.second and match.cosine > 0.9999 for match in found.matches)
    assert seen[0].size == (256, 256)


def test_places_are_pixels_of_the_sources(tmp_path: Path) -> None:
    """The second image is a part of the first, of another shape; a place keeps its colour."""
    paths = write_map(tmp_path / "map.png"), write_map(tmp_path / "part.png", (40, 100, 220, 190))
    found, seen = match_images(loaded(), paths, size=128)
    assert found.grids == ((16, 16), (16, 32)) and len(found.matches) > 20
    assert all(match.steps is None for match in found.matches)
    for match in found.matches:
        apart = np.array(match.first_point) - np.array(match.second_point) - [40, 100]
        assert np.abs(apart).max() < 256 / 16 / 2 + 0.5
    assert [match.cosine for match in found.matches] == sorted((m.cosine for m in found.matches), reverse=True)
    assert seen[1].size == (256, 128)  # never smaller than the network saw it


def test_what_was_cut_away_is_not_shown(tmp_path: Path) -> None:
    paths = write_map(tmp_path / "a.png", (0, 0, 100, 64)), write_map(tmp_path / "b.png")
    found, seen = match_images(loaded(), paths)
    assert found.seen[0] == (2, 0, 98, 64) and seen[0].size == (96, 64)
    assert seen[0].getpixel((0, 5)) == (2, 5, 0) == map_image().getpixel((2, 5))


def test_unreadable(tmp_path: Path) -> None:
    good, bad = write_map(tmp_path / "map.png"), tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png: not an image, or in a format that Pillow does not know\.") as error:
        match_images(loaded(), (good, str(bad)))
    assert error.value.hint == "Name an image file, such as a .jpg or .png."
    with pytest.raises(DataError, match=r"bad\.png: not an image"):
        open_subject(str(bad), channels=3, most=5)


def test_a_size_below_one_patch(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.png")
    with pytest.raises(UsageError, match=r"--size 5 is less than one patch of known, which is 8 pixels\."):
        match_images(loaded(), (path, path), size=5)


def test_two_files_are_asked_for(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.png")
    check_two_files(path, path)
    for first, second in ((str(tmp_path), path), (path, "builtin:digits")):
        with pytest.raises(UsageError, match=r"is not an image file\.") as error:
            check_two_files(first, second)
        assert error.value.hint == "Name two image files, or a single image or DATA for views of the same image."


def test_subject(tmp_path: Path) -> None:
    one = open_subject(write_map(tmp_path / "map.png"), channels=1, most=5)
    assert one.single and one.index.tolist() == [0] and one.source.read(0).mode == "L" and one.default_pairs == 16
    digits = open_subject("builtin:digits", channels=1, most=5)
    assert not digits.single and digits.default_pairs == 2
    assert len(digits.source) == 360 and digits.index.tolist() == [0, 90, 180, 269, 359]


def test_spread() -> None:
    assert spread_index(3, 10).tolist() == [0, 1, 2] and spread_index(9, 1).tolist() == [0]
    with pytest.raises(UsageError, match="0 images cannot be matched"):
        spread_index(3, 0)
