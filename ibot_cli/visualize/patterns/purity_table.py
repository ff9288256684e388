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
    """Trained weights over the mean of random ones: of the members shown, and of all patches."""
    return _ratios(found.trained, found.random)


def purity_sentence(found: PurityComparison) -> str:
    """What the numbers mean, and the ratios."""
    random, pixels = purity_ratios(found), _ratios(found.trained, [found.pixels])
    return (
        f"Share of the most common class, mean of {found.trained.num_patterns} patterns; {found.num_images:,} images. "
        f"Trained / random weights: {random[0]:.2f} of the members shown, {random[1]:.2f} of all patches; "
        f"trained weights / raw pixels: {pixels[0]:.2f} and {pixels[1]:.2f}. "
        "Chance: images drawn at random, and the largest class."
    )


def _ratios(trained: Purity, others: Sequence[Purity]) -> tuple[float, float]:
    members, patches = (fmean(getattr(each, name) for each in others) for name in ("members", "patches"))
    return trained.members / (members or float("nan")), trained.patches / (patches or float("nan"))


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
