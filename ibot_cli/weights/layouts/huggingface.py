"""Folders of Hugging Face's transformers library: ViT, ViT-MAE, ViT-MSN, DINOv2, Swin, BEiT; read without that library.

Each `model_type` is checked for everything that our networks cannot be, so that nothing else is computed in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ibot_cli.core import swin
from ibot_cli.errors import WeightsError
from ibot_cli.weights.description import KEY, as_text, parse
from ibot_cli.weights.files import tensors_in
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.layer_scale import without_layer_scale
from ibot_cli.weights.layouts import beit, dinov2
from ibot_cli.weights.layouts.epsilon_note import epsilon_note
from ibot_cli.weights.layouts.exported import with_classifier, with_description
from ibot_cli.weights.layouts.folder import CONFIG, read_json, read_tensors
from ibot_cli.weights.layouts.found import Found
from ibot_cli.weights.layouts.huggingface_checks import architecture, check, refused, side_of
from ibot_cli.weights.layouts.huggingface_names import PATCHES, timm_name, translate
from ibot_cli.weights.layouts.preprocessor import FILE, read_preparation
from ibot_cli.weights.loaded import Which
from ibot_cli.weights.norm_epsilon import LIBRARIES, OURS, swin_at_epsilon
from ibot_cli.weights.origin import Origin
from ibot_cli.weights.shapes import BackboneShape, backbone_shape

_METHODS = {
    "vit": None,
    "vit_mae": "MAE",
    "vit_msn": "MSN",
    "dinov2": "DINOv2",
    "dinov2_with_registers": "DINOv2",
    "swin": None,
    "beit": "BEiT",
}


_WITH_LABELS = "ForImageClassification"
_EPSILON = 1e-12  # of those models whose configuration does not say it


class _Opened(NamedTuple):
    """A folder that was read; tensors in timm's names."""

    path: Path
    config: Mapping[str, Any]
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]
    mask_token: Tensor | None


def matches(folder: Path) -> bool:
    """Whether a folder has a config.json with a `model_type`."""
    return "model_type" in read_json(folder / CONFIG)


def read(folder: Path, which: Which, heads: int | None) -> Found:
    """The backbone of such a folder; it holds one network, and says its heads itself.

    Raises:
        WeightsError: The model is of a kind or has layers that ours do not have, or its files are incomplete.
    """
    config = read_json(folder / CONFIG)
    check(folder, config, _METHODS)
    return _read(folder, config, read_tensors(folder), which)


def matches_file(content: Mapping[str, Any]) -> bool:
    """Whether a loaded file has the names of that library."""
    return any(timm_name(name) == PATCHES and name != PATCHES for name in tensors_in(content))


def read_file(content: Mapping[str, Any], path: Path, which: Which, heads: int | None) -> Found:
    """As `read`, for a folder's weights file that was named itself.

    Raises:
        WeightsError: As `read`, or there is no config.json beside it.
    """
    config = read_json(path.parent / CONFIG)
    if "model_type" not in config:
        raise WeightsError(
            f"{path} is of Hugging Face's transformers library, and no {CONFIG} beside it says which network it is.",
            f"Put the model's {CONFIG} and {FILE} into the same folder.",
        )
    check(path.parent, config, _METHODS)
    return _read(path, config, tensors_in(content), which)


def _read(path: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], which: Which) -> Found:
    tensors, unused, mask_token = translate(state, missing_bias=config.get("qkv_bias") is False)
    opened = _Opened(path, config, tensors, tuple(unused), mask_token)
    kind = str(config["model_type"])
    if kind.startswith("dinov2"):
        found = _dinov2(opened, which)
    elif kind == "swin":
        found = _swin(opened)
    elif kind == "beit":
        found = _beit(opened, which)
    else:
        found = _vit(opened)
    found = _with_preparation(found, opened)
    if KEY not in config:
        return found
    labels = config.get("id2label")
    return with_classifier(found, state, as_text(config[KEY]), None if labels is None else list(labels.values()))


