"""Folders that no layout knows: the one weights file that such a folder may hold, or why it is no weights."""

from __future__ import annotations

from pathlib import Path

from ibot_cli.errors import WeightsError
from ibot_cli.runs.directory import is_run

_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")
_PROGRAMS = (".onnx", ".pt2")
_LISTED = 6
_KNOWN = (
    "Name a run of `ibot pretrain` or `ibot finetune`, a folder of a timm or Hugging Face model, or a weights file."
)


def only_file(folder: Path) -> Path | None:
    """The weights file of a folder that holds just one, as `ibot export` makes them; else None."""
    files = _files(folder, _SUFFIXES)
    return files[0] if len(files) == 1 else None


def no_weights(folder: Path) -> WeightsError:
    """The error for a folder that no layout knows; nothing is read."""
    entries = sorted(folder.iterdir())
    if not entries:
        return WeightsError(f"{folder} is an empty folder.", _KNOWN)
    files = _files(folder, _SUFFIXES)
    if files:
        return WeightsError(
            f"{folder} is a directory but not a run: it has no config.yaml, and no config.json of a model either.",
            f"It holds {len(files)} weights files; name one: {_some(files)}.",
        )
    if programs := _files(folder, _PROGRAMS):
        return WeightsError(
            f"{folder} holds {programs[0].name}, which is for running, not for loading into a network.",
            "Use the weights it was made from.",
        )
    runs = [entry for entry in entries if entry.is_dir() and is_run(entry)]
    if runs:
        return WeightsError(f"{folder} is a directory of runs, not a run.", f"Name one: {_some(runs)}.")
    if folder.name == "checkpoints" and is_run(folder.parent):
        return WeightsError(f"The run {folder.parent} has no checkpoint yet.", "Continue it with --resume.")
    return WeightsError(f"{folder} is a directory but not a run: it has no config.yaml.", _KNOWN)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and entry.suffix in suffixes)


def _some(paths: list[Path]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return f"{', '.join(map(str, paths[:_LISTED]))}{more}"
