"""Several arrays in one file that is believed only when all of it is as it was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ibot_cli.durable import write_atomically

_HEAD = "head"


class DamagedFile(Exception):
    """Not such a file, cut off or changed."""


def write_arrays(path: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as NumPy's `.npz`, which keeps a checksum of each, atomically.

    Args:
        path: The file; its folder is made where there is none.
        about: What else there is to know, plain enough for JSON.
        arrays: By name; none is called `head`.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"about": about, "names": list(arrays)}).encode()
    parts: dict[str, Any] = {_HEAD: np.frombuffer(head, dtype=np.uint8), **arrays}
    write_atomically(path, lambda file: np.savez(file, **parts))


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write_arrays` wrote.

    Raises:
        OSError: It cannot be read.
        DamagedFile: It is not what was written.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        head = json.loads(arrays.pop(_HEAD).tobytes())
        if head["names"] != list(arrays):  # what the zip format says of its contents has no checksum
            raise DamagedFile(str(path))
        return head["about"], arrays
    except OSError:
        raise
    except Exception as error:  # a damaged header makes the readers of zip files and arrays raise nearly anything
        raise DamagedFile(str(path)) from error
