"""MAE: pre-trained with its decoder, and classifiers fine-tuned on the mean of the patches.

A pre-trained encoder without its decoder is a plain ViT under `model`, which `official` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.files import metadata_of, tensors_in
from ibot_cli.weights.finetuned import ClassifierShape
from ibot_cli.weights.layouts.found import Found
from ibot_cli.weights.loaded import Which
from ibot_cli.weights.origin import Origin, plain_arguments
from ibot_cli.weights.shapes import backbone_shape

_DECODER = re.compile(r"decoder_\w+(\..+)?|mask_token")
_CLASSIFIER = {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
_OTHER_BLOCKS = re.compile(
    r"blocks\.0\.(gamma_1|ls1\..*|attn\.(q_bias|relative_position_.*|q_norm\..*))|rel_pos_bias\..*"
)


def matches(content: Mapping[str, Any]) -> bool:
    """Whether a loaded file holds MAE's decoder, or a plain ViT with the classifier of MAE's fine-tuning."""
    if metadata_of(content).keys() - {"format"}:
        return False  # it says itself what it is
    names = tensors_in(content).keys()
    return "decoder_pred.weight" in names or _is_classifier(names)


def read(content: Mapping[str, Any], path: Path, which: Which, heads: int | None) -> Found:
    """The encoder, or the whole classifier.

    The decoder and its mask token are known and unused: they work on the decoder's width.

    Raises:
        WeightsError: It is no plain ViT.

    Source:
        MAE (arXiv 2111.06377); names as in the authors' code.
    """
    tensors = {name.removeprefix("module."): value for name, value in tensors_in(content).items()}
    arguments = plain_arguments(content.get("args"))
    if _is_classifier(tensors.keys()):
        return _classifier(content, path, tensors, arguments, heads)
    kept = {f"backbone.{name}": value for name, value in tensors.items() if not _DECODER.fullmatch(name)}
    return Found(
        network=backbone_shape(kept, arguments, heads),
        tensors=kept,
        unused=tuple(name for name in tensors if _DECODER.fullmatch(name)),
        origin=_origin("full MAE checkpoint", "MAE", content, path, arguments),
    )


def _is_classifier(names: Any) -> bool:
    plain = {str(name).removeprefix("module.") for name in names}
    return (
        plain >= _CLASSIFIER | {"cls_token", "pos_embed"}
        and not plain & {"norm.weight", "norm.bias"}
        and not any(_OTHER_BLOCKS.fullmatch(name) for name in plain)
    )


def _classifier(
    content: Mapping[str, Any],
    path: Path,
    tensors: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    heads: int | None,
) -> Found:
    """As our own classifier of mean pooling, which computes the same.

    Raises:
        WeightsError: The head is not one linear layer, or the backbone no plain ViT.
    """
    named = {name if name in _CLASSIFIER else f"backbone.{name}": value for name, value in tensors.items()}
    weight = named["head.weight"]
    if weight.ndim != 2:
        raise WeightsError(
            f"The classifier of {path} is no linear layer: head.weight is {list(weight.shape)}.",
            "Supported are classifiers of MAE's and iBOT's fine-tuning.",
        )
    shape = backbone_shape(named, arguments, heads)
    return Found(
        network=ClassifierShape(backbone=shape, num_classes=len(weight), pooling="mean"),
        tensors=named,
        classes=tuple(str(number) for number in range(len(weight))),
        notes=("The file names no classes; they are called by their numbers.",),
        origin=_origin("fine-tuned ViT (mean of the patches)", "supervised", content, path, arguments),
    )


def _origin(layout: str, method: str, content: Mapping[str, Any], path: Path, arguments: Mapping[str, Any]) -> Origin:
    epoch = content.get("epoch")
    return Origin(
        layout=layout,
        path=str(path),
        method=method,
        epoch=epoch if isinstance(epoch, int) else None,
        arguments=arguments,
    )
