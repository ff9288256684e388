"""Which members of a tar file are images, and what class they are: the layout of WebDataset.

Members whose names are alike up to the first dot of the file name are one sample: `n01/00001.jpg`, `n01/00001.cls`.
They need not lie next to each other, as WebDataset's own reader wants. Of several images of a sample one is used:
that with nothing but a format after the key (`00001.jpg`, not `00001.seg.png`), else `image` or `img`
(`00001.image.png`). Where no name says which one is meant, each is an image of its own: ordinary files have dots in
their names too (`2021.05.01.jpg`).

Source:
    The WebDataset format (github.com/webdataset/webdataset, docs "WebDataset Format").
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ibot_cli.data.scan import EXTENSIONS
from ibot_cli.data.shards.headers import Member, Walk, members
from ibot_cli.data.shards.random_file import RandomFile
from ibot_cli.errors import DataError

LABEL = "cls"
LONGEST_LABEL = 4096
IMAGE_NAMES = ("image", "img")
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


@dataclass
class Shard:
    """The images of one tar file, in its order.

    Attributes:
        members: Name, place and size of each.
        labels: Text of the `.cls` member of each, or None; the folder that it is in where no image has such a member,
            which `met` tells by `folders`.
        met: What else there was, as numbers and names that JSON can hold; see `ibot_cli.data.shards.notes`.
    """

    members: list[Member] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    met: dict[str, object] = field(default_factory=dict)


def read_shard(path: str) -> Shard:
    """Look through a tar file.

    Raises:
        DataError: It cannot be read, or is no tar file.
    """
    try:
        file = RandomFile(path)
        return _read(file, path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}.", hint="Check the file and its permissions."
        ) from error


def _read(file: RandomFile, path: str) -> Shard:
    walk = Walk(size=file.state()[0])
    samples: dict[str, dict[str, Member]] = {}
    classes: dict[str, Member] = {}
    others: Counter[str] = Counter()
    for member in members(file, walk):
        key, extension = split_name(member.name)
        if key is None:
            others["hidden"] += 1
        elif extension.rpartition(".")[2] in EXTENSIONS:
            samples.setdefault(key, {})[extension] = member
        elif extension == LABEL:
            classes[key] = member
        else:
            others[extension] += 1
    if walk.damage == 0 or walk.size == 0:
        raise _no_tar(file, path, walk)
    if samples and classes and (walk.cut or walk.damage) and next(reversed(samples)) not in classes:
        samples.popitem()  # its label was cut off with the rest; without this, all images would lose theirs
    shard = Shard()
    spare: list[str] = []
    for key, images in samples.items():
        used = _used(images)
        spare += [image.name for image in images.values() if image not in used]
        label = key.rpartition("/")[0] if not classes else _label(file, classes[key]) if key in classes else None
        shard.members += used
        shard.labels += [label] * len(used)
    shard.met = _met(walk, spare, others) | ({} if classes else {"folders": True})
    return shard


def split_name(name: str) -> tuple[str | None, str]:
    """Key and lower-case extension of a member; the key is None for hidden files and those without an extension."""
    name = name.removeprefix("./").lstrip("/")
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    if not stem or f"/{folder}".find("/.") >= 0 or folder.startswith("__MACOSX"):
        return None, ""
    return folder + slash + stem, extension.lower()


def _used(images: dict[str, Member]) -> list[Member]:
    if len(images) == 1:
        return list(images.values())
    plain = [member for extension, member in images.items() if "." not in extension]
    named = [member for extension, member in images.items() if extension.split(".")[0] in IMAGE_NAMES]
    return plain[:1] or named[:1] or list(images.values())


def _label(file: RandomFile, member: Member) -> str | None:
    if member.size > LONGEST_LABEL:
        return None
    try:
        return file.read(member.size, member.offset).decode().strip() or None
    except UnicodeDecodeError:
        return None


def _met(walk: Walk, spare: list[str], others: Counter[str]) -> dict[str, object]:
    """What was met, without what was not."""
    links = [name for name in walk.links if _is_image(name)]
    found: dict[str, object] = {
        "cut": walk.cut,
        "damage": walk.damage,
        "links": len(links),
        "sparse": len(walk.sparse),
        "spare": len(spare),
        "spare_name": spare[0] if spare else None,
        "others": dict(others.most_common(5)),
    }
    return {key: value for key, value in found.items() if value}


def _is_image(name: str) -> bool:
    return split_name(name)[1].rpartition(".")[2] in EXTENSIONS


def _no_tar(file: RandomFile, path: str, walk: Walk) -> DataError:
    head = file.read(512, 0)
    packed = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if packed is not None:
        return DataError(
            f"{path} is a {packed} file, whatever its name says: single images cannot be read from it.",
            hint="Unpack it once and give the .tar file, or the folder, that comes out.",
        )
    if not walk.size:
        reason = "is empty"
    elif head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        reason = "is a web page (HTML), not a tar file"
    elif head.startswith(b"version https://git-lfs"):
        reason = "is a Git LFS pointer; `git lfs pull` fetches the shard"
    else:
        reason = "is not a tar file"
    return DataError(f"{path} {reason}.", hint="Fetch it again, or leave it out of DATA.")
