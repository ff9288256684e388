"""`load_weights`: a network from any file, folder or name that is known. Nothing of a file is executed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ibot_cli.errors import WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.weights.assembly import assemble
from ibot_cli.weights.files import read_weights_file
from ibot_cli.weights.folders import no_weights, only_file
from ibot_cli.weights.layouts import beit, dinov2, huggingface, mae, native, official, ours, timm_files
from ibot_cli.weights.layouts.folder import model_folder
from ibot_cli.weights.layouts.found import Found
from ibot_cli.weights.loaded import LoadedBackbone, Which, weights_hash
from ibot_cli.weights.origin import AbsentNetworkError, Origin
from ibot_cli.weights.strangers import understood
from ibot_cli.weights.timm_names import load_timm

__all__ = [
    "FILE_LAYOUTS",
    "FOLDER_LAYOUTS",
    "LoadedBackbone",
    "Which",
    "find_weights",
    "from_checkpoint",
    "load_weights",
    "weights_hash",
]


class FileLayout(NamedTuple):
    """How a loaded file is recognised, by names only, and read."""

    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], Path, Which, int | None], Found]


class FolderLayout(NamedTuple):
    """How a folder is recognised, by its files, and read."""

    matches: Callable[[Path], bool]
    read: Callable[[Path, Which, int | None], Found]


# The first that matches reads; `official` takes every state dict that is left.
FILE_LAYOUTS = (
    FileLayout(ours.matches, ours.read),
    FileLayout(native.matches, native.read),
    FileLayout(dinov2.matches, dinov2.read),
    FileLayout(beit.matches, beit.read),
    FileLayout(mae.matches, mae.read),
    FileLayout(huggingface.matches_file, huggingface.read_file),
    FileLayout(timm_files.matches, timm_files.read),
    FileLayout(official.matches, official.read),
)
FOLDER_LAYOUTS = (
    FolderLayout(ours.matches_folder, ours.read_folder),
    FolderLayout(huggingface.matches, huggingface.read),
    FolderLayout(timm_files.matches_folder, timm_files.read_folder),
)

# a part of timm's names, most of them of the tag behind the dot -> the method
_TIMM_METHODS = (
    (r"dinov2\b|\.lvd142m$", "DINOv2"),
    (r"\.dino$", "DINO"),
    (r"\.mae$", "MAE"),
    (r"^beitv2_", "BEiT v2"),
    (r"^beit_", "BEiT"),
    (r"\.augreg", "supervised"),
)


def load_weights(
    weights: str, *, which: Which = "teacher", heads: int | None = None, partial: bool = False
) -> LoadedBackbone:
    """Load a backbone, and its head or classifier where there is one; every tensor of the file is accounted for.

    Args:
        weights: A run directory of `ibot pretrain` or `ibot finetune` (its newest checkpoint), a checkpoint or export
            of ours, a file of another project or a folder of a model (see the layouts below), or `timm:NAME`.
        which: The network of a checkpoint that holds two; the teacher is what iBOT evaluates.
        heads: Attention heads of a foreign ViT of unusual width; no tensor shows them.
        partial: Load what fits, leave the rest of the network at fresh values and say so in `notes`.

    Raises:
        WeightsError: The name, the file or the tensors do not fit; the message lists what is missing and unexpected.
        RunError: A run's checkpoints cannot be read.
    """
    weights = weights.removeprefix("timm:local-dir:")
    if weights.startswith("timm:"):
        return _from_timm(weights.removeprefix("timm:"))
    return assemble(find_weights(Path(weights), which, heads), partial=partial)


def find_weights(path: Path, which: Which = "teacher", heads: int | None = None) -> Found:
    """What a file or a folder holds, before a network is built; see `load_weights`.

    Raises:
        WeightsError: It cannot be read, or is of no known layout.
        RunError: A run's checkpoints cannot be read.
    """
    with understood(path):
        folder = path if path.is_dir() else model_folder(path)
        found = _in_file(path, which, heads) if folder is None else _in_folder(folder, which, heads)
    if which == "student" and found.origin.which == "teacher":  # teacher is what nobody has to ask for
        raise AbsentNetworkError(path, which, ("teacher",))
    return found


def from_checkpoint(found: checkpoint.Checkpoint, which: Which = "teacher", *, partial: bool = False) -> LoadedBackbone:
    """As `load_weights`, for a checkpoint of ours that is already in memory."""
    return assemble(ours.read_checkpoint(found, which), partial=partial)


def _in_file(path: Path, which: Which, heads: int | None) -> Found:
    content = read_weights_file(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not weights.", "Use a file with a state dict.")
    layout = next(layout for layout in FILE_LAYOUTS if layout.matches(content))
    return layout.read(content, path, which, heads)


def _in_folder(path: Path, which: Which, heads: int | None) -> Found:
    layout = next((layout for layout in FOLDER_LAYOUTS if layout.matches(path)), None)
    if layout is not None:
        return layout.read(path, which, heads)
    file = only_file(path)
    if file is None:
        raise no_weights(path)
    return _in_file(file, which, heads)


def _from_timm(name: str) -> LoadedBackbone:
    model = load_timm(name)
    return LoadedBackbone(
        backbone=model.backbone.eval(),
        head=None,
        channels=model.channels,
        image_size=model.image_size,
        mean=model.mean,
        std=model.std,
        crop_ratio=model.crop_ratio,
        description=f"timm:{name}",
        weights_hash=weights_hash(model.backbone),
        architecture=f"timm:{name}",
        rebuild=lambda: load_timm(name, pretrained=False).backbone,
        origin=Origin(layout="timm model", path=f"timm:{name}", method=_method_of(name)),
    )


def _method_of(name: str) -> str | None:
    """What the name of a model of timm says about its training."""
    return next((method for pattern, method in _TIMM_METHODS if re.search(pattern, name)), None)
