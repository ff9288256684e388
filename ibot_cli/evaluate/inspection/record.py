"""What scripts get: an inspection as plain values, and the configuration that weights hold as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml

from ibot_cli.config.load import to_yaml
from ibot_cli.errors import WeightsError
from ibot_cli.evaluate.inspection.inspection import Inspection
from ibot_cli.evaluate.inspection.opening import open_weights
from ibot_cli.weights.loaded import Which


def record(found: Inspection) -> dict[str, Any]:
    """An inspection as plain values for `--json`: numbers that are not finite and values of other kinds as text."""
    origin = found.origin
    fields = {name: value for name, value in vars(found).items() if name not in ("origin", "parameters")}
    plain = {name: asdict(value) if hasattr(value, "__dataclass_fields__") else value for name, value in fields.items()}
    plain["parts"] = [asdict(part) for part in found.parts]
    plain["architecture"]["text"] = found.architecture.sentence()
    known = ("layout", "path", "method", "networks", "which", "epoch", "step")
    about = {name: getattr(origin, name) for name in known} | {"run": None if origin.run is None else str(origin.run)}
    result = {"weights": found.weights, **about, "parameters": dict(found.parameters), **plain}
    plain_result: dict[str, Any] = plain_values(result | {"arguments": dict(origin.arguments)})
    return plain_result


def configuration(weights: str, which: Which | None = None, heads: int | None = None) -> str:
    """Our configuration, the authors' arguments or a `config.json`, as YAML.

    Raises:
        WeightsError: The weights cannot be loaded, or hold none.
    """
    origin = open_weights(weights, which, heads).loaded.origin
    if origin.config is not None:
        return to_yaml(origin.config)
    if not origin.arguments:
        raise WeightsError(
            f"{weights} holds no configuration.", "Checkpoints of ibot and full checkpoints of the authors hold one."
        )
    return yaml.safe_dump(plain_values(origin.arguments), sort_keys=False, allow_unicode=True)


def plain_values(value: Any) -> Any:
    """A copy in dicts, lists, text, numbers and None; what else there is becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(entry) for entry in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if value - value == 0 else None
    return str(value)
