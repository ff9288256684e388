"""Models that timm knows by name; their weights come from timm's cache or the network."""

from __future__ import annotations

import difflib
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from ibot_cli.errors import WeightsError
from ibot_cli.weights.timm_models import TimmBackbone

_HUB = ("hf-hub:", "hf_hub:")
_PROBE_SECONDS = 3
_CROP_RATIO = 0.875


@dataclass(frozen=True)
class TimmModel:
    """A backbone and how its images are prepared."""

    backbone: TimmBackbone
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float


def load_timm(name: str, *, pretrained: bool = True) -> TimmModel:
    """Build `timm.create_model(name)`; pretrained weights come from timm's cache or the network.

    Args:
        name: `MODEL`, `MODEL.TAG`, or `hf-hub:OWNER/NAME` for a model of timm on Hugging Face's hub.
        pretrained: Whether to load weights.

    Raises:
        WeightsError: No such model, or its weights cannot be had.
    """
    if not name.startswith(_HUB):
        _check_name(name)
    try:
        with _quiet_hub():
            model = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # whatever the network, the hub or timm itself raises, the user can do the same
        raise _unavailable(name, error) from error
    settings = model.pretrained_cfg
    channels, image_size, _ = settings["input_size"]
    return TimmModel(
        TimmBackbone(model),
        channels,
        image_size,
        tuple(settings["mean"]),
        tuple(settings["std"]),
        float(settings.get("crop_pct") or _CROP_RATIO),
    )


def _check_name(name: str) -> None:
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        close = difflib.get_close_matches(base, timm.list_models(), n=3)
        raise WeightsError(
            f"timm has no model {name!r}.",
            f"Did you mean {' or '.join(close)}?" if close else "`timm.list_models()` lists them.",
        )
    tagged = timm.list_models(f"{base}.*", pretrained=True)
    if tag and name not in tagged:
        close = difflib.get_close_matches(name, tagged, n=3, cutoff=0.0)
        raise WeightsError(
            f"timm has no weights {tag!r} of {base}.",
            f"It has {', '.join(close)}." if close else f"It has no weights of {base} at all.",
        )


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """No lines of the libraries on stderr, and no minute of retries where the hub cannot be reached."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm")]
    levels, offline = [logger.level for logger in loggers], constants.HF_HUB_OFFLINE
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = offline or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reachable(endpoint: str) -> bool:
    """Whether a connection can be opened; behind a proxy that is not known before trying."""
    parts = urlsplit(endpoint)
    if parts.scheme in getproxies():
        return True
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False


def _unavailable(name: str, error: Exception) -> WeightsError:
    if isinstance(error, LocalEntryNotFoundError):
        code = f"timm.models.save_for_hf(timm.create_model('{name}', pretrained=True), 'FOLDER')"
        return WeightsError(
            f"The weights of timm:{name} are not in the cache, and {constants.ENDPOINT} cannot be reached.",
            f'Where there is a network: python -c "import timm; {code}"; then name that FOLDER here as WEIGHTS.',
        )
    if isinstance(error, KeyError) and name.startswith(_HUB):
        repository = name.partition(":")[2]
        return WeightsError(
            f"{repository} is no model of timm: its config.json has no {error}.",
            f"For other libraries' models: `hf download {repository} --local-dir FOLDER`, then name FOLDER.",
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return WeightsError(
        f"timm cannot load {name!r}: {reason}",
        "Check the name and the network; pretrained weights are downloaded once and cached.",
    )
