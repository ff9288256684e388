"""Small tar files for tests."""

import io
import tarfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image


@lru_cache
def picture(seed: int, kind: str = "PNG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes | str | int], format: int = tarfile.GNU_FORMAT) -> Path:
    """Members by name; a number stands for the picture of that seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members.items():
            content = picture(content) if isinstance(content, int) else content
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def labelled(path: Path, classes: list[str | int], first: int = 0) -> Path:
    """Pictures of the seeds `first`, ... with a `.cls` member each."""
    members: dict[str, bytes | str | int] = {}
    for number, label in enumerate(classes, start=first):
        members |= {f"{number:05d}.png": number, f"{number:05d}.cls": str(label)}
    return write_tar(path, members)
