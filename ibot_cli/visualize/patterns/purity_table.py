"""Purity beside what it must beat, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ibot_cli.visualize.patterns.result import Purity, PurityComparison

COLUMNS = ("Patterns of", "Members shown", "All patches", "Prototypes used")
Cells = tuple[str, str, str, str]


def purity_rows(found: PurityComparison) -> list[Cells]:
    """Trained weights, random weights (mean and range over the seeds), k-means on raw patches, and chance."""
    return [
        _cells("trained weights", [found.trained]),
        _cells(f"random weights, {len(found.seeds)} seeds", found.random),
        _cells("k-means on raw pixels", [found.pixels]),
        ("chance", f"{found.chance_members:.1%}", f"{found.chance:.1%}", ""),
    ]


def purity_ratios(found: PurityComparison) -> tuple[float, float]:
    """Trained over the mean of random weights: of the members shown, and of all patches."""
    members, patches = (
        fmean(getattr(each, name) for each in found.random) or float("nan") for name in ("members", "patches")
    )
    return found.trained.members / members, found.trained.patches / patches


def purity_sentence(found: PurityComparison) -> str:
    """What the numbers mean, and the ratios."""
    members, patches = purity_ratios(found)
    return (
        f"Purity: share of the most common class, mean over the {found.trained.num_patterns} patterns shown; trained / "
        f"random is {members:.2f} for the members shown and {patches:.2f} for all patches. Measured on "
        f"{found.num_images:,} images. Chance: images drawn at random, and the largest class."
    )


def _cells(name: str, measured: Sequence[Purity]) -> Cells:
    return (
        name,
        _spread([each.members for each in measured]),
        _spread([each.patches for each in measured]),
        f"{fmean(each.used for each in measured):,.0f}",
    )


def _spread(values: Sequence[float]) -> str:
    mean = f"{fmean(values):.1%}"
    return mean if len(values) < 2 else f"{mean} ({min(values):.1%} to {max(values):.1%})"
