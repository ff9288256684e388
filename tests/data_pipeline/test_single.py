"""Image files that are named one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ibot_cli.data.single import is_image_file, read_levels
from ibot_cli.errors import DataError


def test_an_image_file_is_known_by_its_ending(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    assert is_image_file("a/b.JPG") and is_image_file("missing.webp")
    assert not is_image_file("list.txt") and not is_image_file("builtin:digits")
    assert not is_image_file(str(tmp_path / "folder.png"))


@pytest.mark.parametrize("channels", [1, 3])
def test_reading_converts(tmp_path: Path, channels: int) -> None:
    Image.new("RGB", (5, 3), (255, 0, 0)).save(tmp_path / "red.png")
    assert read_levels(str(tmp_path / "red.png"), channels).shape == (3, 5, channels)


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.png: the file is empty\.") as error:
        read_levels(str(tmp_path / "empty.png"), 3)
    assert error.value.hint == "Name an image file, such as a .jpg or .png."
    with pytest.raises(DataError, match=r"nothing\.png: cannot be read"):
        read_levels(str(tmp_path / "nothing.png"), 3)
