"""Models that timm saved: a folder with config.json, or a safetensors file that names its model.

The network is ours where both compute the same tokens, so that it can be trained and exported; else timm's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from ibot_cli.data.transform import IMAGENET
from ibot_cli.errors import WeightsError
from ibot_cli.weights.description import KEY, as_text
from ibot_cli.weights.files import metadata_of, tensors_in
from ibot_cli.weights.fill import Part, fit, unfilled
from ibot_cli.weights.layouts.exported import with_classifier, with_description
from ibot_cli.weights.layouts.folder import CONFIG, read_json, read_tensors
from ibot_cli.weights.layouts.found import Found, Preparation, TimmNetwork
from ibot_cli.weights.layouts.timm_bare import bare_model, is_bare
from ibot_cli.weights.loaded import Which
from ibot_cli.weights.origin import Origin
from ibot_cli.weights.timm_models import TimmBackbone
from ibot_cli.weights.timm_parts import our_network

METADATA = "timm"  # of a file: {"name": ..., "kwargs": {...}}
# What `timm.create_model` would do besides building.
_FORBIDDEN = {"pretrained", "checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay", "features_only"}


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """A model as it was saved.

    Attributes:
        path: Of the folder or file.
        name: Of timm.
        kwargs: With which it was built.
        settings: Its `pretrained_cfg`.
        content: All that is said about it, for `Origin.arguments`.
        tensors: In timm's names, classifier included.
    """

    path: Path
    name: str
    kwargs: Mapping[str, Any]
    settings: Mapping[str, Any]
    content: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def matches_folder(folder: Path) -> bool:
    """Whether a folder has a config.json; asked after those of other layouts."""
    return (folder / CONFIG).is_file()


def read_folder(folder: Path, which: Which, heads: int | None) -> Found:
    """The network of such a folder; it holds one, and says its heads itself.

    Raises:
        WeightsError: It names no model of timm, or its files are incomplete.
    """
    content = read_json(folder / CONFIG)
    if "architecture" not in content:
        raise WeightsError(
            f"{folder / CONFIG} names no model: neither model_type (Hugging Face) nor architecture (timm).",
            "Use the config.json that the model was saved with.",
        )
    settings = content.get("pretrained_cfg", content)
    kwargs = dict(content.get("model_args") or {})
    if "num_classes" in content:
        kwargs["num_classes"] = content["num_classes"]
    tensors = read_tensors(folder)
    found = _read(
        _Saved(
            path=folder, name=str(content["architecture"]), kwargs=kwargs, settings=settings, content=content,
            tensors=tensors,
        )
    )  # fmt: skip
    if KEY not in content:
        return found
    text = as_text(content[KEY])
    return with_classifier(with_description(found, text), tensors, text, content.get("label_names"))


def matches(content: Mapping[str, Any]) -> bool:
    """Whether a loaded file names the model of timm that it fills, or has names that only timm's ViT and Swin have."""
    return METADATA in metadata_of(content) or is_bare(tensors_in(content))


def read(content: Mapping[str, Any], path: Path, which: Which, heads: int | None) -> Found:
    """The network of such a file.

    Raises:
        WeightsError: What it says cannot be read, or names no model of timm.
    """
    texts, tensors = metadata_of(content), tensors_in(content)
    if METADATA not in texts:
        name, kwargs = bare_model(tensors, heads)
        return _read(_Saved(path=path, name=name, kwargs=kwargs, settings=_guess(kwargs), content={}, tensors=tensors))
    try:
        said = json.loads(texts[METADATA])
        name, kwargs = str(said["name"]), dict(said.get("kwargs") or {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} does not say which model of timm it is ({error}).", "Export it again with `ibot export`."
        ) from error
    found = _read(_Saved(path=path, name=name, kwargs=kwargs, settings={}, content=said, tensors=tensors))
    return found if KEY not in texts else with_classifier(with_description(found, texts[KEY]), tensors, texts[KEY])


