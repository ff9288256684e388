"""Training views in a few lines for people, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ibot_cli import console
from ibot_cli.evaluate.faults import each_left_out
from ibot_cli.quantities import counted
from ibot_cli.visualize.views.result import SeenView, TrainingViews


def show_training_views(found: TrainingViews) -> None:
    """Sizes and ranges of the recipe beside what was measured."""
    recipe = f"preset {found.preset}" if found.preset else "the recipe chosen for the data"
    console.note(
        f"Views of {counted(len(found.samples), 'image')} of {found.data} ({found.num_images:,} images) in epoch "
        f"{found.epoch}, seed {found.seed}, {recipe}"
    )
    views = [view for sample in found.samples for view in sample.views]
    rows = []
    settings = found.views
    for kind, size, scale in (
        ("global", settings.global_size, settings.global_scale),
        ("local", settings.local_size, settings.local_scale),
    ):
        some = [view for view in views if view.kind == kind]
        if some:
            area = f"{scale[0]:.0%} to {scale[1]:.0%}"
            rows.append((kind, f"{len(some) // len(found.samples)}", f"{size} px", area, *_measured(some)))
    columns = ["Views", "Each", "Size", "Area asked", "Area here", "Flip", "Jitter", "Grey", "Blur", "Solarised"]
    console.table(columns, rows, right=columns[1:], keep=columns)
    console.note(_masks(found))
    for text in each_left_out(found.unreadable):
        console.warn(text.replace("was left out", "is replaced by another image"))


def _measured(views: Sequence[SeenView]) -> tuple[str, ...]:
    decisions: tuple[Callable[[SeenView], object], ...] = (
        lambda view: view.flip,
        lambda view: view.jitter,
        lambda view: view.gray,
        lambda view: view.blur_radius,
        lambda view: view.solarize,
    )
    shares = [sum(bool(decision(view)) for view in views) / len(views) for decision in decisions]
    return (f"{sum(view.share for view in views) / len(views):.0%}", *(f"{share:.0%}" for share in shares))


def _masks(found: TrainingViews) -> str:
    if found.mask is None:
        return "Nothing is masked: the recipe has no patch target."
    if found.epoch < found.mask.start_epoch:
        return f"Nothing is masked before epoch {found.mask.start_epoch}."
    return (
        f"Masks ({found.mask.kind}): {found.masked_share:.1%} of the {found.grid} x {found.grid} patches on average, "
        f"and {found.unmasked_share:.0%} of the views have none, over {found.num_masks:,} views of this epoch."
    )
