"""The reference page of the configuration, written from the schema so that it cannot go stale.

`docs/reference/configuration.md` is this text; a test holds the two together, and
`python -m ibot_cli.config.reference > docs/reference/configuration.md` writes it anew.
"""

from __future__ import annotations

import sys

from ibot_cli.config import presets
from ibot_cli.config.kinds import KINDS, Kind
from ibot_cli.config.settings import Setting, readable, sections, settings

HEAD = """# Configuration

Every setting, generated from the code. Pre-training and fine-tuning have settings of their own; in both, a value is
decided by the last of these that says something:

1. the default below,
2. the preset (`--preset NAME`),
3. an automatic choice, made when DATA is given without a preset and printed with its reason,
4. the file (`--config FILE`), YAML nested like the sections below,
5. `--set PATH=VALUE`, for example `--set optim.lr=1e-3` or `--set mask.ratio=0,0.3`,
6. a flag (`--device`, `--workers`).

Unknown settings, wrong types and values out of bounds are errors; all of them are reported at once. `auto` lets the
program choose when the run starts, and the run's `config.yaml` holds what it chose."""


def reference_markdown() -> str:
    """The whole page, ending in a newline."""
    parts = [HEAD, _presets()]
    for kind in KINDS:
        parts.append(f"## {kind.noun.capitalize()}\n\nThe settings of `{kind.command}`.")
        parts += [_section(kind, name, schema) for name, schema in sections(kind.root).items()]
    return "\n\n".join(parts) + "\n"


def _presets() -> str:
    rows = [f"| `{name}` | {presets.load(name).title} |" for name in presets.names()]
    intro = "`ibot presets show NAME` gives the values of a preset with their sources."
    return "\n".join(["## Presets", "", intro, "", "| preset | what it is |", "|---|---|", *rows])


def _section(kind: Kind, name: str, schema: type) -> str:
    rows = [_row(setting) for path, setting in settings(kind.root).items() if path.startswith(f"{name}.")]
    head = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    return "\n".join([f"### {name} ({kind.noun})", "", (schema.__doc__ or "").strip(), "", *head, *rows])


def _row(setting: Setting) -> str:
    default = f"`{readable(setting.default)}`" + (f" {setting.unit}" if setting.unit else "")
    return f"| `{setting.path}` | {default} | {setting.allowed} | {setting.help} |"


if __name__ == "__main__":
    sys.stdout.write(reference_markdown())
