"""The whole report: its sections in order, and the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ibot_cli.errors import UsageError
from ibot_cli.visualize.pages import check_page_path, render_page, write_page
from ibot_cli.visualize.report.configuration import configuration_section
from ibot_cli.visualize.report.environment import environment_section
from ibot_cli.visualize.report.evaluations import evaluated, evaluations_section
from ibot_cli.visualize.report.images import images_section
from ibot_cli.visualize.report.overview import lead, overview_section
from ibot_cli.visualize.report.record import RunRecord, read_run
from ibot_cli.visualize.report.reproduce import reproduce_section
from ibot_cli.visualize.report.samples.options import SampleOptions, StageProgress
from ibot_cli.visualize.report.samples.sections import sample_sections
from ibot_cli.visualize.report.section import Section
from ibot_cli.visualize.report.training import curves_section

NAME = "report.html"
_STYLES = ("report/report.css",)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that was written.

    Attributes:
        path: The file.
        size: In bytes.
        sections: Ids, in order.
        problems: What could not be read of the run.
    """

    path: Path
    size: int
    sections: tuple[str, ...]
    problems: tuple[str, ...]


def write_report(
    run: Path,
    *,
    out: Path | None = None,
    title: str | None = None,
    samples: SampleOptions | None = None,
    progress: StageProgress | None = None,
) -> Report:
    """Read a run and write its report; nothing else of the run is changed.

    Args:
        run: The run directory.
        out: The file; default `report.html` inside the run.
        title: Heading; default the run's name.
        samples: What the sections with images show; None leaves them out.
        progress: Called with the stage, what is done and its total.

    Raises:
        RunError: `run` is no run, or the file cannot be written.
        UsageError: `out` is no place for a page, or `title` is blank.
        DataError: The images that `samples.data` names cannot be opened.
    """
    if title is not None and not title.strip():
        raise UsageError("--title is blank.", "Leave it out, or give the report a name.")
    record = read_run(run)
    path = run / NAME if out is None else out
    check_page_path(path)
    shown = [] if samples is None else sample_sections(run, samples, progress=progress)
    sections = sections_of(record, shown)
    page = render_report(record, sections, title)
    write_page(path, page)
    return Report(path=path, size=path.stat().st_size, sections=tuple(s.id for s in sections), problems=record.problems)


def sections_of(run: RunRecord, samples: list[Section]) -> list[Section]:
    """All sections in the order in which they are read."""
    found = evaluated(run)
    return [
        overview_section(run, found),
        curves_section(run),
        evaluations_section(run, found),
        *samples,
        images_section(run),
        configuration_section(run),
        environment_section(run),
        reproduce_section(run),
    ]


def render_report(run: RunRecord, sections: list[Section], title: str | None = None) -> str:
    """The page."""
    return render_page(
        "report.html",
        title=title or run.name,
        lead=lead(run),
        sections=sections,
        styles=list(dict.fromkeys([*_STYLES, *(name for section in sections for name in section.styles)])),
        scripts=list(dict.fromkeys(name for section in sections for name in section.scripts)),
    )
