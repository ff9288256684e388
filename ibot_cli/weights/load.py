"""`load_weights`: a network from a run, a checkpoint of ours, an official checkpoint, or timm. Always strict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ibot_cli.config.load import from_mapping
from ibot_cli.config.schema import Config, ViewsConfig
from ibot_cli.core.classifier import Classifier
from ibot_cli.core.heads import Head
from ibot_cli.data.transform import normalisation
from ibot_cli.errors import WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.runs.directory import is_run
from ibot_cli.weights import finetuned
from ibot_cli.weights.files import read_weights_file
from ibot_cli.weights.official import select_network
from ibot_cli.weights.shapes import BackboneShape, backbone_shape, build_head
from ibot_cli.weights.teacher_scale import TeacherScale, configured_scale, official_scale
from ibot_cli.weights.timm_models import load_timm

Which = Literal["student", "teacher"]
_EVAL_CROP_RATIO = 0.875


@dataclass(frozen=True, kw_only=True)
class LoadedBackbone:
    """A backbone with its weights and how its images are prepared.

    Attributes:
        backbone: In evaluation mode, on the CPU; images `[B, C, H, W]` to tokens `[B, 1 + N, D]`, class token first.
        head: The projection head, or None when the file has none.
        channels: C.
        image_size: Side in pixels.
        mean: Per channel, of images in 0..1.
        std: Per channel.
        crop_ratio: The image is resized to `image_size / crop_ratio`, then centre-cropped.
        description: One line for people.
        weights_hash: sha256 over the backbone's names, shapes and bytes; over the whole classifier where there is one.
        architecture: Says exactly what `rebuild` builds; equal texts mean equal networks but for their weights.
        rebuild: Makes the same network with fresh weights from the global generator.
        shape: What builds the backbone without its mask token; None for a model of timm.
        classifier: Images to class scores `[B, C]`, in evaluation mode, on the CPU, sharing the backbone's parameters;
            None where the weights were not fine-tuned.
        classes: Names of the classes, in the order of the scores; None without a classifier.
        scale: The teacher's centres and temperatures; None where there is no head.
        views: How its training saw images; None but for checkpoints of `ibot pretrain`.
        unused: Names in the file that are known and not needed.
        notes: What the user should be told.
    """

    backbone: nn.Module
    head: Head | None
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float
    description: str
    weights_hash: str
    architecture: str
    rebuild: Callable[[], nn.Module]
    shape: BackboneShape | None = None
    classifier: Classifier | None = None
    classes: tuple[str, ...] | None = None
    scale: TeacherScale | None = None
    views: ViewsConfig | None = None
    unused: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def preparation(self) -> tuple[int, float, int, tuple[float, ...], tuple[float, ...]]:
        """The arguments of `ibot_cli.data.transform.eval_transform`; also what a cached figure depends on."""
        return self.image_size, self.crop_ratio, self.channels, self.mean, self.std


def load_weights(weights: str, *, which: Which = "teacher", heads: int | None = None) -> LoadedBackbone:
    """Load a backbone, and its head or classifier where there is one; every tensor of the file is accounted for.

    Args:
        weights: A run directory of `ibot pretrain` or `ibot finetune` (its newest checkpoint), a checkpoint file of
            ours, an official iBOT or DINO `.pth` (full, or an extracted backbone), or `timm:NAME`.
        which: The network of a checkpoint that holds two; the teacher is what iBOT evaluates.
        heads: Attention heads of a foreign ViT of unusual width; no tensor shows them.

    Raises:
        WeightsError: The name, the file or the tensors do not fit; the message lists what is missing and unexpected.
        RunError: A run's checkpoints cannot be read.
    """
    if weights.startswith("timm:"):
        return _from_timm(weights.removeprefix("timm:"))
    path = Path(weights)
    if path.is_dir():
        return _from_run(path, which)
    content = read_weights_file(path)
    if isinstance(content, Mapping) and content.get("kind") == checkpoint.KIND:
        return from_checkpoint(checkpoint.unpack(content, path), which)
    return _from_official(content, which, path, heads)


def from_checkpoint(found: checkpoint.Checkpoint, which: Which = "teacher") -> LoadedBackbone:
    """As `load_weights`, for a checkpoint of ours that is already in memory."""
    state = found.state
    if finetuned.is_finetuned(state):
        return _from_finetuned(found)
    if not isinstance(state.get("config"), Mapping) or not isinstance(state.get(which), Mapping):
        raise WeightsError(
            f"{found.path} has no configuration or no {which}.",
            "Use a checkpoint of `ibot pretrain` or `ibot finetune`.",
        )
    config = from_mapping(state["config"], str(found.path))
    tensors: dict[str, Tensor] = state[which]
    shape = _configured_shape(config, mask_token="backbone.masked_embed" in tensors)
    mean, std = normalisation(config.data.channels, config.data.mean, config.data.std)
    loaded = _build(shape, tensors, config.head.activation, str(found.path))
    return replace(
        loaded,
        mean=mean,
        std=std,
        crop_ratio=config.data.eval_crop_ratio,
        description=f"{which} of {found.path}, step {found.step}",
        scale=configured_scale(config, state.get("centers")),
        views=config.views,
        notes=[found.warning] if found.warning else [],
    )


def weights_hash(backbone: nn.Module) -> str:
    """sha256 hex over names, types, shapes and bytes of a network's state, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _from_run(path: Path, which: Which) -> LoadedBackbone:
    if not is_run(path):
        raise WeightsError(
            f"{path} is a directory but not a run: it has no config.yaml.",
            "Name a directory that `ibot pretrain` or `ibot finetune` made, or a checkpoint file.",
        )
    found = checkpoint.latest(path / "checkpoints")
    if found is None:
        raise WeightsError(f"The run {path} has no checkpoint yet.", "Continue it with --resume.")
    return from_checkpoint(found, which)


