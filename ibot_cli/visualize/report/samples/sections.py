"""The sections of a report that show images; one that cannot be made says why, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ibot_cli.errors import DataError, IBotError
from ibot_cli.visualize.report.samples.attention import attention_values
from ibot_cli.visualize.report.samples.neighbours import neighbour_values
from ibot_cli.visualize.report.samples.options import SampleOptions, StageProgress
from ibot_cli.visualize.report.samples.patterns import pattern_values
from ibot_cli.visualize.report.samples.subject import Subject, open_subject
from ibot_cli.visualize.report.section import Section

Values = Callable[[Subject, StageProgress | None], Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One of the sections, before it is known whether it can be made."""

    id: str
    title: str
    short: str
    values: Values
    scripts: tuple[str, ...] = ()


KINDS = (
    _Kind(id="patterns", title="Patterns", short="Patterns", values=pattern_values),
    _Kind(id="attention", title="Attention and patch features", short="Attention", values=attention_values),
    _Kind(
        id="neighbours",
        title="Nearest neighbours",
        short="Neighbours",
        values=neighbour_values,
        scripts=("report_neighbours.js",),
    ),
)


def sample_sections(
    run: Path, options: SampleOptions | None = None, *, progress: StageProgress | None = None
) -> list[Section]:
    """Patterns, attention maps and nearest neighbours of a run.

    Nothing random is drawn from global generators, and everything is chosen by `options.seed`.

    Args:
        run: The run directory, of `ibot pretrain` or `ibot finetune`.
        options: What to show, of which images, and where to compute.
        progress: Called with the stage, what is done and its total.

    Returns:
        Always the same sections; one that lacks its weights, head or images holds a sentence that says so.

    Raises:
        DataError: The images that `options.data` names cannot be opened; a run's own that are gone are a sentence.
    """
    options = options or SampleOptions()
    try:
        subject = open_subject(run, options)
    except IBotError as error:
        if options.data is not None and isinstance(error, DataError):
            raise
        return [_section(kind, _problem(error)) for kind in KINDS]
    return sections_of(subject, progress)


def sections_of(subject: Subject, progress: StageProgress | None = None) -> list[Section]:
    """As `sample_sections`, of a network and images that are open."""
    return [_section(kind, _values(kind, subject, progress)) for kind in KINDS]


def _values(kind: _Kind, subject: Subject, progress: StageProgress | None) -> Mapping[str, object]:
    try:
        return {"problem": None, **kind.values(subject, progress)}
    except IBotError as error:
        return _problem(error)


def _problem(error: IBotError) -> Mapping[str, object]:
    return {"problem": " ".join(filter(None, [error.message, error.hint]))}


def _section(kind: _Kind, values: Mapping[str, object]) -> Section:
    return Section(
        id=kind.id,
        title=kind.title,
        short=kind.short,
        template=f"report_{kind.id}.html",
        values=values,
        styles=("report_samples.css",),
        scripts=kind.scripts if values["problem"] is None else (),
    )
