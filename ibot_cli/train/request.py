"""What was asked for on the command line, and the configuration it gives; imports no torch, so that a typo is told
before anything slow is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibot_cli.config.load import Resolved, resolve

DEMO_DATA = "builtin:digits"
DEMO_PRESET = "digits"
EMBEDDED_PRESETS = {DEMO_DATA: DEMO_PRESET, "builtin:photos": "photos"}
METHOD_PRESET = "ibot_vits16"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for on the command line; see `ibot pretrain --help`."""

    data: str | None = None
    preset: str | None = None
    config: Path | None = None
    sets: Sequence[str] = ()
    out: Path | None = None
    resume: bool = False
    device: str | None = None
    workers: int | None = None
    arguments: Sequence[str] = field(default_factory=list)

    def recipe(self) -> str | None:
        """The preset that was named or that belongs to the data, or None when one has to be chosen."""
        return self.preset or EMBEDDED_PRESETS.get(self.data or DEMO_DATA)

    def flags(self) -> dict[str, tuple[Any, str]]:
        """Settings that have a flag of their own."""
        given = {"runtime.device": (self.device, "--device"), "runtime.workers": (self.workers, "--workers")}
        return {path: (value, flag) for path, (value, flag) in given.items() if value is not None}

    def resolve(self, chosen: Mapping[str, tuple[Any, str]] | None = None) -> Resolved:
        """The configuration of a new run.

        Args:
            chosen: Automatic choices: dotted path to value and reason.

        Raises:
            ConfigError: Anything is wrong; it lists every problem.
        """
        preset = self.recipe() or METHOD_PRESET
        return resolve(preset=preset, file=self.config, sets=self.sets, chosen=chosen, flags=self.flags())

    def check(self) -> None:
        """Looks for mistakes in the settings of a new run; those of a resumed run need its configuration.

        Raises:
            ConfigError: As `resolve`.
        """
        if not self.resume:
            self.resolve()
