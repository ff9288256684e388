"""From what `ibot export` was asked for to the network that leaves."""

from __future__ import annotations

from dataclasses import replace

from ibot_cli.errors import UsageError
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.load import Which, load_weights


def open_subject(
    weights: str,
    form: Form,
    options: ExportOptions,
    which: Which | None = None,
    image_size: int | None = None,
    *,
    heads: int | None = None,
    partial: bool = False,
) -> tuple[Subject, ExportOptions]:
    """Load what is exported.

    Args:
        weights: As for `load_weights`.
        form: One of `FORMS`. One that holds student and teacher gets both where the file has both and neither `which`
            nor `image_size` was asked for.
        options: What else was asked for.
        which: Of a file that holds both; the teacher if None.
        image_size: Side in pixels; default the network's own.
        heads: As for `load_weights`.
        partial: As for `load_weights`.

    Returns:
        The network, and the options with the student where both go into the file.

    Raises:
        UsageError: `which` is not in the file.
        IBotError: As `load_weights` and `export_subject`.
    """
    loaded = load_weights(weights, which=which or "teacher", heads=heads, partial=partial)
    held = loaded.origin.networks
    if which is not None and which not in held:
        raise UsageError(
            f"--which {which}: {weights} holds {f'the {held[0]} alone' if held else 'a single network'}.",
            "Leave --which out.",
        )
    both = {"student", "teacher"} <= set(held)
    if form.takes_both is None or which is not None or image_size is not None or not both:
        return export_subject(loaded, image_size, options.with_head), options
    student = load_weights(weights, which="student", heads=heads, partial=partial)
    options = replace(options, student=student, with_head=options.with_head or form.takes_both(loaded, student))
    return export_subject(loaded, None, options.with_head), options
