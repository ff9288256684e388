"""An inspection for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ibot_cli.evaluate.inspection.inspection import Inspection


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
