"""Reading safetensors files; what is wrong with one is said in bytes."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ibot_cli.errors import WeightsError

_AGAIN = "Download or copy it again."
_LENGTH = 8  # bytes before the header, its length as a little-endian integer


def is_safetensors(path: Path, start: bytes) -> bool:
    """Whether a file is of this kind, by its name or by how it starts."""
    return path.suffix == ".safetensors" or has_header(start)


def has_header(start: bytes) -> bool:
    """Whether a file starts as safetensors: with the length of a header, in less than 4 GB, and a JSON object.

    The length can be any number, so its bytes may look like the magic number of another kind of file.
    """
    return start[_LENGTH // 2 : _LENGTH + 1] == b"\0\0\0\0{"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata.

    Raises:
        WeightsError: The file is truncated, damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} cannot be read: {_reason(path, error)}.", _AGAIN) from error


def _reason(path: Path, error: Exception) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = file.read(length) if length <= size else b""
    if size < _LENGTH:
        return f"it is no safetensors file, only {size} bytes"
    if header[:1] != b"{":
        with path.open("rb") as file:
            file.seek(_LENGTH)
            cut = file.read(1) == b"{"
        return f"it is truncated inside its header ({size:,} bytes)" if cut else "it is no safetensors file"
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        cut = len(header) < length
        return f"it is truncated inside its header ({size:,} bytes)" if cut else "its header is damaged"
    whole = _LENGTH + length + max(ends, default=0)
    if size < whole:
        return f"it is truncated, {size:,} of {whole:,} bytes"
    if size > whole:
        return f"it has {size:,} bytes, of which its header knows {whole:,}"
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
