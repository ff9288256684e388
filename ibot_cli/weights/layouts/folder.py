"""A folder with a config.json and the weights beside it, as Hugging Face's libraries and timm save models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.files import read_weights_file, tensors_in

CONFIG = "config.json"
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty when there is no such file.

    Raises:
        WeightsError: It is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.", "Download or copy it again.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is no JSON object.", "Download or copy it again.")
    return content


def model_folder(path: Path) -> Path | None:
    """The folder of a model whose weights file was named itself; its config.json says more than the file."""
    named = path.name in _SINGLE and path.is_file() and (path.parent / CONFIG).is_file()
    chosen = named and next(name for name in _SINGLE if (path.parent / name).is_file()) == path.name
    return path.parent if chosen and {"model_type", "architecture"} & read_json(path.parent / CONFIG).keys() else None


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model's folder, on the CPU; safetensors before pickles, of which nothing is executed.

    Raises:
        WeightsError: There are no weights, a shard is missing, or a file is damaged.
    """
    for name in _INDICES:
        if (folder / name).is_file() and not (folder / name.removesuffix(".index.json")).is_file():
            return _read_shards(folder, name)
    for name in _SINGLE:
        if (folder / name).is_file():
            return read_tensor_file(folder / name)
    raise WeightsError(
        f"{folder} has a {CONFIG} but no weights.",
        f"Put {' or '.join(_SINGLE[:2])} of the same model beside it.",
    )


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a `torch.save` file that holds a state dict.

    Raises:
        WeightsError: The file is missing, truncated, damaged, or holds something else.
    """
    content = read_weights_file(path)
    tensors = tensors_in(content) if isinstance(content, Mapping) else {}
    if not tensors:
        raise WeightsError(f"{path} holds no state dict.", "Use the file that the model was saved in.")
    return tensors


def _read_shards(folder: Path, index: str) -> dict[str, Tensor]:
    places = read_json(folder / index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{folder / index} does not say where the tensors are.", "Download or copy it again.")
    shards = sorted({Path(str(name)).name for name in places.values()})
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise WeightsError(
            f"{folder} lacks {len(missing)} of its {len(shards)} files of weights: {', '.join(missing[:4])}.",
            "Download or copy them too.",
        )
    tensors = {name: tensor for shard in shards for name, tensor in read_tensor_file(folder / shard).items()}
    lost = sorted(places.keys() - tensors.keys())
    if lost:
        raise WeightsError(
            f"{folder} lacks tensors that its index names: {', '.join(lost[:4])}.", "Download or copy it again."
        )
    return tensors
