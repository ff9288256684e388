"""What is wrong with a configuration, and how it is told: all of it at once, each with a way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ibot_cli.config.kinds import kind_of
from ibot_cli.config.schema import Config
from ibot_cli.config.settings import settings
from ibot_cli.errors import ConfigError

SETTINGS_HINT = "`ibot presets show {} --all` lists every setting with what it allows."
PRESETS_HINT = "`ibot presets list` shows the presets."


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Args:
        what: `path = value`, or the path alone.
        origin: Where it was said: `--set`, `file x.yaml, line 3`, `preset NAME`, `default`.
        text: What is wrong with it and what is allowed, without a capital or a full stop.
    """

    what: str
    origin: str
    text: str

    def __str__(self) -> str:
        origin = f" ({self.origin})" if self.origin else ""
        return f"{self.what}{origin}: {self.text}"


def report(problems: Iterable[Problem], root: type = Config) -> ConfigError:
    """The error that lists all `problems` of a configuration of the schema `root`, each once."""
    problems = list(problems)
    lines = list(dict.fromkeys(str(problem) for problem in problems))
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    presets_only = all(problem.what.startswith("preset ") for problem in problems)
    hint = PRESETS_HINT if presets_only else SETTINGS_HINT.format(kind_of(root).example)
    return ConfigError("\n".join([f"{count} in the configuration.", *(f"  - {line}" for line in lines)]), hint)


def closest(word: str, names: Sequence[str]) -> str | None:
    """The name that `word` was probably meant to be, or None."""
    found = get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return found[0] if found else None


def closest_setting(path: str, root: type = Config) -> str | None:
    """The setting of the schema `root` that `path` was probably meant to be, or None.

    The last component counts by itself too: people write `lr` for `optim.lr`, and `train.lr` for it as well.
    """
    known = settings(root)
    last = path.rsplit(".", 1)[-1].lower().replace("-", "_")
    if exact := [name for name in known if name.rsplit(".", 1)[-1] == last]:
        return closest(path, exact) or exact[0]
    if whole := closest(path, list(known)):
        return whole
    by_leaf = {name.rsplit(".", 1)[-1]: name for name in known}
    leaf = closest(last, list(by_leaf))
    return by_leaf[leaf] if leaf else None
