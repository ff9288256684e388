"""Small sources for packs, and shards as other programs read them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ibot_cli.data.packing.options import PackOptions
from ibot_cli.data.packing.pack import PackResult, pack


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with a little noise, as photographs have them."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + rng.integers(-6, 7, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def photographs(folder: Path, count: int, classes: tuple[str, ...] = ("china", "flower")) -> Path:
    """`count` JPEG files in class folders."""
    for index in range(count):
        name = classes[index * len(classes) // count]
        write(folder / name / f"img{index}.jpg", stored(photograph(60, 48, index), "JPEG", quality=95))
    return folder


def packed(
    data: Path | str,
    out: Path,
    *,
    workers: int = 0,
    report: Callable[[str, int, int], None] = lambda split, done, total: None,
    **options: object,
) -> PackResult:
    return pack(str(data), out, PackOptions(**options), workers=workers, report=report)  # type: ignore[arg-type]


def members(shard: Path) -> dict[str, bytes]:
    """Content by name, in the order of the file."""
    with tarfile.open(shard) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def samples(folder: Path, pattern: str = "*.tar") -> dict[str, dict[str, bytes]]:
    """What WebDataset makes of shards: members by key and extension, the key ending at the first dot of the name."""
    found: dict[str, dict[str, bytes]] = {}
    for shard in sorted(folder.glob(pattern)):
        for name, content in members(shard).items():
            place, slash, file = name.rpartition("/")
            stem, _, extension = file.partition(".")
            found.setdefault(place + slash + stem, {})[extension] = content
    return found


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
