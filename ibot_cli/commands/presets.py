"""`ibot presets`: which recipes there are, what they set and why, and how two of them differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibot_cli import console

if TYPE_CHECKING:
    from ibot_cli.config.presets import Preset
    from ibot_cli.config.settings import Setting

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A preset; `ibot presets list` names them.")]


def list_presets(json: Json = False) -> None:
    """List the presets with one line on each."""
    from ibot_cli.config import presets

    found = [presets.load(name) for name in presets.names()]
    if json:
        console.emit_json([{"name": p.name, "kind": p.kind.name, "title": p.title, "about": p.about} for p in found])
        return
    rows = [(p.name, p.kind.name, p.title) for p in found]
    console.table(["Preset", "For", "What it is"], rows, keep=["Preset", "For"], data=True)


def show(
    name: Name,
    all_settings: Annotated[bool, typer.Option("--all", help="Every setting, not only what the preset sets.")] = False,
    json: Json = False,
) -> None:
    """Show what a preset sets, with the meaning, the unit and the source of each value."""
    from ibot_cli.config import presets
    from ibot_cli.config.settings import settings

    preset = presets.load(name)
    shown = {
        path: setting
        for path, setting in settings(preset.kind.root).items()
        if all_settings or path in preset.values or path in preset.unknown
    }
    if json:
        values = {path: _record(preset, setting) for path, setting in shown.items()}
        head = {"name": name, "kind": preset.kind.name, "title": preset.title, "about": preset.about}
        console.emit_json({**head, "values": values})
        return
    console.emit_text(f"{name}: {preset.title}\nFor `{preset.kind.command}`.\n\n{preset.about}\n")
    console.definitions(_entry(preset, setting, all_settings) for setting in shown.values())
    if not all_settings:
        console.emit_text("\nAll other settings keep their defaults; --all shows them too.")


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A preset.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another preset.")],
    json: Json = False,
) -> None:
    """Show the settings in which two presets differ, side by side."""
    from ibot_cli.config import presets
    from ibot_cli.config.settings import readable

    found = presets.diff(a, b)
    if json:
        differences = [{"path": path, "a": left, "b": right} for path, left, right in found]
        console.emit_json({"a": a, "b": b, "differences": differences})
        return
    if not found:
        console.emit_text(f"{a} and {b} set the same values.")
        return
    rows = [(path, readable(left), readable(right)) for path, left, right in found]
    console.table(["Setting", a, b], rows, keep=["Setting"], data=True)


def _record(preset: Preset, setting: Setting) -> dict[str, Any]:
    return {
        "value": preset.values.get(setting.path, setting.default),
        "default": setting.default,
        "help": setting.help,
        "unit": setting.unit,
        "allowed": setting.allowed,
        "source": preset.sources.get(setting.path),
        "unknown": preset.unknown.get(setting.path),
    }


def _entry(preset: Preset, setting: Setting, full: bool) -> tuple[str, list[str]]:
    from ibot_cli.config.settings import readable

    path = setting.path
    value = readable(preset.values.get(path, setting.default))
    lines = [setting.help]
    lines += [f"allowed: {setting.allowed}"] if full else []
    if path in preset.values and preset.values[path] != setting.default:
        lines.append(f"default: {readable(setting.default)}")
    lines += [f"source: {preset.sources[path]}"] if path in preset.sources else []
    lines += [f"assumed: {preset.unknown[path]}"] if path in preset.unknown else []
    return f"{path} = {value} {setting.unit}".rstrip(), lines
