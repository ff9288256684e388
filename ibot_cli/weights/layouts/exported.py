"""What `ibot export` wrote beside the weights in any layout, put back where readers say it.

A classifier in the layout of another library becomes our `Classifier` again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ibot_cli.core.classifier import Pooling
from ibot_cli.weights.description import Description, parse
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.layouts.found import Found, Preparation

_HEAD = re.compile(r"(head|head\.fc|classifier)\.(weight|bias)")


def with_description(found: Found, description: object) -> Found:
    """A network with what its export says: method, epoch, configuration, views and preparation.

    Args:
        found: The network.
        description: A JSON text or the object that it holds; None changes nothing.

    Raises:
        WeightsError: It is no description of an export.
    """
    if description is None:
        return found
    described = parse(description if isinstance(description, str) else json.dumps(description))
    images, config = described.preparation, described.config
    origin = replace(
        found.origin,
        layout=f"{found.origin.layout} of ibot export",
        method=described.method,
        networks=() if described.which is None else (described.which,),
        which=described.which,
        epoch=described.epoch,
        step=described.step,
        config=config,
    )
    return replace(
        found,
        origin=origin,
        preparation=Preparation(
            mean=images.mean,
            std=images.std,
            image_size=images.image_size,
            crop_ratio=images.crop_ratio,
            bits=images.bits,
        ),
        views=None if config is None else config.views,
    )


def with_classifier(found: Found, state: Mapping[str, Tensor], text: str, names: Sequence[Any] | None = None) -> Found:
    """What a reader found, with the classifier that it left out.

    Nothing changes where the export had no classifier, or where the file has another one by now.

    Args:
        found: The backbone.
        state: All tensors of the file, by their names there.
        text: The description that the export put into it.
        names: Of the classes, as the other library knows them; None where only the description says them.

    Raises:
        WeightsError: The description cannot be read.
    """
    described = parse(text)
    head = {match[2]: value for name, value in state.items() if (match := _HEAD.fullmatch(name))}
    if not _belongs(described, head, names):
        return found
    assert described.shape is not None and described.classes is not None
    pooling: Pooling = "mean" if described.pooling == "mean" else "cls"
    tensors = _in_our_names(found.tensors)
    norm = tensors.get("backbone.norm.bias", tensors.get("fc_norm.bias"))
    if norm is None:  # filling will say that it is missing
        return found
    weight, rest = head["weight"][:, : len(norm)], head["weight"][:, len(norm) :]
    if rest.any():  # what sees the mean of the patches in DINOv2's classifiers; ours had nothing there
        return found
    return replace(
        found,
        network=ClassifierShape(backbone=described.shape, num_classes=len(weight), pooling=pooling),
        tensors={**tensors, "head.weight": weight, "head.bias": head["bias"]},
        classes=described.classes,
        unused=tuple(name for name in found.unused if not _HEAD.fullmatch(name)),
    )


def _belongs(described: Description, head: Mapping[str, Tensor], names: Sequence[Any] | None) -> bool:
    if described.shape is None or described.classes is None or described.projection is not None:
        return False
    same = names is None or [str(name) for name in names] == list(described.classes)
    return same and set(head) == {"weight", "bias"} and len(head["bias"]) == len(described.classes)


def _in_our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where the reader had to leave the network to timm, because of its pooling: `backbone.*` and `fc_norm.*`."""
    found = {_our_name(name): value for name, value in tensors.items()}
    for name, query in tensors.items():
        value = tensors.get(name.replace(".attn.q_bias", ".attn.v_bias"))
        if name.endswith(".attn.q_bias") and value is not None:  # BEiT's attention has no bias of the keys
            del found[name], found[name.replace("q_bias", "v_bias")]
            found[name.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.zeros_like(query), value])
    registers = found.pop("backbone.reg_token", None)
    if registers is not None:
        positions = found["backbone.pos_embed"]
        found["backbone.register_tokens"] = registers
        found["backbone.pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return found


def _our_name(name: str) -> str:
    """Layer scale as timm's BEiT has it, and the norm of the mean."""
    return re.sub(r"\.gamma_([12])$", r".ls\1.gamma", re.sub(r"^backbone\.fc_norm\.", "fc_norm.", name))