def _vit(opened: _Opened) -> Found:
    tensors = {f"backbone.{name}": value for name, value in opened.tensors.items()}
    shape = backbone_shape(tensors, {}, opened.config.get("num_attention_heads"))
    return Found(
        network=shape, tensors=tensors, unused=opened.unused, mask_token=opened.mask_token, origin=_origin(opened)
    )


def _swin(opened: _Opened) -> Found:
    config = opened.config
    # The norms of the patches and of the reductions have 1e-5, whatever the configuration says.
    tensors = {f"backbone.{name}": value for name, value in swin_at_epsilon(opened.tensors, LIBRARIES, OURS).items()}
    shape = backbone_shape(tensors, {}, None)
    shape = replace(shape, image_size=side_of(config.get("image_size", shape.image_size)))
    expected = swin.SIZES[shape.arch].heads
    if tuple(config.get("num_heads", expected)) != expected:
        raise refused(opened.path, f"num_heads is {config['num_heads']}, here a {shape.arch} has {list(expected)}")
    token = opened.mask_token
    return Found(
        network=shape,
        tensors=tensors,
        unused=opened.unused,
        mask_token=None if token is None else token * (OURS / LIBRARIES) ** 0.5,  # it enters the stream like patches
        origin=_origin(opened),
    )


def _dinov2(opened: _Opened, which: Which) -> Found:
    """The names that the translation gives are those of DINOv2's own files.

    An export of a network without layer scale has one of 1 there, because the class has no other.
    """
    token = {} if opened.mask_token is None else {"mask_token": opened.mask_token}
    heads = opened.config.get("num_attention_heads")
    tensors = opened.tensors if _is_scaled(opened.config) else without_layer_scale(opened.tensors)
    found = dinov2.read({**tensors, **token}, opened.path, which, heads)
    return replace(found, unused=(*opened.unused, *found.unused), origin=_origin(opened), description=None, notes=())


def _is_scaled(config: Mapping[str, Any]) -> bool:
    """Whether a network has layer scale, as far as its own export says otherwise."""
    shape = parse(as_text(config[KEY])).shape if KEY in config else None
    return shape is None or shape.layer_scale > 0


def _beit(opened: _Opened, which: Which) -> Found:
    """The names that the translation gives are those of BEiT's own files."""
    token = {} if opened.mask_token is None else {"mask_token": opened.mask_token}
    heads = opened.config.get("num_attention_heads")
    found = beit.read({**opened.tensors, **token}, opened.path, which, heads)
    finetuned = architecture(opened.config).endswith(_WITH_LABELS)
    return replace(
        found,
        unused=(*opened.unused, *found.unused),
        origin=_origin(opened),
        description=None,
        notes=() if finetuned else found.notes,
    )


def _origin(opened: _Opened) -> Origin:
    kind, made = str(opened.config["model_type"]), architecture(opened.config)
    supervised = _METHODS[kind] is None and made.endswith(_WITH_LABELS)
    return Origin(
        layout=f"Hugging Face folder ({made})",
        path=str(opened.path),
        method="supervised" if supervised else _METHODS[kind],
        arguments=opened.config,
    )


def _with_preparation(found: Found, opened: _Opened) -> Found:
    network, config = found.network, opened.config
    assert not isinstance(network, ClassifierShape)
    native = network.image_size if isinstance(network, BackboneShape) else int(network.kwargs["img_size"])
    epsilon = None if config["model_type"] == "swin" else float(config.get("layer_norm_eps", _EPSILON))
    notes = epsilon_note(network, found.tensors, epsilon)
    folder = opened.path if opened.path.is_dir() else opened.path.parent
    preparation, told = read_preparation(folder, int(config.get("num_channels", 3)), native)
    if preparation is not None and preparation.image_size != native:
        told = (*told, f"Images have {preparation.image_size} px, as {FILE} says; the positions are for {native} px.")
    found = replace(found, preparation=preparation or found.preparation, notes=(*found.notes, *notes, *told))
    described = config.get(KEY)
    return found if described is None else with_description(found, as_text(described))
