"""A part of a report: what it shows and the template that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a report.

    The template is included inside `<section id=ID>` below `<h2>TITLE</h2>`; its own headings begin with `<h3>`. It
    sees `values` (this section's), and nothing of other sections.

    Attributes:
        id: Unique in the page, for links.
        title: The heading.
        template: Name of a file inside `pages/templates/`.
        values: What the template shows, as `values.NAME`.
        short: The title in the navigation; default the title.
        styles: Names of CSS files inside `pages/templates/` that the section needs besides `base.css`.
        scripts: Names of JavaScript files there.
    """

    id: str
    title: str
    template: str
    values: Mapping[str, object] = field(default_factory=dict)
    short: str = ""
    styles: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
