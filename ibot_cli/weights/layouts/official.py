"""The authors' checkpoint layouts (iBOT and DINO), translated to the names of `ibot_cli.core`.

A full checkpoint holds `student` and `teacher` state dicts, with or without `module.` before each name, and the
centres under `ibot_loss`; an extracted backbone is `{"state_dict": ...}` or the bare dict, without `backbone.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.description import KEY, parse
from ibot_cli.weights.layouts.exported import with_description
from ibot_cli.weights.layouts.found import Found
from ibot_cli.weights.loaded import Which
from ibot_cli.weights.origin import AbsentNetworkError, Origin, plain_arguments
from ibot_cli.weights.shapes import BackboneShape, backbone_shape
from ibot_cli.weights.strangers import stranger
from ibot_cli.weights.teacher_scale import official_scale

_UNUSED = re.compile(
    r"backbone\.(fc|head)\.(weight|bias)"  # a supervised classifier
    r"|backbone\..*\.(relative_position_index|attn_mask)"  # tables that the network computes itself
    r"|head\..*\.num_batches_tracked"
)


def matches(content: Mapping[str, Any]) -> bool:
    """Always: this is the layout of what no other reader knows, and its errors say what is known."""
    return True


def read(content: Mapping[str, Any], path: Path, which: Which, heads: int | None) -> Found:
    """The network of a loaded file of the authors, or of a bare state dict.

    Raises:
        WeightsError: It holds no such network, or one of another kind.
    """
    state = select_network(content, which, path)
    _refuse_strangers(state, path)
    exported = content.get(KEY) or state.arguments.get(KEY)
    shape = (
        backbone_shape(state.tensors, state.arguments, heads) if exported is None else _exported_shape(state, exported)
    )
    networks = _networks(content)
    epoch = content.get("epoch")
    method = _method(content, state)
    found = Found(
        network=shape,
        tensors=state.tensors,
        unused=tuple(state.unused),
        activation=str(state.arguments.get("act_in_head", "gelu")),
        mask_token=_mask_token(content, state),
        scale=official_scale(content, state.arguments),
        description=f"{which} of {path}" if networks else None,
        origin=Origin(
            layout=f"full {method} checkpoint" if networks and method else "checkpoint" if networks else "state dict",
            path=str(path),
            method=method,
            networks=networks,
            which=which if networks else None,
            epoch=epoch if isinstance(epoch, int) else None,
            arguments=state.arguments,
        ),
    )
    return found if exported is None else _exported(found, exported)


@dataclass(frozen=True)
class OfficialState:
    """One network of a foreign file.

    Attributes:
        tensors: `backbone.*` and `head.*` in the names of `ibot_cli.core.objective.Network`.
        unused: Names that are known and not needed, as they were in the file.
        arguments: What the checkpoint says about its training; empty when it says nothing.
    """

    tensors: dict[str, Tensor]
    unused: list[str]
    arguments: dict[str, Any] = field(default_factory=dict)


def select_network(content: Any, which: str, path: Path) -> OfficialState:
    """Find the wanted network in a loaded file and translate its names.

    Args:
        content: What `read_weights_file` returned.
        which: `student` or `teacher`; a file with a single network ignores it.
        path: For messages.

    Raises:
        WeightsError: The file holds no such network.
    """
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not weights.", "Use a file with a state dict.")
    arguments = content.get("args")
    state = content
    if "student" in content or "teacher" in content:
        if not isinstance(content.get(which), Mapping):
            raise AbsentNetworkError(path, which, _networks(content))
        state = content[which]
    else:
        for wrapper in ("state_dict", "model", "module"):
            if isinstance(content.get(wrapper), Mapping):
                state = content[wrapper]
                break
    if not state or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        keys = ", ".join(sorted(map(str, content))[:8]) or "nothing"
        raise WeightsError(
            f"{path} has no known layout; it holds {keys}.",
            "Known are student/teacher checkpoints of iBOT and DINO, and backbones under state_dict.",
        )
    tensors, unused = translate(state)
    return OfficialState(tensors, unused, plain_arguments(arguments))


def _networks(content: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in ("student", "teacher") if isinstance(content.get(name), Mapping))


def _refuse_strangers(state: OfficialState, path: Path) -> None:
    if "backbone.patch_embed.proj.weight" in state.tensors:
        return
    kind = stranger(name.removeprefix("backbone.") for name in (*state.tensors, *state.unused))
    if kind is not None:
        raise WeightsError(
            f"{path} holds weights of {kind}, not of a vision transformer: patch_embed.proj.weight is missing.",
            "Supported are ViT and Swin backbones; convolutional networks and text models are not.",
        )


def translate(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Names of the authors' modules to ours; the names that are not needed are returned beside them.

    A second prototype layer that equals the first is the shared layer saved twice, and is dropped.
    """
    swin_shift = any(re.search(r"(^|\.)layers\.0\.downsample\.", name) for name in state)
    tensors: dict[str, Tensor] = {}
    unused = []
    for name, tensor in state.items():
        ours = _our_name(name, swin_shift)
        if _UNUSED.fullmatch(ours):
            unused.append(name)
        else:
            tensors[ours] = tensor
    second = [name for name in tensors if name.startswith("head.last_layer2.")]
    if second and all(_equal(tensors[name], tensors.get(name.replace("layer2", "layer"))) for name in second):
        for name in second:
            del tensors[name]
            unused.append(name)
    return tensors, unused


