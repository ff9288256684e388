"""A folder that timm opens, by `local-dir:` or with the model's name and its weights file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ibot_cli.errors import ExportError, WeightsError
from ibot_cli.weights.description import INTERPOLATION, KEY, as_text
from ibot_cli.weights.export import many_bands
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.refusals import check_plain, window_sides
from ibot_cli.weights.export.subject import Subject
from ibot_cli.weights.export.timm_names import base_model, changed_arguments
from ibot_cli.weights.norm_epsilon import LIBRARIES, OURS, TOLD, swin_at_epsilon

FILE, CONFIG = "model.safetensors", "config.json"
MODEL_KEY = "timm"


def check(subject: Subject, options: ExportOptions) -> None:
    """Refuse what timm's ViT and Swin cannot hold.

    Raises:
        WeightsError: A network that is not ours, a projection head or layer, or windows that timm pads otherwise.
    """
    check_plain(subject, "timm")
    size = padded_stage(subject)
    if subject.shape is not None and size is not None:
        raise WeightsError(
            f"At {subject.image_size} pixels this Swin pads maps of {size} tokens to windows of "
            f"{subject.shape.window_size}; timm pads after the shift and iBOT's authors before it, so the features "
            "would differ.",
            "Use an --image-size without padding (224 for windows of 7), or --to hf, onnx or torch-export.",
        )


def padded_stage(subject: Subject) -> int | None:
    """Tokens per side of a Swin's first stage whose map is larger than a window and no multiple of it."""
    if subject.shape is None:
        return None
    window = subject.shape.window_size
    return next((side for side in window_sides(subject) if side > window and side % window), None)


