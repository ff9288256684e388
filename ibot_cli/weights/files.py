"""Reading a weights file of any origin without running what is inside."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ibot_cli.errors import WeightsError

_DOWNLOAD_AGAIN = "Download or copy it again."


def read_weights_file(path: Path) -> Any:
    """The content of a `torch.save` file, tensors on the CPU.

    Besides tensors and plain values only `argparse.Namespace` and numpy scalars are accepted, because the authors'
    checkpoints hold their arguments and a learning rate that numpy computed.

    Raises:
        WeightsError: The file is missing, empty, a web page, truncated, damaged, or holds other Python objects.
    """
    _check_kind(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at the checksums
                damaged = archive.testzip()
            if damaged is not None:
                raise WeightsError(f"{path} is damaged: wrong checksum in {damaged}.", _DOWNLOAD_AGAIN)
        with torch.serialization.safe_globals(_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, OSError) as error:
        raise WeightsError(f"{path} cannot be read: it is truncated or not a PyTorch file.", _DOWNLOAD_AGAIN) from error


def _check_kind(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            f"{path} does not exist.",
            "WEIGHTS is a run directory, a checkpoint file, or timm:NAME for a model of timm.",
        )
    with path.open("rb") as file:
        start = file.read(512).lstrip()
    if not start:
        raise WeightsError(f"{path} is empty.", _DOWNLOAD_AGAIN)
    if start.lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{path} is a web page, not weights.",
            "The download saved a page instead of the file; use the direct link to the file.",
        )
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer, not weights.", "Run `git lfs pull` where it was cloned.")


def _refused(path: Path, message: str) -> WeightsError:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found is None:
        return WeightsError(f"{path} cannot be read: it is truncated or not a PyTorch file.", _DOWNLOAD_AGAIN)
    return WeightsError(
        f"{path} holds Python code ({found.group(1)}), which is not executed.",
        "If you trust its origin, load it once in Python and save only its state dict.",
    )


def _allowed() -> list[Any]:
    scalar: Any = np.float64(0).__reduce__()[0]
    return [
        argparse.Namespace,
        np.dtype,
        type(np.dtype("float64")),
        type(np.dtype("float32")),
        type(np.dtype("int64")),
        (scalar, "numpy.core.multiarray.scalar"),  # the name before numpy 2
        (scalar, "numpy._core.multiarray.scalar"),
    ]
