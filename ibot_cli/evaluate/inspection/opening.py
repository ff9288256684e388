"""Opening weights to look at them: also those that strict loading refuses because something is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ibot_cli.errors import IBotError, WeightsError
from ibot_cli.weights.assembly import assemble
from ibot_cli.weights.layouts.found import Found
from ibot_cli.weights.load import find_weights, load_weights
from ibot_cli.weights.loaded import LoadedBackbone, Which


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Weights with the account of their tensors.

    Attributes:
        loaded: The network; `missing` names what is left at fresh values.
        tensors: What came from the file: `backbone.*`, `head.*` of a projection head, `classifier.*`.
        other: The tensors of the other network of the file, as far as they have the same names; None without one.
        unused: Names in the file that are known and not needed.
        unexpected: Names in the file that the network does not have.
        refusal: Why strict loading refuses the file; None where it does not.
        notes: What the user should be told besides.
    """

    loaded: LoadedBackbone
    tensors: Mapping[str, Tensor]
    other: Mapping[str, Tensor] | None
    unused: tuple[str, ...]
    unexpected: tuple[str, ...]
    refusal: str | None
    notes: tuple[str, ...]


def open_weights(weights: str, which: Which | None = None, heads: int | None = None) -> Opened:
    """Load strictly, or what fits where that is not possible.

    Args:
        weights: As `ibot_cli.weights.load.load_weights` takes it.
        which: The network to look at; None is the teacher, or the student of a file without teacher.
        heads: Attention heads of a foreign ViT of unusual width.

    Raises:
        WeightsError: Nothing can be loaded; the error of strict loading.
        RunError: A run's checkpoints cannot be read.
    """
    if which is not None:
        return _open(weights, which, heads)
    try:
        return _open(weights, "teacher", heads)
    except WeightsError as error:
        student = _student_alone(weights, heads)
        if student is None:
            raise error from None
        return student


def _student_alone(weights: str, heads: int | None) -> Opened | None:
    """The student of a file that has no teacher."""
    with contextlib.suppress(IBotError):
        student = _open(weights, "student", heads)
        return None if "teacher" in student.loaded.origin.networks else student
    return None


def _open(weights: str, which: Which, heads: int | None) -> Opened:
    weights = weights.removeprefix("timm:local-dir:")  # a folder as any other
    if weights.startswith("timm:"):
        return _fitting(load_weights(weights, which=which, heads=heads), None)
    found = find_weights(Path(weights), which, heads)
    try:
        loaded = assemble(found)
    except WeightsError as error:
        return _partial(found, heads, error)
    return _fitting(loaded, _other(loaded, heads))


def _fitting(loaded: LoadedBackbone, other: Mapping[str, Tensor] | None) -> Opened:
    return Opened(
        loaded=loaded,
        tensors=named_tensors(loaded),
        other=other,
        unused=loaded.unused,
        unexpected=(),
        refusal=None,
        notes=tuple(loaded.notes),
    )


def _partial(found: Found, heads: int | None, error: WeightsError) -> Opened:
    """What fits; the error of strict loading where that is too little."""
    try:
        loaded = assemble(found, partial=True)
    except WeightsError:
        raise error from None
    known, absent = set(found.unused), set(loaded.missing)
    if loaded.head is None:
        known |= {name for name in found.tensors if name.startswith("head.")}
    return Opened(
        loaded=loaded,
        tensors={name: tensor for name, tensor in named_tensors(loaded).items() if name not in absent},
        other=_other(loaded, heads),
        unused=tuple(name for name in loaded.unused if name in known),
        unexpected=tuple(name for name in loaded.unused if name not in known),
        refusal=error.message,
        notes=found.notes,
    )


def named_tensors(loaded: LoadedBackbone) -> dict[str, Tensor]:
    """All tensors of loaded networks: `backbone.*`, `head.*` of a projection head, and `classifier.*` for the rest."""
    if loaded.classifier is not None:
        state = loaded.classifier.state_dict()
        return {name if name.startswith("backbone.") else f"classifier.{name}": value for name, value in state.items()}
    named = {f"backbone.{name.removeprefix('model.')}": value for name, value in loaded.backbone.state_dict().items()}
    head = {} if loaded.head is None else loaded.head.state_dict()
    return named | {f"head.{name}": value for name, value in head.items()}


def _other(loaded: LoadedBackbone, heads: int | None) -> Mapping[str, Tensor] | None:
    """Tensors of the other network of a file that holds two, in the same names."""
    origin = loaded.origin
    rest: list[Which] = [name for name in ("student", "teacher") if name in origin.networks and name != origin.which]
    if origin.which is None or not rest:
        return None
    with contextlib.suppress(IBotError):
        return find_weights(Path(origin.path), rest[0], heads).tensors
    return None
