"""Folders of the image files that people have: every mode, several sizes, some of them damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("rgb", "grey", "palette", "transparent", "cmyk", "deep", "turned")
ORIENTATION = 0x0112


def write_picture(folder: Path, kind: str, number: int) -> Path:
    """One image; its levels and its size are functions of the number."""
    rng = np.random.default_rng(number)
    height, width = (int(side) for side in rng.integers(18, 40, 2))
    levels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(levels)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{kind}{number}"
    if kind == "grey":
        image.convert("L").save(stem.with_suffix(".png"))
        return stem.with_suffix(".png")
    if kind == "palette":
        image.convert("P").save(stem.with_suffix(".gif"))
        return stem.with_suffix(".gif")
    if kind == "transparent":
        image.convert("RGBA").save(stem.with_suffix(".png"))
        return stem.with_suffix(".png")
    if kind == "deep":
        Image.fromarray(levels[..., 0].astype(np.uint16) * 200).save(stem.with_suffix(".png"))
        return stem.with_suffix(".png")
    exif = Image.Exif()
    if kind == "turned":
        exif[ORIENTATION] = 6
    image.convert("CMYK" if kind == "cmyk" else "RGB").save(stem.with_suffix(".jpg"), exif=exif)
    return stem.with_suffix(".jpg")


def mixed(folder: Path, count: int) -> Path:
    """Readable images of every kind, without labels."""
    for number in range(count):
        write_picture(folder, KINDS[number % len(KINDS)], number)
    return folder


def spoil(folder: Path, count: int) -> list[str]:
    """Adds files that cannot be read, alternately truncated images and texts; returns their names."""
    names = []
    for number in range(count):
        if number % 2:
            path = folder / f"text{number}.jpg"
            path.write_text("this is no image\n")
        else:
            whole = write_picture(folder, "rgb", 1000 + number)
            path = whole.rename(folder / f"cut{number}.jpg")
            path.write_bytes(path.read_bytes()[:200])
        names.append(path.name)
    return names
