"""What `ibot finetune` was asked for, and the configuration it gives; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import Resolution, resolve
from ibot_cli.errors import UsageError

DEMO_DATA, DEMO_PRESET = "builtin:digits", "finetune_digits"
SMALL_PRESET = "finetune_small"


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest:
    """The command line; see `ibot finetune --help`."""

    weights: str | None = None
    data: str | None = None
    preset: str | None = None
    config: Path | None = None
    sets: Sequence[str] = ()
    out: Path | None = None
    label_fraction: float | None = None
    labels_per_class: int | None = None
    from_scratch: bool = False
    resume: bool = False
    device: str | None = None
    workers: int | None = None
    heads: int | None = None
    which: Literal["teacher", "student"] = "teacher"
    partial: bool = False
    baselines: bool = True
    arguments: Sequence[str] = field(default_factory=list)

    def flags(self) -> dict[str, tuple[Any, str]]:
        """Settings that have a flag of their own."""
        given = {
            "labels.fraction": (self.label_fraction, "--label-fraction"),
            "labels.per_class": (self.labels_per_class, "--labels-per-class"),
            "model.from_scratch": (self.from_scratch or None, "--from-scratch"),
            "runtime.device": (self.device, "--device"),
            "runtime.workers": (self.workers, "--workers"),
        }
        return {path: (value, flag) for path, (value, flag) in given.items() if value is not None}

    def resolve(
        self, preset: str | None, chosen: Mapping[str, tuple[Any, str]] | None = None
    ) -> Resolution[FinetuneConfig]:
        """The configuration of a new run with this preset.

        Raises:
            ConfigError: Anything is wrong; it lists every problem.
        """
        return resolve(
            root=FinetuneConfig,
            preset=preset,
            file=self.config,
            sets=self.sets,
            chosen=chosen,
            flags=self.flags(),
        )

    def check(self) -> None:
        """Looks for mistakes that need neither weights nor images to be seen.

        Raises:
            UsageError: Something is missing, or two options exclude each other.
            ConfigError: As `resolve`.
        """
        if self.label_fraction is not None and self.labels_per_class is not None:
            raise UsageError(
                "--label-fraction and --labels-per-class both say how many labels are used.", "Give one of them."
            )
        if self.resume:
            return
        for name, value in (("WEIGHTS", self.weights), ("DATA", self.data)):
            if value is None:
                raise UsageError(
                    f"{name} is missing.",
                    "ibot finetune WEIGHTS DATA --out RUN; only --resume takes them from the run.",
                )
        self.resolve(self.preset or SMALL_PRESET)