def _guess(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    channels = int(kwargs["in_chans"])
    mean, std = IMAGENET.get(channels, ((0.5,) * channels,) * 2)
    return {"mean": mean, "std": std, "crop_pct": 0.875, "interpolation": "bicubic"}


def _read(saved: _Saved) -> Found:
    network = _network(saved)
    filled = _build(saved, network)
    model: Any = filled.model
    tensors, unused = _without_classifier(saved, model)
    if not fit([Part("", model, tensors)]).complete:
        tensors = _as_timm_reads(saved, model) or tensors
    settings = {**model.pretrained_cfg, **saved.settings}
    image_size = _side(network.kwargs.get("img_size") or settings["input_size"][-1])
    found = Found(
        network=network,
        tensors={f"backbone.{name}": value for name, value in tensors.items()},
        unused=unused,
        preparation=Preparation(
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
            image_size=image_size,
            crop_ratio=float(settings.get("crop_pct") or 0.875),
            interpolation=str(settings.get("interpolation") or "bicubic"),
        ),
        origin=Origin(layout=f"timm model ({saved.name})", path=str(saved.path), arguments=saved.content),
    )
    if not fit([Part("", model, tensors)]).complete:
        return found  # filling will say what is wrong
    model.load_state_dict(tensors)
    ours = our_network(filled.eval(), image_size)
    if ours is None:
        return found
    return replace(found, network=ours[0], tensors={f"backbone.{name}": value for name, value in ours[1].items()})


def _network(saved: _Saved) -> TimmNetwork:
    """What builds it without its classifier.

    Raises:
        WeightsError: There is no such model, or its arguments do more than build it.
    """
    if not timm.is_model(saved.name.partition(".")[0]):
        raise WeightsError(
            f"{saved.path} is a model {saved.name!r}, which timm {timm.__version__} does not have.",
            "A newer version of timm may have it.",
        )
    more = sorted(_FORBIDDEN & saved.kwargs.keys())
    if more:
        raise WeightsError(
            f"{saved.path} asks for arguments of timm that do more than build a model: {', '.join(more)}.",
            f"Take them out of model_args in its {CONFIG}.",
        )
    blocks = saved.kwargs.get("depth", saved.kwargs.get("depths", 0))
    counts = blocks if isinstance(blocks, list) else [blocks]
    if any(isinstance(count, int) and count > len(saved.tensors) for count in counts):
        raise WeightsError(
            f"{saved.path} asks for {blocks} blocks and holds {len(saved.tensors)} tensors.", f"Repair its {CONFIG}."
        )
    return TimmNetwork(name=saved.name.partition(".")[0], kwargs={**saved.kwargs, "num_classes": 0})


def _build(saved: _Saved, network: TimmNetwork) -> TimmBackbone:
    try:
        return unfilled(network.build)
    except Exception as error:  # whatever timm raises for arguments that do not fit its model
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise WeightsError(
            f"timm cannot build {saved.name} as {saved.path} asks for it: {reason}.", "Look at its model_args."
        ) from error


def _without_classifier(saved: _Saved, model: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the network, and the names of its classifier's."""
    classifier = saved.settings.get("classifier") or model.pretrained_cfg.get("classifier") or ()
    layers = [classifier] if isinstance(classifier, str) else list(classifier)
    kept = model.state_dict().keys()
    above = [
        name for name in saved.tensors if name not in kept and any(name.startswith(f"{layer}.") for layer in layers)
    ]
    return {name: value for name, value in saved.tensors.items() if name not in above}, tuple(above)


def _as_timm_reads(saved: _Saved, model: Any) -> dict[str, Tensor] | None:
    """The tensors after timm's own translation of earlier names; None where it does not accept them."""
    overlay = {"state_dict": dict(saved.tensors), "custom_load": False, "source": ""}
    classes = saved.kwargs.get("num_classes", model.pretrained_cfg.get("num_classes"))
    try:
        with torch.random.fork_rng(devices=[]):
            translated = timm.create_model(
                saved.name.partition(".")[0],
                pretrained=True,
                pretrained_cfg_overlay={**overlay, "num_classes": classes},
                **{**saved.kwargs, "num_classes": classes},
            ).state_dict()
    except Exception:  # filling says what does not fit, in the file's names
        return None
    return {name: translated[name] for name in model.state_dict()}


def _side(size: object) -> int:
    sides = list(size) if isinstance(size, list | tuple) else [size]
    if len(set(sides)) != 1:
        raise WeightsError(f"The size {size} is no square.", "Networks of ibot take square images.")
    return int(str(sides[0]))
