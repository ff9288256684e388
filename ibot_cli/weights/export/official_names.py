"""Our state dicts as the authors' code has them: names, order, and the tables that it keeps as buffers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ibot_cli.core.heads import BatchNorm, Head

_SWIN_ROOT = ("masked_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")


def backbone_names(tensors: Mapping[str, Tensor], mask_token: Tensor | None) -> dict[str, Tensor]:
    """A backbone's tensors in the authors' names and order, without the prefix `backbone.`.

    Args:
        tensors: In our names, without mask token.
        mask_token: Of a student, `[1, D]`.

    Source:
        `models/vision_transformer.py` and `models/swin_transformer.py` of the authors' iBOT code (da316d8).
    """
    swin = any(name.startswith("layers.") for name in tensors)
    named = _swin_names(tensors) if swin else dict(tensors)
    if mask_token is None:
        return named
    first = {} if swin else {name: named.pop(name) for name in ("cls_token", "pos_embed")}
    return {**first, "masked_embed": mask_token, **named}


def head_names(head: Head) -> dict[str, Tensor]:
    """A head's tensors in the authors' names and order, without the prefix `head.`; see `can_be_said`.

    A shared prototype layer stands there twice, and each place of the one batch normalisation too.

    Source:
        `models/head.py` of the authors' iBOT code (da316d8).
    """
    named: dict[str, Tensor] = {}
    single = len(head.mlp) == 1  # their MLP of one layer is that layer
    for name, value in head.mlp.state_dict().items():
        named[f"mlp.{name.removeprefix('0.') if single else name}"] = value
        if name.endswith("running_var"):
            named[f"mlp.{name.removesuffix('running_var')}num_batches_tracked"] = torch.tensor(0)
    for place, layer in (("last_layer", head.last_layer), ("last_layer2", head.patch_layer)):
        named |= {f"{place}.weight_g": layer.weight_g.detach(), f"{place}.weight_v": layer.weight_v.detach()}
    return named


def can_be_said(head: Head) -> bool:
    """Whether the authors' head can hold this one: theirs has one MLP and one batch normalisation in all its places."""
    if head.mlp2 is not None:
        return False
    states = [norm.state_dict() for norm in head.mlp if isinstance(norm, BatchNorm)]
    return all(torch.equal(value, states[0][name]) for state in states[1:] for name, value in state.items())


def position_index(table: Tensor) -> Tensor:
    """Row of the table for each pair of tokens of a window, int64 `[w * w, w * w]`.

    Source:
        Swin (arXiv 2103.14030): offset of rows times 2 w - 1, plus offset of columns, both from 0.
    """
    window = (round(len(table) ** 0.5) + 1) // 2
    places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    offsets = places[:, :, None] - places[:, None, :] + window - 1
    index: Tensor = offsets[0] * (2 * window - 1) + offsets[1]
    return index


def _swin_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm reduces at the start of a stage, the authors at the end of the one before."""
    stages: dict[int, dict[str, Tensor]] = {}
    merging: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if not (match := re.match(r"layers\.(\d+)\.(.*)", name)):
            continue
        stage, rest = int(match[1]), match[2]
        if rest.startswith("downsample."):
            merging.setdefault(stage - 1, {})[f"layers.{stage - 1}.{rest}"] = value
            continue
        stages.setdefault(stage, {})[name] = value
        if rest.endswith("relative_position_bias_table"):
            stages[stage][name.replace("bias_table", "index")] = position_index(value)
    named = {name: value for name, value in tensors.items() if name.startswith("patch_embed.")}
    for stage, blocks in sorted(stages.items()):
        named |= blocks | dict(sorted(merging.get(stage, {}).items(), key=lambda item: "reduction" not in item[0]))
    return named | {name: value for name, value in tensors.items() if name.startswith("norm.")}