def _exported_shape(state: OfficialState, text: str) -> BackboneShape:
    """What `ibot export` says of sizes that no tensor shows: heads, and the images of a Swin."""
    shape = parse(text).shape
    if shape is None:
        raise WeightsError("The file does not say which network it holds.", "Export it again with `ibot export`.")
    # Layer scale was folded, because the authors' networks have none.
    return replace(shape, mask_token="backbone.masked_embed" in state.tensors, layer_scale=0.0)


def _exported(found: Found, text: str) -> Found:
    """With what `ibot export` says; of the networks it describes the teacher, but the file may hold both."""
    described = with_description(found, text)
    if not found.origin.networks:
        return described
    origin = replace(described.origin, networks=found.origin.networks, which=found.origin.which)
    return replace(described, origin=origin)


def _method(content: Mapping[str, Any], state: OfficialState) -> str | None:
    """What the state of the loss is called tells the two apart; else what only iBOT has."""
    for name, method in (("ibot_loss", "iBOT"), ("dino_loss", "DINO")):
        if name in content:
            return method
    ours = {"backbone.masked_embed", "head.last_layer2.weight_v"}
    names = {_our_name(str(name), False) for name in (*state.tensors, *state.unused)}
    return "iBOT" if ours & names else None


def _mask_token(content: Mapping[str, Any], state: OfficialState) -> Tensor | None:
    """The student's, `[1, D]`, also where the teacher was asked for."""
    student = content.get("student")
    tensors = (
        state.tensors if not isinstance(student, Mapping) else {_our_name(k, False): v for k, v in student.items()}
    )
    token = tensors.get("backbone.masked_embed")
    return token.detach().float().reshape(1, -1).clone() if isinstance(token, Tensor) else None


def _our_name(name: str, swin_shift: bool) -> str:
    name = name.removeprefix("module.")
    name = name.replace("parametrizations.weight.original0", "weight_g")
    name = name.replace("parametrizations.weight.original1", "weight_v")
    if re.match(r"head\.(mlp|last_layer2?)\.", name):
        return re.sub(r"^head\.mlp\.(weight|bias)$", r"head.mlp.0.\1", name)
    if not name.startswith("backbone."):
        name = f"backbone.{name}"
    if swin_shift:  # the authors reduce at the end of a stage, timm at the start of the next
        name = re.sub(r"layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", name)
    return name


def _equal(first: Tensor, second: Tensor | None) -> bool:
    return second is not None and first.shape == second.shape and torch.equal(first, second)
