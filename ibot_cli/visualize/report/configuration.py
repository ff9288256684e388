"""The section on settings: what differs from the preset and why, then all of them."""

from __future__ import annotations

from ibot_cli.config.settings import readable, settings
from ibot_cli.visualize.report.recipe import Recipe, recipe_of
from ibot_cli.visualize.report.record import RunRecord
from ibot_cli.visualize.report.section import Section


def configuration_section(run: RunRecord) -> Section:
    """A row per setting that differs, and the whole file."""
    recipe = recipe_of(run)
    return Section(
        id="configuration",
        title="Configuration",
        short="Settings",
        template="report/configuration.html",
        values={
            "recipe": recipe,
            "rows": [] if recipe is None else _rows(run, recipe),
            "text": run.config_text,
        },
    )


def _rows(run: RunRecord, recipe: Recipe) -> list[tuple[str, str, str, str, str]]:
    assert run.config is not None  # or there would be no recipe
    root: type = type(run.config)
    known = settings(root)
    return [
        (each.path, readable(each.preset), readable(each.value), each.source, known[each.path].help)
        for each in recipe.changes
    ]
