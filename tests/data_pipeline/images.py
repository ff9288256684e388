"""Small image files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write_images(folder: Path, count: int, kind: str = "png") -> list[Path]:
    return [write_image(folder / f"{index}.{kind}", index) for index in range(count)]
