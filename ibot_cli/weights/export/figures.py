"""Figures that a run has recorded about its weights, for the model card."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RecordedFigure:
    """One number of one evaluation.

    Attributes:
        measure: What was measured.
        data: On which images; a name, never a path.
        value: The number.
        percent: Whether people read it as a percentage.
        random: The same of random weights; None when not measured.
        pixels: The same of raw pixels; None when not measured.
    """

    measure: str
    data: str
    value: float
    percent: bool
    random: float | None
    pixels: float | None

    def text(self, value: float | None) -> str:
        """`value` as this figure is read; empty for None."""
        if value is None:
            return ""
        return f"{value:.1%}" if self.percent else f"{value:.3f}"
