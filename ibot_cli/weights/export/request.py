"""From what `ibot export` was asked for to the network that leaves."""

from __future__ import annotations

from ibot_cli.weights.export.form import Form
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.load import LoadedBackbone, Which, load_weights


def open_subject(
    weights: str,
    form: Form,
    *,
    which: Which | None = None,
    image_size: int | None = None,
    with_head: bool = False,
    heads: int | None = None,
    partial: bool = False,
) -> tuple[Subject, LoadedBackbone | None]:
    """Load what is exported.

    Args:
        weights: As for `load_weights`.
        form: One of `FORMS`. One that holds student and teacher gets both where the file has both and neither `which`
            nor `image_size` was asked for.
        which: Of a file that holds both; the teacher if None.
        image_size: Side in pixels; default the network's own.
        with_head: Whether the projection head goes with it.
        heads: As for `load_weights`.
        partial: As for `load_weights`.

    Returns:
        The network, and the student where both go into the file.

    Raises:
        IBotError: As `load_weights` and `export_subject`.
    """
    loaded = load_weights(weights, which=which or "teacher", heads=heads, partial=partial)
    both = {"student", "teacher"} <= set(loaded.origin.networks)
    if form.takes_both is None or which is not None or image_size is not None or not both:
        return export_subject(loaded, image_size, with_head), None
    student = load_weights(weights, which="student", heads=heads, partial=partial)
    return export_subject(loaded, None, with_head or form.takes_both(loaded, student)), student
