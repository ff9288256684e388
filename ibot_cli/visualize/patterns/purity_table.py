"""Purity beside what it must beat, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ibot_cli.quantities import counted
from ibot_cli.visualize.patterns.result import Kind, Purity, PurityComparison
from ibot_cli.visualize.patterns.wording import items

Cells = tuple[str, str, str, str]


def purity_columns(kind: Kind) -> Cells:
    """The headings."""
    return "Patterns of", "Members shown", f"All {items(kind)}", "Prototypes used"


def purity_rows(found: PurityComparison) -> list[Cells]:
    """Trained weights, random weights (mean and range over the seeds), k-means on raw pixels, and chance."""
    return [
        _cells("trained weights", [found.trained]),
        _cells(f"random weights, {len(found.seeds)} seeds", found.random),
        _cells(f"k-means on raw pixels, K = {found.pixels_k:,}", [found.pixels]),
        ("chance", f"{found.chance_members:.1%}", f"{found.chance:.1%}", ""),
    ]


def purity_ratios(found: PurityComparison) -> tuple[float, float]:
    """Trained weights over the mean of random ones: of the members shown, and of all patches."""
    return _ratios(found.trained, found.random)


def purity_notes(found: PurityComparison, kind: Kind) -> tuple[str, ...]:
    """What the numbers mean, and the ratios, as lines."""
    random, pixels = purity_ratios(found), _ratios(found.trained, [found.pixels])
    return (
        f"Share of the most common class, mean over {counted(found.trained.num_patterns, 'pattern')} of "
        f"{counted(found.num_images, 'image')}; with more or fewer patterns it is another.",
        f"Trained / random weights: {random[0]:.2f} of the members shown, {random[1]:.2f} of all {items(kind)}; "
        f"trained / raw pixels: {pixels[0]:.2f} and {pixels[1]:.2f}.",
        _centres(found, kind),
        "Chance: images drawn at random, and the largest class.",
    )


def _centres(found: PurityComparison, kind: Kind) -> str:
    """Where the K of k-means comes from: with more centres each group is purer by itself."""
    equal = found.pixels_k == found.trained.used
    why = "as the trained weights use prototypes" if equal else f"as its sample has {items(kind)}"
    return f"k-means has as many centres (K) {why}."


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
