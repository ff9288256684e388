"""What a checkpoint of the authors says about its training: `args` and the optimiser."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ibot_cli.config.schema import Config
from ibot_cli.core import swin, vit
from ibot_cli.core.heads import Head
from ibot_cli.weights.description import KEY, as_text
from ibot_cli.weights.export.subject import Subject, vit_sizes
from ibot_cli.weights.shapes import BackboneShape

_MACHINE = ("data_path", "output_dir", "load_from")


def arguments_of(subject: Subject, head: Head | None) -> argparse.Namespace:
    """`args` in the authors' names.

    What the file already said under these names stays, our configuration is translated, and sizes that their `arch`
    does not name are added; the description is under `ibot`.

    Args:
        subject: With a shape.
        head: That goes into the file.
    """
    shape, origin = subject.shape, subject.loaded.origin
    assert shape is not None
    said = _translated(origin.config) if origin.config is not None else dict(origin.arguments)
    said = {name: value for name, value in said.items() if name not in (*_MACHINE, KEY)}
    named = {"arch": _arch(shape), "patch_size": swin.PATCH_SIZE if shape.arch in swin.SIZES else shape.patch_size}
    if shape.arch in swin.SIZES:
        named["window_size"] = shape.window_size
    if head is not None:
        named |= {
            "out_dim": len(head.last_layer.weight_g),
            "patch_out_dim": len(head.patch_layer.weight_g),
            "shared_head": head.last_layer2 is None,
            "shared_head_teacher": head.last_layer2 is None,
            "norm_in_head": "syncbn" if any("running_mean" in name for name in head.state_dict()) else None,
        }
    return argparse.Namespace(**{**named, **said, **_sizes(shape), KEY: as_text(subject.describe())})


def optimizer_of(state: Any, student: Mapping[str, Tensor], shared: bool) -> dict[str, Any]:
    """Our optimiser's state in the order of the authors' parameters: in each prototype layer the norm comes first.

    Args:
        state: Of a checkpoint of ours, `{"state", "param_groups"}`.
        student: The student's tensors, which are in the order of its parameters.
        shared: Whether the prototypes are shared.
    """
    groups, moments = state["param_groups"], state["state"]
    trainable = {number for group in groups for number in group["params"]}
    last = ["head.last_layer.", *([] if shared else ["head.last_layer2."])]
    decayed = [name for name, value in student.items() if value.ndim > 1]
    order = list(groups[0]["params"])
    if len(order) == len(decayed):  # prototype norms take part, or they would be in no group
        for layer in last:
            v, g = (decayed.index(layer + name) for name in ("weight_v", "weight_g"))
            order[v], order[g] = order[g], order[v]
    new = {old: groups[0]["params"][place] for place, old in enumerate(order)}
    return {
        "state": {new.get(number, number): moments[number] for number in sorted(moments) if number in trainable},
        "param_groups": [dict(group) for group in groups],
    }


def _arch(shape: BackboneShape) -> str:
    """The authors' name where one fits, else ours, with the sizes beside it."""
    if shape.arch in swin.SIZES:
        return shape.arch
    return next((name for name, known in vit.SIZES.items() if tuple(known) == vit_sizes(shape)), shape.arch)


def _sizes(shape: BackboneShape) -> dict[str, Any]:
    """Sizes that `arch` does not say."""
    if shape.arch in swin.SIZES or vit_sizes(shape) == tuple(vit.SIZES[_arch(shape)]):
        return {}
    return dict(zip(("embed_dim", "depth", "num_heads"), vit_sizes(shape), strict=True))


def _translated(config: Config) -> dict[str, Any]:
    """Our configuration in the names of `main_ibot.py` (da316d8)."""
    views, mask, head, objective, optim, train = (
        config.views, config.mask, config.head, config.objective, config.optim, config.train,
    )  # fmt: skip
    return {
        "norm_last_layer": not head.trainable_norm,
        "act_in_head": head.activation,
        "drop_path": config.model.drop_path,
        "use_masked_im_modeling": objective.patch == "online",
        "pred_ratio": list(mask.ratio),
        "pred_ratio_var": list(mask.ratio_var),
        "pred_shape": "rand" if mask.kind == "random" else mask.kind,
        "pred_start_epoch": mask.start_epoch,
        "lambda1": objective.cls_weight,
        "lambda2": objective.patch_weight,
        "momentum_teacher": objective.teacher_momentum,
        "warmup_teacher_temp": objective.warmup_teacher_temp,
        "teacher_temp": objective.teacher_temp,
        "warmup_teacher_patch_temp": objective.warmup_teacher_patch_temp,
        "teacher_patch_temp": objective.teacher_patch_temp,
        "warmup_teacher_temp_epochs": objective.teacher_temp_warmup_epochs,
        "optimizer": "adamw",
        "lr": optim.lr,
        "min_lr": optim.min_lr,
        "warmup_epochs": optim.warmup_epochs,
        "weight_decay": optim.weight_decay,
        "weight_decay_end": optim.weight_decay_end,
        "clip_grad": optim.clip_grad,
        "freeze_last_layer": optim.freeze_prototypes_epochs,
        "epochs": train.epochs,
        "seed": train.seed,
        "global_crops_number": views.num_global,
        "global_crops_scale": list(views.global_scale),
        "local_crops_number": views.num_local,
        "local_crops_scale": list(views.local_scale),
    }
