"""The splits of DATA that a pack takes over, and what identifies them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ibot_cli.data.files import NoTestPart
from ibot_cli.data.packing.options import PackOptions
from ibot_cli.data.sources import Source, open_source

TRAIN, VAL = "train", "val"


def open_parts(data: str) -> dict[str, Source]:
    """The images of DATA by split: `train`, and `val` where the data have a test part of their own.

    Raises:
        DataError: As `open_source`.
    """
    parts = {TRAIN: open_source(data, channels=3, split="train")}
    with contextlib.suppress(NoTestPart):
        parts[VAL] = open_source(data, channels=3, split="test")
    return parts


def request_of(parts: Mapping[str, Source], options: PackOptions) -> dict[str, Any]:
    """What is to be packed and how; equal requests give equal packs.

    Returns:
        Plain values, as JSON keeps them.
    """
    images = {
        split: {"images": len(source), "fingerprint": source.fingerprint, "labels": _label_digest(source)}
        for split, source in parts.items()
    }
    return {"options": asdict(options), "splits": images}


def _label_digest(source: Source) -> str | None:
    if source.labels is None:
        return None
    names = "\0".join(source.classes or ())
    return hashlib.sha256(names.encode(errors="surrogateescape") + source.labels.tobytes()).hexdigest()
