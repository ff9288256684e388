"""Names of the images inside shards: their paths, as far as they differ, with one dot each."""

from __future__ import annotations

import hashlib
import posixpath
import re

import numpy as np

from ibot_cli.data.scan import EXTENSIONS
from ibot_cli.data.sources import Source

INSIDE_TAR = re.compile(r"^.*\.tar/", re.IGNORECASE)
ODD = re.compile(r"[\x00-\x1f\x7f\\]|//|(^|/)\.\.?(/|$)|/$|^$|\.tar/", re.IGNORECASE)
UPWARDS = re.compile(r"^(\.\.?(/|$))+")
UNFIT = re.compile(r"[\x00-\x1f\x7f\\]")


class MemberNames:
    """Name of each image of a source without its extension, unique, `class/path`.

    Readers of the WebDataset layout take what stands before the first dot of the file name for the key that holds an
    image and its label together, so further dots become `_`. Names that would then be the same get a number.

    Args:
        source: The images.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._root = _common_folder(source)
        self._renamed: dict[int, str] = {}
        self._tell_apart()

    def __getitem__(self, index: int) -> str:
        return self._renamed.get(index) or self._plain(index)

    def _plain(self, index: int) -> str:
        """Unique only as far as the paths are."""
        path = _normal(self._source.path(index)).removeprefix(self._root)
        folder, _, name = path.rpartition("/")
        stem, dot, extension = name.rpartition(".")
        name = (stem if dot and stem and extension.lower() in EXTENSIONS else name).replace(".", "_")
        path = f"{folder}/{name}" if folder else name
        labels, classes = self._source.labels, self._source.classes
        if labels is None or classes is None:
            return path
        return _below(_normal(classes[int(labels[index])]), self._root, path)

    def _tell_apart(self) -> None:
        """Numbers for names that come a second time; 8 bytes per image tell which may."""
        hashes = np.fromiter(
            (_hash(self._plain(index)) for index in range(len(self._source))), dtype=np.uint64, count=len(self._source)
        )
        order = np.argsort(hashes, kind="stable")
        again = order[1:][hashes[order[1:]] == hashes[order[:-1]]]
        taken = set(hashes.tolist()) if len(again) else set()
        for index in sorted(again.tolist()):
            name, number = self._plain(index), 2
            while _hash(f"{name}-{number}") in taken:
                number += 1
            self._renamed[index] = f"{name}-{number}"
            taken.add(_hash(self._renamed[index]))


def _below(label: str, root: str, path: str) -> str:
    """The path with its class before it, once: classes may have slashes in their names, and lie in the root in part."""
    whole = f"/{root}{path}"
    start = whole.rfind(f"/{label}/", 0, len(root) + len(label) + 2)
    if 0 <= start <= len(root) <= start + len(label) + 1:
        return whole[start + 1 :]
    return f"{label}/{path}"


def _common_folder(source: Source) -> str:
    """The folder that all paths share, with a slash at its end; empty where they share none."""
    root = posixpath.dirname(_normal(source.path(0))) + "/" if len(source) else ""
    for index in range(len(source)):
        path = _normal(source.path(index))
        while not path.startswith(root):
            root = root[: root.rstrip("/").rfind("/") + 1]
    return root


def _normal(path: str) -> str:
    """Relative parts resolved by name, and nothing in it that tar readers or terminals trip over."""
    if ODD.search(path) is None:  # nearly all of a million paths
        return path.lstrip("/")
    path = posixpath.normpath(UNFIT.sub("_", path.replace("\\", "/")))
    return UPWARDS.sub("", INSIDE_TAR.sub("", path).lstrip("/")) or "_"


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest(), "little")
