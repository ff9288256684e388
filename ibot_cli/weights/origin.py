"""What a weights file says about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibot_cli.config.schema import Config
from ibot_cli.errors import WeightsError


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where weights come from, as far as their file tells.

    Attributes:
        layout: Kind of file, for people: `full iBOT checkpoint`, `timm model`.
        path: As given, or the file that was chosen inside a folder.
        method: `iBOT`, `DINO`, `DINOv2`, `BEiT`, `BEiT v2`, `MAE`, `supervised`; None where nothing tells.
        networks: Those that the file holds under a name: `student`, `teacher`.
        which: The one of `networks` that was loaded.
        epoch: Epochs that were complete.
        step: Optimiser steps that were done.
        arguments: Plain values: a configuration, the authors' arguments, a config.json.
        config: Of `ibot pretrain`, where it is inside.
        run: The run directory that the file belongs to.
    """

    layout: str
    path: str
    method: str | None = None
    networks: tuple[str, ...] = ()
    which: str | None = None
    epoch: int | None = None
    step: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: Config | None = None
    run: Path | None = None


class AbsentNetworkError(WeightsError):
    """A file for a student and a teacher does not hold the one that was asked for.

    Args:
        path: Of the file.
        wanted: `student` or `teacher`.
        present: Those that it holds.
    """

    def __init__(self, path: Path, wanted: str, present: Sequence[str]) -> None:
        if present:
            super().__init__(
                f"{path} has no {wanted}, only the {present[0]}.", f"Ask for it with --which {present[0]}."
            )
        else:
            super().__init__(
                f"{path} has neither a student nor a teacher.", "Use a checkpoint that holds the weights of one."
            )


def plain_arguments(arguments: object) -> dict[str, Any]:
    """What a checkpoint says about its training (`argparse.Namespace` or mapping) as plain values; else empty."""
    given = arguments if isinstance(arguments, Mapping) else getattr(arguments, "__dict__", {})
    return {str(name): _plain(value) for name, value in given.items()}


def _plain(value: object) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value)
