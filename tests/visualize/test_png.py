"""Single pictures on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ibot_cli.errors import DataError
from ibot_cli.visualize.png import write_png


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "found.png"
    write_png(path, Image.new("RGB", (4, 5), "red"))
    stored = Image.open(path)
    assert (stored.format, stored.size, stored.getpixel((3, 4))) == ("PNG", (4, 5), (255, 0, 0))
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        write_png(tmp_path / "nowhere" / "found.png", Image.new("L", (4, 5)))