def _from_finetuned(found: checkpoint.Checkpoint) -> LoadedBackbone:
    """The classifier of `ibot finetune`, and its backbone with the feature that the classifier sees as token 0."""
    parts = finetuned.unpack(found)
    with torch.random.fork_rng(devices=[]):  # building draws weights that are overwritten at once
        classifier = parts.shape.build()
    _fill([("", classifier, parts.tensors)], str(found.path))
    classifier.eval()
    images, shape = parts.images, parts.shape
    return LoadedBackbone(
        backbone=classifier.token_backbone(),
        head=None,
        channels=images.channels,
        image_size=images.image_size,
        mean=images.mean,
        std=images.std,
        crop_ratio=images.crop_ratio,
        description=f"fine-tuned network of {found.path}, step {found.step}",
        weights_hash=weights_hash(classifier),
        architecture=f"{shape.backbone!r}, {shape.pooling} pooling",
        rebuild=lambda: shape.build().token_backbone(),
        shape=shape.backbone,
        classifier=classifier,
        classes=parts.classes,
        notes=[found.warning] if found.warning else [],
    )


def _from_official(content: Any, which: Which, path: Path, heads: int | None) -> LoadedBackbone:
    state = select_network(content, which, path)
    shape = backbone_shape(state.tensors, state.arguments, heads)
    activation = str(state.arguments.get("act_in_head", "gelu"))
    loaded = _build(shape, state.tensors, activation, str(path))
    several = "student" in content or "teacher" in content
    return replace(
        loaded,
        description=f"{which} of {path}" if several else str(path),
        scale=None if loaded.head is None else official_scale(content, state.arguments),
        unused=(*state.unused, *loaded.unused),
    )


def _from_timm(name: str) -> LoadedBackbone:
    model = load_timm(name)
    return LoadedBackbone(
        backbone=model.backbone.eval(),
        head=None,
        channels=model.channels,
        image_size=model.image_size,
        mean=model.mean,
        std=model.std,
        crop_ratio=model.crop_ratio,
        description=f"timm:{name}",
        weights_hash=weights_hash(model.backbone),
        architecture=f"timm:{name}",
        rebuild=lambda: load_timm(name, pretrained=False).backbone,
    )


def _build(shape: BackboneShape, tensors: Mapping[str, Tensor], activation: str, origin: str) -> LoadedBackbone:
    """Networks of the right shapes, filled strictly."""
    with torch.random.fork_rng(devices=[]):  # building draws weights that are overwritten at once
        backbone, head = shape.build(), build_head(tensors, activation)
    inside = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    above = {name: tensor for name, tensor in tensors.items() if name.startswith("head.")}
    parts: list[tuple[str, nn.Module, Mapping[str, Tensor]]] = [("backbone.", backbone, inside)]
    if head is not None:
        parts.append(("head.", head, above))
    _fill(parts, origin)
    mean, std = normalisation(shape.channels, None, None)
    bare = replace(shape, mask_token=False)
    return LoadedBackbone(
        backbone=backbone.eval(),
        head=None if head is None else head.eval(),
        channels=shape.channels,
        image_size=shape.image_size,
        mean=mean,
        std=std,
        crop_ratio=_EVAL_CROP_RATIO,
        description=origin,
        weights_hash=weights_hash(backbone),
        architecture=repr(bare),
        rebuild=bare.build,
        shape=bare,
        unused=() if head is not None else tuple(above),
    )


def _fill(parts: list[tuple[str, nn.Module, Mapping[str, Tensor]]], origin: str) -> None:
    problems = []
    for prefix, module, tensors in parts:
        wanted = {prefix + name: value for name, value in module.state_dict().items()}
        missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
        shapes = [
            f"{name} is {list(tensors[name].shape)}, not {list(value.shape)}"
            for name, value in wanted.items()
            if name in tensors and tensors[name].shape != value.shape
        ]
        for label, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)):
            if names:
                more = f" and {len(names) - 8} more" if len(names) > 8 else ""
                problems.append(f"{label}: {', '.join(names[:8])}{more}")
        if not problems:
            module.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    if problems:
        raise WeightsError(
            f"The tensors of {origin} do not fit the network. {'; '.join(problems)}.",
            "Nothing was loaded. Supported are ViT and Swin backbones of ibot, iBOT and DINO.",
        )


def _configured_shape(config: Config, mask_token: bool) -> BackboneShape:
    model = config.model
    return BackboneShape(
        arch=model.arch,
        image_size=config.views.global_size,
        channels=config.data.channels,
        patch_size=model.patch_size,
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        window_size=model.window_size,
        mask_token=mask_token,
    )
