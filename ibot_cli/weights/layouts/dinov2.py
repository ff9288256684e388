"""Backbones and training checkpoints of DINOv2, translated to the names of `ibot_cli.core`.

A backbone of `torch.hub` is a bare state dict. `teacher_checkpoint.pth` of a training holds `teacher`, a state dict of
`backbone.*`, `dino_head.*` and, where patches have a head of their own, `ibot_head.*`; the state of a whole training is
under `model`, with `student.` or `teacher.` before each of these names. A block's name may carry the number of a chunk.

At another image size than the weights' own, positions are interpolated as `ibot_cli.core.vit` does. The authors' code
does the same without registers; with registers it has no offset and filters against aliasing: tokens differ by about
1 % of their largest value. The giants run in timm, which always filters.

Source:
    The authors' code, github.com/facebookresearch/dinov2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.layouts.found import Found, TimmNetwork
from ibot_cli.weights.layouts.official import translate
from ibot_cli.weights.loaded import Which
from ibot_cli.weights.origin import AbsentNetworkError, Origin
from ibot_cli.weights.shapes import BackboneShape, backbone_shape
from ibot_cli.weights.teacher_scale import TeacherScale

State = Mapping[str, Tensor]
_WRAPPERS = r"(?:(?<=\.)|^)(?:module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\."
_FOREIGN = r"decoder|lm_head\.|vit\.|embeddings\.|.*\.q_bias$"  # MAE, BEiT and Hugging Face have mask tokens too


def matches(content: Mapping[str, Any]) -> bool:
    """Whether a loaded file is of DINOv2, or of DINOv3, which `read` refuses."""
    states = [*_networks(content).values(), _single(content)]
    names = {_short(name) for state in states for name in state}
    if "rope_embed.periods" in names or any("_flat_param" in name for name in names):
        return True
    own = "pos_embed" in names and bool(names & {"mask_token", "register_tokens"})
    return own and not any(re.match(_FOREIGN, name) for name in names)


def read(content: Mapping[str, Any], path: Path, which: Which, heads: int | None) -> Found:
    """The network of a loaded file.

    Networks with SwiGLU, the giants, are built by timm.

    Raises:
        WeightsError: It holds no such network, a part of a sharded one, or DINOv3's.
    """
    networks = _networks(content)
    if networks and which not in networks:
        raise AbsentNetworkError(path, which, tuple(networks))
    parts = _sorted(networks[which] if networks else _single(content))
    _check_kind(parts, path)
    student = _sorted(networks["student"]).mask_token if "student" in networks else None
    network, tensors = _network(parts, heads)
    step = content.get("iteration")
    return Found(
        network=network,
        tensors=tensors | parts.head,
        unused=tuple(parts.unused),
        mask_token=_row(parts.mask_token if student is None else student),
        scale=_scale(_single(content)),
        description=f"{which} of {path}" if networks else None,
        notes=tuple(_notes(network, parts)),
        origin=Origin(
            layout="DINOv2 checkpoint" if networks else "DINOv2 backbone",
            path=str(path),
            method="DINOv2",
            networks=tuple(networks),
            which=which if networks else None,
            step=step if isinstance(step, int) else None,
        ),
    )


@dataclass(kw_only=True)
class _Parts:
    """The tensors of one network: those of the backbone in DINOv2's names, without prefixes and chunks."""

    backbone: dict[str, Tensor] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    mask_token: Tensor | None = None
    other_heads: bool = False
    unused: list[str] = field(default_factory=list)


