"""Files and networks of other kinds, recognised so that the refusal can say what they are and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ibot_cli.errors import IBotError, WeightsError

_PYTORCH = "Use the weights in PyTorch's format (.pth, .pt, .bin) or as .safetensors."
_FLAX = "In Python, `FlaxModel` weights load with `from_flax=True` in transformers; save them as safetensors."

# how the file starts, blanks left out and in small letters -> what it is, and what to do
_TEXT = (
    (
        (b"<!doctype", b"<html", b"<?xml", b"<head"),
        "a web page, not weights",
        "The download saved a page instead of the file; use the direct link to the file.",
    ),
    (
        (b"version https://git-lfs",),
        "a Git LFS pointer, not weights",
        "Run `git lfs pull` where it was cloned.",
    ),
    ((b'{"', b"{\n", b"{ "), "a text in JSON, not weights", "Name the weights file beside it, or the folder of both."),
)
_REASON = 160  # characters
# the first bytes -> what it is, and what to do
_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, TensorFlow)", _PYTORCH),
    (b"\x93NUMPY", "an array of NumPy", _PYTORCH),
    (b"GGUF", "a GGUF file", _PYTORCH),
    (b"\x1f\x8b", "compressed (gzip)", "Unpack it first."),
    (b"BZh", "compressed (bzip2)", "Unpack it first."),
    (b"\xfd7zXZ", "compressed (xz)", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "compressed (zstandard)", "Unpack it first."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first."),
    (b"\x89PNG", "an image (PNG)", "WEIGHTS comes first, then DATA."),
    (b"\xff\xd8\xff", "an image (JPEG)", "WEIGHTS comes first, then DATA."),
)
# the end of the name -> what it is, and what to do
_SUFFIXES = (
    (".onnx", "an ONNX graph, which is for running, not for loading into a network", "Use the file it was made from."),
    (".h5", "an HDF5 file (Keras, TensorFlow)", _PYTORCH),
    (".keras", "a model of Keras", _PYTORCH),
    (".tflite", "a model of TensorFlow Lite", _PYTORCH),
    (".pb", "a graph of TensorFlow", _PYTORCH),
    (".ckpt.index", "a checkpoint of TensorFlow", _PYTORCH),
    (".ckpt.meta", "a checkpoint of TensorFlow", _PYTORCH),
    (".data-00000-of-00001", "a checkpoint of TensorFlow", _PYTORCH),
    (".msgpack", "a checkpoint of Flax", _FLAX),
    (".npz", "an archive of NumPy arrays", _PYTORCH),
    (".npy", "an array of NumPy", _PYTORCH),
    (".engine", "an engine of TensorRT", "Use the file it was made from."),
)
_TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # the number at the start of what torch.save wrote before 1.6
# a file inside a zip archive -> what the archive is, and what to do
_INSIDE = (
    (
        r"[^/]+/(code/.+|constants\.pkl)",
        "a TorchScript program: it holds code, which is not run",
        "If you trust its origin: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth').",
    ),
    (
        r"[^/]+/(archive_format|models/[^/]+\.json)|serialized_exported_program\.json",
        "a program of torch.export, which is for running, not for loading into a network",
        "If you trust its origin: torch.save(torch.export.load(FILE).state_dict, 'weights.pth').",
    ),
    (r"model\.weights\.h5", "a model of Keras", _PYTORCH),
    (r"[^/]+\.npy", "an archive of NumPy arrays", _PYTORCH),
    (r".*\.(pth|pt|bin|safetensors|ckpt)", "an archive around a weights file", "Unpack it and name the file inside."),
)
# a tensor's name -> whose it is
_NETWORKS = (
    (r"(backbone\.|encoder\.)?layer1\.0\.conv1\.weight", "a ResNet"),
    (r"visual\..*", "CLIP in OpenAI's layout"),
    (r"transformer\.resblocks\..*|.*text_model\..*|token_embedding\.weight|text_projection.*", "a text tower of CLIP"),
    (r"(downsample_layers\.0\.0|stages\.0\.(0\.dwconv|blocks\.0\.(conv_dw|dwconv)))\..*", "a ConvNeXt"),
    (r"(\d+\.)?(module\.)?linear\.weight", "a linear classifier without its backbone"),
    (r"(module\.)?features\.\d+\..*", "a convolutional network"),
    (r"(bert|roberta|distilbert|model\.embed_tokens|transformer\.wte)\..*", "a language model"),
    (r".*\.(conv\d?|downsample\.0)\.weight", "a convolutional network"),
)


@contextmanager
def understood(path: Path | str) -> Iterator[None]:
    """Around all that reads and builds: whatever junk makes it stumble over is a refusal.

    Args:
        path: Of the file or folder, for the message.

    Raises:
        WeightsError: Something else than an error of ibot was raised inside.
    """
    try:
        yield
    except IBotError:
        raise
    except Exception as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0][:_REASON]
        raise WeightsError(
            f"{path} cannot be understood: its names, shapes or settings do not go together "
            f"({type(error).__name__}: {reason}).",
            "Download or copy it again. If its own library reads it, tell the authors of ibot.",
        ) from error


def refuse_start(path: Path, start: bytes) -> None:
    """Refuse a file by its first bytes or its name.

    Raises:
        WeightsError: It is no weights file that ibot reads.
    """
    text = start.lstrip().lower()
    for beginnings, kind, hint in _TEXT:
        if text.startswith(beginnings):
            raise WeightsError(f"{path} is {kind}.", hint)
    for magic, kind, hint in _MAGIC:
        if start.startswith(magic):
            raise WeightsError(f"{path} is {kind}.", hint)
    if start[4:8] == b"TFL3":
        raise WeightsError(f"{path} is a model of TensorFlow Lite.", _PYTORCH)
    if start[257:262] == b"ustar":
        raise WeightsError(f"{path} is a tar archive.", "Unpack it first.")
    for suffix, kind, hint in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            raise WeightsError(f"{path} is {kind}.", hint)
    if start.startswith(b"\x80") and _TORCH_MAGIC not in start[:32]:
        raise WeightsError(
            f"{path} is a pickle that torch.save did not write; reading it could run code, so it is not opened.",
            "If you trust its origin, load it once in Python and save only the tensors with torch.save.",
        )


def refuse_archive(path: Path, names: Sequence[str]) -> None:
    """Refuse a zip archive that is no `torch.save` file.

    Args:
        path: For the message.
        names: Of the files inside.

    Raises:
        WeightsError: It is of another kind.
    """
    for pattern, kind, hint in _INSIDE:
        if any(re.fullmatch(pattern, name) for name in names):
            raise WeightsError(f"{path} is {kind}.", hint)


def stranger(names: Iterable[str]) -> str | None:
    """Whose weights these are, by the names of the tensors, if not a vision transformer's; None if unknown."""
    found = list(names)
    return next((kind for pattern, kind in _NETWORKS if any(re.fullmatch(pattern, name) for name in found)), None)
