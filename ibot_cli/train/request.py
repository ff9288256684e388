"""What was asked for on the command line, and the configuration it gives; imports no torch, so that a typo is told
before anything slow is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibot_cli.config.load import Resolved, resolve
from ibot_cli.config.schema import Config
from ibot_cli.config.settings import settings
from ibot_cli.errors import ConfigError

DEMO_DATA = "builtin:digits"
DEMO_PRESET = "digits"
EMBEDDED_PRESETS = {DEMO_DATA: DEMO_PRESET, "builtin:photos": "photos"}
METHOD_PRESET = "ibot_vits16"
CONTINUE_PRESET = "ibot_continue"
# What weights may decide, so that nothing can be checked against it before they are read.
OF_WEIGHTS = ("model.", "head.", "views.", "data.")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for on the command line; see `ibot pretrain --help`."""

    data: str | None = None
    preset: str | None = None
    config: Path | None = None
    sets: Sequence[str] = ()
    out: Path | None = None
    resume: bool = False
    init: str | None = None
    partial: bool = False
    device: str | None = None
    workers: int | None = None
    arguments: Sequence[str] = field(default_factory=list)

    def recipe(self) -> str | None:
        """The preset that was named or that belongs to the data, or None when one has to be chosen."""
        return self.preset or EMBEDDED_PRESETS.get(self.data or DEMO_DATA)

    def base(self) -> str:
        """The preset that the settings begin with."""
        return self.recipe() or (CONTINUE_PRESET if self.continues() else METHOD_PRESET)

    def continues(self) -> bool:
        """Whether a new run starts from weights, whoever names them; mistakes in the settings are told elsewhere."""
        if self.init is not None:
            return True
        try:
            said = resolve(preset=None, file=self.config, sets=self.sets, undecided=settings(Config))
        except ConfigError:
            return False
        return said.config.init.weights is not None

    def flags(self) -> dict[str, tuple[Any, str]]:
        """Settings that have a flag of their own."""
        given = {
            "runtime.device": (self.device, "--device"),
            "runtime.workers": (self.workers, "--workers"),
            "init.weights": (None if self.init is None else openable_anywhere(self.init), "--init"),
            "init.partial": (self.partial or None, "--partial"),
        }
        return {path: (value, flag) for path, (value, flag) in given.items() if value is not None}

    def resolve(self, chosen: Mapping[str, tuple[Any, str]] | None = None, *, weights_known: bool = True) -> Resolved:
        """The configuration of a new run.

        Args:
            chosen: Automatic choices: dotted path to value and reason.
            weights_known: Whether `chosen` holds what the weights decide.

        Raises:
            ConfigError: Anything is wrong; it lists every problem.
        """
        undecided = [] if weights_known else [path for path in settings(Config) if path.startswith(OF_WEIGHTS)]
        return resolve(
            preset=self.base(),
            file=self.config,
            sets=self.sets,
            chosen=chosen,
            flags=self.flags(),
            undecided=undecided,
        )

    def check(self) -> None:
        """Looks for mistakes in the settings of a new run; those of a resumed run need its configuration.

        Raises:
            ConfigError: As `resolve`.
        """
        if not self.resume:
            self.resolve(weights_known=not self.continues())


def openable_anywhere(weights: str) -> str:
    """WEIGHTS as they can be opened from any working directory, so that a resumed run finds them, however spelled.

    A link keeps its own name: what it points to may have none that tells its kind.
    """
    if weights.startswith("timm:"):
        return weights
    path = Path(weights).expanduser()
    return str(path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name)
