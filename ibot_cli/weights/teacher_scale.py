"""What turns a teacher's scores into probabilities: the centres and temperatures that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ibot_cli.config.schema import Config


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherScale:
    """Centres and final temperatures of the teacher; None where the file does not say.

    Attributes:
        cls_center: Of class tokens, float32 `[K]`.
        patch_center: Of patches, float32 `[K']`.
        cls_temp: Of class tokens.
        patch_temp: Of patches.

    Source:
        iBOT (arXiv 2111.07832), section 3.2: softmax of (scores - centre) / temperature.
    """

    cls_center: Tensor | None = None
    patch_center: Tensor | None = None
    cls_temp: float | None = None
    patch_temp: float | None = None


def configured_scale(config: Config, centers: object) -> TeacherScale:
    """Of a checkpoint of ours; centres that were never moved, as with Sinkhorn, are None."""
    held = centers if isinstance(centers, Mapping) else {}
    return TeacherScale(
        cls_center=_center(held.get("cls")),
        patch_center=_center(held.get("patch")),
        cls_temp=config.objective.teacher_temp,
        patch_temp=config.objective.teacher_patch_temp,
    )


def official_scale(content: Any, arguments: Mapping[str, Any]) -> TeacherScale:
    """Of a full checkpoint of the authors: `ibot_loss` (or `dino_loss`) and what `args` says."""
    held = loss_state(content)
    return TeacherScale(
        cls_center=_center(held.get("center")),
        patch_center=_center(held.get("center2")),
        cls_temp=_temp(arguments.get("teacher_temp")),
        patch_temp=_temp(arguments.get("teacher_patch_temp")),
    )


def loss_state(content: Any) -> Mapping[str, Any]:
    """The authors' state of the loss in a loaded file, with `center` and, for iBOT, `center2`; empty without one."""
    for name in ("ibot_loss", "dino_loss"):
        loss = content.get(name) if isinstance(content, Mapping) else None
        if isinstance(loss, Mapping) and isinstance(loss.get("center"), Tensor):
            return loss
    return {}


def _center(value: object) -> Tensor | None:
    if not isinstance(value, Tensor) or not bool(value.any()):
        return None
    return value.detach().float().cpu().flatten().clone()


def _temp(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value > 0 else None
