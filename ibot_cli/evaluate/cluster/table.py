"""What clustering found as tables for people, on stderr."""

from __future__ import annotations

from dataclasses import dataclass

from ibot_cli import console
from ibot_cli.evaluate.cluster.result import ClusterBaseline, ClusterResult, ClusterRow, LabelScores


def show(result: ClusterResult) -> None:
    """The scores against labels, or without labels what clusters say about themselves; then how it was done."""
    console.note(f"Clusters of {result.data}: {result.weights}")
    if result.num_classes is None:
        _show_unlabelled(result)
    else:
        _show_labelled(result)
    console.note(f"{result.split} {_method(result)}")
    for text in result.notes:
        console.warn(text)


@dataclass(frozen=True)
class _Line:
    """One way to cluster with its scores."""

    name: str
    k: int
    sizes: tuple[str, str]
    scores: LabelScores | ClusterBaseline
    nmi_chance: float
    purity_chance: float


def _show_labelled(result: ClusterResult) -> None:
    lines = _lines(result)
    numbers = ["K", "NMI", "By chance", "AMI", "ARI", "FMI"]
    rows = [
        (
            line.name,
            f"{line.k:,}",
            *map(_decimal, (line.scores.nmi, line.nmi_chance, line.scores.ami, line.scores.ari, line.scores.fmi)),
        )
        for line in lines
    ]
    console.table(["Clusters", *numbers], rows, right=numbers, keep=numbers)
    console.note("")
    _show_accuracies(lines)
    console.note(
        f"By chance: mean of {result.chance_draws} random assignments to clusters of the same sizes; "
        "AMI and ARI are about 0 then."
    )
    for row in result.rows:
        if row.stability is not None and row.nmi_of_runs:
            console.note(
                f"K = {row.k:,}: NMI of the {len(row.nmi_of_runs)} runs {min(row.nmi_of_runs):.3f} to "
                f"{max(row.nmi_of_runs):.3f}, the one of least inertia is shown; ARI between runs {row.stability:.3f}."
            )


def _show_accuracies(lines: list[_Line]) -> None:
    """Accuracy where clusters and classes pair off, else purity; and the sizes."""
    numbers = ["K", "Used", "Images in each", "Purity", "By chance"]
    paired = any(line.scores.hungarian_accuracy is not None for line in lines)
    numbers += ["Hungarian accuracy"] if paired else []
    rows = []
    for line in lines:
        hungarian = line.scores.hungarian_accuracy
        cells = (
            f"{line.scores.purity:.1%}",
            f"{line.purity_chance:.1%}",
            "" if hungarian is None else f"{hungarian:.1%}",
        )
        rows.append((line.name, f"{line.k:,}", *line.sizes, *cells)[: len(numbers) + 1])
    console.table(["Clusters", *numbers], rows, right=numbers, keep=numbers[:-1])


def _show_unlabelled(result: ClusterResult) -> None:
    rows = [
        (
            _name(row),
            f"{row.k:,}",
            *_sizes(row),
            _decimal(row.silhouette),
            _decimal(row.stability),
        )
        for row in result.rows
    ]
    numbers = ["K", "Used", "Images in each", "Silhouette", "Stability"]
    console.table(["Clusters", *numbers], rows, right=numbers, keep=numbers)
    console.note(
        f"Silhouette: {result.silhouette_metric} distances of {result.silhouette_images:,} images, 1 is best. "
        "Stability: mean adjusted Rand index between runs from different seeds, 1 is the same clusters each time."
    )


def _lines(result: ClusterResult) -> list[_Line]:
    own = [
        _Line(_name(row), row.k, _sizes(row), row.scores, row.scores.chance.nmi, row.scores.chance.purity)
        for row in result.rows
        if row.scores is not None
    ]
    return own + [
        _Line(_features(each), each.k, ("", ""), each, each.nmi_chance, each.purity_chance) for each in result.baselines
    ]


def _name(row: ClusterRow) -> str:
    return "own prototypes" if row.method == "prototypes" else "k-means"


def _features(found: ClusterBaseline) -> str:
    seeds = f", mean of {found.seeds} seeds" if found.seeds > 1 else ""
    return f"{found.features}{seeds}"


def _sizes(row: ClusterRow) -> tuple[str, str]:
    sizes = row.sizes
    return f"{sizes.used:,}", f"{sizes.smallest:,} / {sizes.median:g} / {sizes.largest:,}"


def _method(result: ClusterResult) -> str:
    """How k-means went about it, in a sentence."""
    prepared = "standardised features" if result.standardized else "features as they are"
    distance = "cosine" if result.spherical else "Euclidean distance"
    classes = "" if result.num_classes is None else f"{result.num_classes:,} classes. "
    runs = f"best of {result.restarts}, " if result.restarts > 1 else ""
    return f"{classes}k-means by {distance} of {prepared}, {runs}{result.backend}."


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