def _networks(content: Mapping[str, Any]) -> dict[str, State]:
    """The networks that a file holds under a name."""
    single = _single(content)
    found: dict[str, State] = {}
    for network in ("student", "teacher"):
        held = content.get(network)
        if not isinstance(held, Mapping):
            held = {n.removeprefix(f"{network}."): v for n, v in single.items() if n.startswith(f"{network}.")}
        state = {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if state:
            found[network] = state
    return found


def _single(content: Mapping[str, Any]) -> State:
    """The tensors of a file without its wrapper."""
    wrapped = (content.get(wrapper) for wrapper in ("model", "state_dict", "module"))
    held = next((state for state in wrapped if isinstance(state, Mapping)), content)
    return {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _short(name: str) -> str:
    """A name without wrappers, `backbone.` and the number of a chunk."""
    name = re.sub(_WRAPPERS, "", name).removeprefix("backbone.")
    return re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)


def _sorted(state: State) -> _Parts:
    named = {_short(name): (name, value) for name, value in state.items()}
    parts = _Parts()
    heads: dict[str, Tensor] = {}
    for short, (_, value) in named.items():
        if short == "mask_token":
            parts.mask_token = value
        elif re.match(r"(dino|ibot)_head\.", short):
            heads[short] = value
        else:
            parts.backbone[short] = value
    parts.head = _head(heads)
    if heads and not parts.head:
        parts.other_heads = True
        parts.unused += [name for short, (name, _) in named.items() if short in heads]
    return parts


def _head(heads: State) -> dict[str, Tensor]:
    """`dino_head.*` and `ibot_head.*` in our names; nothing where their MLPs have other sizes than one another."""
    cls, patch = (
        {name.replace(start, "head.", 1): value for name, value in heads.items() if name.startswith(start)}
        for start in ("dino_head.", "ibot_head.")
    )
    (cls, _), (patch, _) = translate(cls), translate(patch)
    mlps = [{name: value.shape for name, value in one.items() if ".mlp." in name} for one in (cls, patch)]
    if patch and mlps[0] != mlps[1]:
        return {}
    return cls | {re.sub(r"^head\.(mlp|last_layer)\.", r"head.\g<1>2.", name): value for name, value in patch.items()}


def _check_kind(parts: _Parts, path: Path) -> None:
    if any("_flat_param" in name for name in parts.backbone):
        raise WeightsError(
            f"{path} is one process's share of a sharded training.",
            "Use eval/training_N/teacher_checkpoint.pth of that training.",
        )
    if "rope_embed.periods" in parts.backbone:
        raise WeightsError(
            f"{path} is a DINOv3 backbone, whose rotary positions the ViT of ibot does not have.",
            "timm has them, for example timm:vit_small_patch16_dinov3.lvd1689m.",
        )


def _network(parts: _Parts, heads: int | None) -> tuple[BackboneShape | TimmNetwork, dict[str, Tensor]]:
    tensors = {f"backbone.{name}": value for name, value in parts.backbone.items()}
    shape = backbone_shape(tensors, {}, heads)
    if "backbone.blocks.0.mlp.w12.weight" not in tensors:
        return shape, tensors
    return _gated(shape, tensors)


def _gated(shape: BackboneShape, tensors: State) -> tuple[TimmNetwork, dict[str, Tensor]]:
    """With SwiGLU in the blocks; timm has no position of class token and registers, so the former's is added."""
    width, hidden = shape.width or 1, tensors["backbone.blocks.0.mlp.w12.weight"].shape[0]
    scaled = any(name.endswith(".ls1.gamma") for name in tensors)
    kwargs = {
        "img_size": shape.image_size,
        "patch_size": shape.patch_size,
        "in_chans": shape.channels,
        "embed_dim": width,
        "depth": shape.depth,
        "num_heads": shape.heads,
        "mlp_ratio": hidden / width,
        "init_values": float(scaled),  # 1 as in the published models, 0 is without
        "reg_tokens": shape.registers,
        "no_embed_class": True,
        "dynamic_img_size": True,
        "num_classes": 0,
    }
    names = {"register_tokens": "reg_token"}
    renamed = {
        "backbone." + names.get(short := name.removeprefix("backbone."), _timm_mlp(short)): value
        for name, value in tensors.items()
    }
    positions = tensors["backbone.pos_embed"]
    renamed["backbone.cls_token"] = tensors["backbone.cls_token"] + positions[:, :1]
    renamed["backbone.pos_embed"] = positions[:, 1:]
    return TimmNetwork(name="vit_giant_patch14_reg4_dinov2", kwargs=kwargs), renamed


def _timm_mlp(name: str) -> str:
    return name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")


def _notes(network: BackboneShape | TimmNetwork, parts: _Parts) -> list[str]:
    size = network.image_size if isinstance(network, BackboneShape) else network.kwargs["img_size"]
    notes = [f"Images are {size} px wide and high, the size that the weights have positions for."]
    if parts.other_heads:
        sizes = "Class token and patches have projection heads of different sizes"
        notes.append(f"{sizes}, which ibot has not; none was loaded.")
    return notes


def _row(token: Tensor | None) -> Tensor | None:
    return None if token is None else token.detach().float().reshape(1, -1).clone()


def _scale(training: State) -> TeacherScale:
    """The centres of a training; those that were never moved, as with Sinkhorn, are None."""
    centers = (training.get(name) for name in ("dino_loss.center", "ibot_patch_loss.center"))
    cls, patch = (None if c is None or not c.any() else c.detach().float().flatten().clone() for c in centers)
    return TeacherScale(cls_center=cls, patch_center=patch)
