"""What a Hugging Face configuration may say for the network to be one of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ibot_cli.core import swin
from ibot_cli.errors import WeightsError

_MLP_RATIO = 4


def architecture(config: Mapping[str, Any]) -> str:
    """The class that saved the model, or its `model_type`."""
    classes = config.get("architectures")
    return str(classes[0]) if isinstance(classes, list) and classes else str(config.get("model_type"))


def side_of(size: object) -> int:
    """Of a square given as one number or two.

    Raises:
        WeightsError: It is no square.
    """
    sides = list(size) if isinstance(size, list | tuple) else [size]
    if len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise WeightsError(f"The size {size} is no square.", "Networks of ibot take square images and patches.")
    return sides[0]


def refused(folder: Path, reason: str) -> WeightsError:
    """The error for a network that ours cannot be."""
    return WeightsError(
        f"{folder} holds a network that those of ibot cannot be: {reason}.",
        "ibot has pre-norm ViT and Swin with exact GELU and MLPs of 4 times the width.",
    )


def check(folder: Path, config: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse what our networks cannot compute.

    Args:
        folder: For the message.
        config: Of the model.
        known: The kinds of model that are read, by `model_type`.

    Raises:
        WeightsError: Its kind, activation, MLP, attention, patches or positions are others.
    """
    kind, names = config["model_type"], list(known)
    if kind not in names:
        raise WeightsError(
            f"{folder} holds a {architecture(config)} (model_type {kind}), which ibot cannot read.",
            f"Known are the model types {', '.join(names)}.",
        )
    problems = [*_of_all(config), *(_of_swin(config) if kind == "swin" else ())]
    if problems:
        raise refused(folder, "; ".join(problems))


def _of_all(config: Mapping[str, Any]) -> list[str]:
    problems = []
    width = config.get("hidden_size")
    if config.get("hidden_act", "gelu") != "gelu":
        problems.append(f"hidden_act is {config['hidden_act']}")
    hidden = config.get("intermediate_size")
    if hidden is not None and width is not None and hidden != _MLP_RATIO * width:
        problems.append(f"intermediate_size is {hidden}, not {_MLP_RATIO} times hidden_size {width}")
    if config.get("mlp_ratio", _MLP_RATIO) != _MLP_RATIO and not config.get("use_swiglu_ffn"):
        problems.append(f"mlp_ratio is {config['mlp_ratio']}")
    heads, head_size = config.get("num_attention_heads"), config.get("head_dim")
    if heads is not None and width is not None and head_size not in (None, width // heads):
        problems.append(f"head_dim is {head_size}, not {width} / {heads}")
    image, patch = side_of(config.get("image_size", 224)), side_of(config.get("patch_size", 16))
    if image % patch:
        problems.append(f"image_size {image} is no multiple of patch_size {patch}")
    return problems


def _of_swin(config: Mapping[str, Any]) -> list[str]:
    problems = []
    if side_of(config.get("patch_size", swin.PATCH_SIZE)) != swin.PATCH_SIZE:
        problems.append(f"patch_size is {config['patch_size']}, a Swin here has {swin.PATCH_SIZE}")
    if config.get("use_absolute_embeddings"):
        problems.append("it has absolute positions")
    epsilon = config.get("layer_norm_eps", 1e-5)
    if epsilon != 1e-5:
        problems.append(f"layer_norm_eps is {epsilon} in the blocks and 1e-5 between the stages")
    return problems
