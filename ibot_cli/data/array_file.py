"""Several arrays in one file that is believed only when all of it is as it was written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ibot_cli.durable import write_atomically

_MAGIC = b"ibot-arrays-1\n\0\0"
_PREFIX = len(_MAGIC) + 16


class DamagedFile(Exception):
    """Not such a file, of another version, cut off or changed."""


def write_arrays(path: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write one-dimensional arrays, atomically.

    Args:
        path: The file; its folder is made where there is none.
        about: What else there is to know, plain enough for JSON.
        arrays: By name.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = {name: [array.dtype.str, len(array)] for name, array in arrays.items()}
    head = json.dumps({"about": about, "arrays": layout}).encode()
    head += b" " * (-(len(head) + _PREFIX) % 8)
    parts = [len(head).to_bytes(8, "little"), head, *(_padded(array) for array in arrays.values())]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    prefix = _MAGIC + checksum.to_bytes(8, "little")
    write_atomically(path, lambda file: file.writelines([prefix, *parts]))


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_arrays` wrote; the arrays are read-only.

    Raises:
        OSError: It cannot be read.
        DamagedFile: It is not what was written.
    """
    content = path.read_bytes()
    checksum, length = (int.from_bytes(content[begin : begin + 8], "little") for begin in (len(_MAGIC), _PREFIX - 8))
    if len(content) < _PREFIX or content[: len(_MAGIC)] != _MAGIC:
        raise DamagedFile(str(path))
    if zlib.crc32(memoryview(content)[_PREFIX - 8 :]) != checksum:
        raise DamagedFile(str(path))
    head = json.loads(content[_PREFIX : _PREFIX + length])
    arrays, offset = {}, _PREFIX + length
    for name, (kind, count) in head["arrays"].items():
        arrays[name] = np.frombuffer(content, dtype=kind, count=count, offset=offset)
        offset += arrays[name].nbytes + -arrays[name].nbytes % 8
    return head["about"], arrays


def _padded(array: np.ndarray) -> bytes:
    """The bytes of the array, filled up so that the next one is aligned."""
    content = array.tobytes()
    return content + b"\0" * (-len(content) % 8)
