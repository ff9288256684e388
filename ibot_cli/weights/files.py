"""Reading a weights file of any origin without running what is inside."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.safetensors_file import has_header, is_safetensors, read_safetensors
from ibot_cli.weights.strangers import refuse_archive, refuse_start

METADATA = "safetensors_metadata"
_DOWNLOAD_AGAIN = "Download or copy it again."
_BOMB = 10  # times the size of the file


def read_weights_file(path: Path) -> Any:
    """The content of a `torch.save` or safetensors file, tensors on the CPU.

    Besides tensors and plain values only `argparse.Namespace` and numpy scalars are accepted, because the authors'
    checkpoints hold their arguments and a learning rate that numpy computed.

    Returns:
        What was saved. Of a safetensors file `{"state_dict": tensors, METADATA: its texts by name}`.

    Raises:
        WeightsError: The file is missing, empty, of another kind, truncated, damaged, or holds other Python objects.
    """
    if not path.is_file():
        raise _absent(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise WeightsError(f"{path} cannot be opened: {error.strerror or error}.", "Check its permissions.") from error
    if not start.strip():
        raise WeightsError(f"{path} is empty.", _DOWNLOAD_AGAIN)
    if not has_header(start):
        refuse_start(path, start)
    if is_safetensors(path, start):
        tensors, metadata = read_safetensors(path)
        return {"state_dict": tensors, METADATA: metadata}
    return _read_pickle(path)


def metadata_of(content: Mapping[str, Any]) -> Mapping[str, str]:
    """The texts of a safetensors file that `read_weights_file` read; empty for other files."""
    found = content.get(METADATA)
    return found if isinstance(found, Mapping) else {}


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file with a single network: under `state_dict`, `model` or `module`, or at the top.

    Empty where these hold anything else, and for files with `student` or `teacher`.
    """
    if "student" in content or "teacher" in content:
        return {}
    wrapped = (content[name] for name in ("state_dict", "model", "module") if isinstance(content.get(name), Mapping))
    state = next(wrapped, content)
    plain = bool(state) and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    return dict(state) if plain else {}


def _read_pickle(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                refuse_archive(path, archive.namelist())
                _refuse_bomb(path, archive)
                damaged = archive.testzip()  # torch.load itself does not look at the checksums
            if damaged is not None:
                raise WeightsError(f"{path} is damaged: wrong checksum in {damaged}.", _DOWNLOAD_AGAIN)
        with torch.serialization.safe_globals(_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except WeightsError:
        raise
    except Exception as error:  # what is allowed to be called raises anything for wrong arguments
        raise WeightsError(f"{path} cannot be read: it is truncated or not a PyTorch file.", _DOWNLOAD_AGAIN) from error


def _refuse_bomb(path: Path, archive: zipfile.ZipFile) -> None:
    """torch.save does not compress; others do, but weights never to a tenth."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _BOMB * path.stat().st_size:
        raise WeightsError(
            f"{path} unpacks to {unpacked / 1e9:,.1f} GB from {path.stat().st_size / 1e9:,.3f} GB; it is not opened.",
            "Weights cannot be compressed like this. If you trust its origin, save its state dict with torch.save.",
        )


def _absent(path: Path) -> WeightsError:
    hint = "WEIGHTS is a run directory, a weights file or folder, or timm:NAME for a model of timm."
    if path.is_symlink():
        return WeightsError(f"{path} is a link to {path.readlink()}, where no file is.", hint)
    if path.exists():
        return WeightsError(f"{path} is neither a file nor a folder.", "Save its content to a file first.")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) and not path.parent.exists():
        hint += f" A model of the Hugging Face hub is downloaded first, or named as timm:hf-hub:{path} if timm has it."
    return WeightsError(f"{path} does not exist.", hint)


def _refused(path: Path, message: str) -> WeightsError:
    found = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"([\w]+(?:\.[\w]+)+) was not an allowed", message)
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
