"""Schedules: pure functions of the step or the epoch.

Source: the tables of the authors' code (iBOT, arXiv 2111.07832; DINO, arXiv 2104.14294), value by value.
"""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, total: int, warmup: int, peak: float, final: float) -> float:
    """Linear from 0 to `peak` over `warmup` steps (the last of them has `peak`), then a cosine towards `final`."""
    if step < warmup:
        return peak * step / (warmup - 1) if warmup > 1 else 0.0
    return cosine(step - warmup, total=total - warmup, start=peak, final=final)


def cosine(step: int, *, total: int, start: float, final: float) -> float:
    """Half a cosine from `start` at step 0; `final` would be reached at step `total`."""
    return final + 0.5 * (start - final) * (1 + math.cos(math.pi * step / total))


def teacher_temp(epoch: int, *, warmup_epochs: int, start: float, final: float, hold_epochs: int = 0) -> float:
    """Temperature of an epoch, constant inside it.

    `hold_epochs` epochs at `start`, then linear over `warmup_epochs` (the last of them has `final`), then `final`.
    The patch temperature holds until masking starts.
    """
    index = epoch - hold_epochs
    if index < 0:
        return start
    if index >= warmup_epochs:
        return final
    return start + (final - start) * index / (warmup_epochs - 1) if warmup_epochs > 1 else start