def tensors_of(subject: Subject) -> dict[str, Tensor]:
    """The state dict of timm's model; a mask token is not among it."""
    tensors = dict(subject.tensors)
    if subject.kind == "swin":
        tensors = swin_at_epsilon(tensors, OURS, LIBRARIES)
    registers = tensors.pop("register_tokens", None)
    if registers is not None:  # timm has no position for the class token where there are registers
        tensors["reg_token"] = registers
        tensors["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
        tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    if subject.classifier is not None:
        head = "head.fc" if subject.kind == "swin" else "head"
        tensors |= {f"{head}.{name}": value for name, value in subject.classifier.head.state_dict().items()}
        if subject.classifier.fc_norm is not None:
            tensors |= {f"fc_norm.{name}": value for name, value in subject.classifier.fc_norm.state_dict().items()}
    return {name: value.detach().float().contiguous().clone() for name, value in tensors.items()}


def preparation(subject: Subject) -> dict[str, Any]:
    """What `timm.data.resolve_model_data_config` reads from a model."""
    return {
        "input_size": [subject.channels, subject.image_size, subject.image_size],
        "mean": list(subject.mean),
        "std": list(subject.std),
        "crop_pct": subject.crop_ratio,
        "crop_mode": "center",
        "interpolation": INTERPOLATION,
    }


def config(subject: Subject) -> dict[str, Any]:
    """The content of config.json, as `timm.models.load_model_config_from_path` reads it."""
    base, arguments = base_model(subject), changed_arguments(subject)
    assert subject.shape is not None
    content = {
        "architecture": base,
        "num_classes": arguments["num_classes"],
        "num_features": subject.tensors["patch_embed.proj.weight"].shape[0] * (8 if subject.kind == "swin" else 1),
        "model_args": arguments,
        "pretrained_cfg": {
            **preparation(subject),
            "num_classes": arguments["num_classes"],
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc" if subject.kind == "swin" else "head",
        },
        KEY: subject.describe(),
    }
    if subject.classes is not None:
        content["label_names"] = list(subject.classes)
    return content


def write(subject: Subject, folder: Path, options: ExportOptions) -> None:
    """The weights, with the model's name and arguments in their metadata, and config.json."""
    built_by = json.dumps({"name": base_model(subject), "kwargs": changed_arguments(subject)})
    metadata = {"format": "pt", MODEL_KEY: built_by, KEY: as_text(subject.describe())}
    (folder / FILE).write_bytes(save(tensors_of(subject), metadata))
    (folder / CONFIG).write_text(json.dumps(config(subject), indent=2) + "\n", encoding="utf-8")


def read_back(folder: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """By `timm.create_model`, in both ways; another image size is given to timm as `img_size`.

    Raises:
        ExportError: The two ways do not give the same weights.
    """
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    name, arguments = written["architecture"], written["model_args"]
    model = _created(name, checkpoint_path=str(folder / FILE), **arguments)
    if _opens_folder(name, arguments["num_classes"]):
        in_folder = _opened(folder).state_dict()
        if any(not torch.equal(value, in_folder[key]) for key, value in model.state_dict().items()):
            raise ExportError(f"timm reads other weights from the folder {folder} than from its file {FILE}.")
    native = int(written["pretrained_cfg"]["input_size"][-1])

    def outputs(images: Tensor) -> dict[str, Tensor]:
        side = images.shape[-1]
        return _outputs(model if side == native else _opened(folder, img_size=side), images)

    return outputs


def usage(subject: Subject, path: str) -> str:
    """The lines that open it with timm, first as a folder, then by name and file."""
    newer = "" if _opens_folder(base_model(subject), _num_classes(subject), "1.0.30") else "  # timm 1.0.31 or newer"
    mode = "L" if subject.channels == 1 else "RGB"
    lines = [
        "import timm",
        "from PIL import Image",
        "",
        f"model = timm.create_model({f'local-dir:{path}'!r}, pretrained=True).eval(){newer}",
        "# The same from the weights file alone:",
        *(f"# {line}" for line in _by_name(subject, path)),
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        f"images = transform(Image.open('image.png').convert({mode!r})).unsqueeze(0)",
    ]
    if not many_bands.is_plain(subject):
        lines = [*many_bands.opening_lines(subject), "", "import timm", *lines[2:-2]]
    if subject.classifier is not None:
        return "\n".join([*lines, "scores = model(images).softmax(-1)  # in the order of label_names in config.json"])
    registers = subject.shape.registers if subject.shape else 0
    tokens = "[B, H, W, D]" if subject.kind == "swin" else f"[B, {1 + registers} + N, D], class token first"
    return "\n".join(
        [*lines, "features = model(images)  # [B, D]", f"tokens = model.forward_features(images)  # {tokens}"]
    )


def notes(subject: Subject, options: ExportOptions) -> tuple[str, ...]:
    """What was changed for the sake of timm."""
    return (*((TOLD,) if subject.kind == "swin" else ()), *many_bands.notes(subject))


def _by_name(subject: Subject, path: str) -> list[str]:
    """The call that needs no config.json; how images are prepared is a part of it."""
    prepared = {
        name: tuple(value) if isinstance(value, list) else value for name, value in preparation(subject).items()
    }
    return [
        "model = timm.create_model(",
        f"    {base_model(subject)!r},",
        f"    checkpoint_path={f'{path}/{FILE}'!r},",
        *(f"    {name}={value!r}," for name, value in changed_arguments(subject).items()),
        "    pretrained_cfg_overlay=dict(",
        *(f"        {name}={value!r}," for name, value in prepared.items()),
        "    ),",
        ").eval()",
    ]


def _num_classes(subject: Subject) -> int:
    return 0 if subject.classifier is None else subject.classifier.head.out_features


def _opens_folder(name: str, num_classes: int, version: str = timm.__version__) -> bool:
    """Whether that timm opens the folder too: before 1.0.31 it takes every Swin without classes for a layout of old."""
    numbers = tuple(int(number) for number in version.split(".")[:3])
    return num_classes > 0 or not name.startswith("swin") or numbers >= (1, 0, 31)


def _opened(folder: Path, **arguments: Any) -> nn.Module:
    return _created(f"local-dir:{folder}", pretrained=True, **arguments)


def _created(name: str, **arguments: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # timm draws what it overwrites at once
        model: nn.Module = timm.create_model(name, **arguments)
    return model.eval()


def _outputs(model: Any, images: Tensor) -> dict[str, Tensor]:  # timm's models have methods that no type declares
    """By the names of `Reference.forward`."""
    tokens = model.forward_features(images)
    patches = tokens.flatten(1, 2) if tokens.ndim == 4 else tokens[:, model.num_prefix_tokens :]
    norm = getattr(model, "fc_norm", None)
    outputs = {
        "cls": model.forward_head(tokens, pre_logits=True),
        "patches": patches if norm is None else norm(patches),
    }
    if model.num_classes:
        outputs["logits"] = model.forward_head(tokens)
    return outputs


TIMM = Form(
    name="timm",
    title="timm model",
    file=None,
    extra=None,
    library="timm",
    check=check,
    write=write,
    read_back=read_back,
    usage=usage,
    notes=notes,
    resizes=True,
)
