"""The configuration that a weights file holds."""

from __future__ import annotations

import yaml

from ibot_cli.config.load import to_yaml
from ibot_cli.errors import WeightsError
from ibot_cli.evaluate.inspection.opening import open_weights
from ibot_cli.evaluate.inspection.record import plain_values
from ibot_cli.weights.loaded import Which


def as_yaml(weights: str, which: Which | None = None, heads: int | None = None) -> str:
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
