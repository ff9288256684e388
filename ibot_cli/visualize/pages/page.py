"""Pages from templates, and how they get onto the disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ibot_cli import __version__
from ibot_cli.durable import write_atomically
from ibot_cli.errors import RunError, UsageError
from ibot_cli.visualize.pages import numbers

TEMPLATES = Path(__file__).parent / "templates"
SUFFIXES = (".html", ".htm")


def render_page(template: str, **values: object) -> str:
    """A page as text.

    Every value is escaped unless it is `markupsafe.Markup`. A template extends `base.html` and fills its blocks
    `style`, `head`, `content` and `script`; building blocks are the macros of `parts.html`.

    Args:
        template: Its name inside `templates/`.
        values: What it shows; `title` at least.

    Returns:
        A whole HTML document that UTF-8 can hold: what a file system's name has of other bytes becomes `?`.

    Raises:
        jinja2.TemplateNotFound: There is no such template.
        jinja2.UndefinedError: The template shows something that is not among the values.
    """
    text = _environment().get_template(template).render(version=__version__, **values)
    return text.encode("utf-8", "replace").decode("utf-8")


def spans(text: str) -> Markup:
    """The text, escaped, with what stands between `backticks` as code; the filter `spans` of the templates."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if at % 2 else escape(p) for at, p in enumerate(parts))


def check_page_path(path: Path) -> None:
    """Refuse, before any work is done, a file that could not be or should not be overwritten by a page.

    Raises:
        UsageError: It does not end in .html, is a directory, or its directory does not exist.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory.", f"Name a file, for example {path / 'page.html'}.")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path} does not end in .html.", f"Name it for example {path.with_suffix('.html').name}.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} does not exist.", "Make the directory first.")


def write_page(path: Path, page: str) -> None:
    """Write a page, atomically.

    Raises:
        UsageError: As `check_page_path`.
        RunError: The file cannot be written.
    """
    check_page_path(path)
    try:
        write_atomically(path, lambda file: file.write(page.encode()))
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}.", "Check its space and permissions, or use --out."
        ) from error


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": numbers.count,
        "number": numbers.number,
        "percent": numbers.percent,
        "spans": spans,
    }
    return environment
