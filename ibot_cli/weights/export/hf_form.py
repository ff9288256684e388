"""A folder that `AutoModel` and `AutoImageProcessor` of Hugging Face's transformers library open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ibot_cli.errors import ExportError, WeightsError
from ibot_cli.weights.description import KEY, as_text
from ibot_cli.weights.export import many_bands
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.hf_config import image_processor_config, model_config
from ibot_cli.weights.export.hf_names import tensors_of
from ibot_cli.weights.export.hf_preparation import PREPROCESSOR, write_json
from ibot_cli.weights.export.hf_preparation import notes as preparation_notes
from ibot_cli.weights.export.refusals import check_plain, window_sides
from ibot_cli.weights.export.silence import quiet_transformers
from ibot_cli.weights.export.subject import Subject
from ibot_cli.weights.norm_epsilon import TOLD

FILE, CONFIG = "model.safetensors", "config.json"


def check(subject: Subject, options: ExportOptions) -> None:
    """Refuse what none of the library's classes computes.

    Raises:
        WeightsError: See `check_plain`; a mean-pooled classifier with registers, or a Swin whose windows are smaller
            than their tables would be.
    """
    check_plain(subject, "transformers")
    shape, classifier = subject.shape, subject.classifier
    assert shape is not None
    if shape.registers and classifier is not None and classifier.fc_norm is not None:
        raise WeightsError(
            "No model of transformers has registers and classifies the mean of the patches.",
            "Use --to timm, onnx, torch-export or safetensors.",
        )
    small = next((side for side in window_sides(subject) if side < shape.window_size), None)
    if small is not None:
        raise WeightsError(
            f"At {subject.image_size} pixels a stage of this Swin has {small} tokens per side, fewer than its windows "
            f"of {shape.window_size}; the Swin of transformers has no such stage.",
            "Use --to timm, onnx, torch-export or safetensors.",
        )


def write(subject: Subject, folder: Path, options: ExportOptions) -> None:
    """The weights, config.json and preprocessor_config.json."""
    metadata = {"format": "pt", KEY: as_text(subject.describe())}
    (folder / FILE).write_bytes(save(tensors_of(subject), metadata))
    write_json(folder / CONFIG, model_config(subject))
    write_json(folder / PREPROCESSOR, image_processor_config(subject))


def read_back(folder: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """By `AutoModel` or `AutoModelForImageClassification`, which must neither miss nor ignore a tensor.

    Raises:
        ExportError: They do.
    """
    import transformers

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    opener: Any = transformers.AutoModelForImageClassification if "id2label" in config else transformers.AutoModel
    with quiet_transformers():
        model, report = opener.from_pretrained(str(folder), output_loading_info=True)
    wrong = {name: sorted(map(str, found)) for name, found in report.items() if found and name.endswith("_keys")}
    if type(model).__name__ != config["architectures"][0] or wrong:
        raise ExportError(
            f"transformers opens the folder {folder} as a {type(model).__name__} with {wrong or 'it all'}."
        )
    model.eval()

    def outputs(images: Tensor) -> dict[str, Tensor]:
        resized = config["model_type"] == "vit" and images.shape[-1] != config["image_size"]
        arguments = {"interpolate_pos_encoding": True} if resized else {}
        return _outputs(model, images, arguments)

    return outputs


def _outputs(model: Any, images: Tensor, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """By the names of `Reference.forward`."""
    base, config = model.base_model, model.config
    found = base(images, **arguments)
    tokens = found.last_hidden_state
    if config.model_type == "beit":
        outputs = {"cls": found.pooler_output, "patches": base.pooler.layernorm(tokens[:, 1:])}
    elif config.model_type == "swin":
        outputs = {"cls": found.pooler_output, "patches": tokens}
    else:
        outputs = {"cls": tokens[:, 0], "patches": tokens[:, 1 + getattr(config, "num_register_tokens", 0) :]}
    if base is not model:
        outputs["logits"] = model(images, **arguments).logits
    return outputs


def notes(subject: Subject, options: ExportOptions) -> tuple[str, ...]:
    """How near its image processor comes, and what was changed for the sake of the library."""
    return (*preparation_notes(subject, options), *((TOLD,) if subject.kind == "swin" else ()))


def usage(subject: Subject, path: str) -> str:
    """The lines that open it with transformers."""
    classes = subject.classifier is not None
    opener = "AutoModelForImageClassification" if classes else "AutoModel"
    mode = "L" if subject.channels == 1 else "RGB"
    lines = [
        "from PIL import Image",
        f"from transformers import AutoImageProcessor, {opener}",
        "",
        f"processor = AutoImageProcessor.from_pretrained({path!r}, backend='pil')",
        f"model = {opener}.from_pretrained({path!r}).eval()",
        f"image = Image.open('image.png').convert({mode!r})",
        "inputs = processor(images=image, return_tensors='pt')",
    ]
    if not many_bands.is_plain(subject):
        lines = [
            *many_bands.opening_lines(subject),
            "",
            f"from transformers import {opener}",
            "",
            f"model = {opener}.from_pretrained({path!r}).eval()",
            'inputs = {"pixel_values": images}',
        ]
    if classes:
        return "\n".join([*lines, "scores = model(**inputs).logits.softmax(-1)  # named by model.config.id2label"])
    registers = subject.shape.registers if subject.shape else 0
    tokens = "[B, N, D]" if subject.kind == "swin" else f"[B, {1 + registers} + N, D], class token first"
    return "\n".join(
        [
            *lines,
            "features = model(**inputs).pooler_output  # [B, D]",
            f"tokens = model(**inputs).last_hidden_state  # {tokens}",
        ]
    )


HF = Form(
    name="hf",
    title="Hugging Face transformers folder",
    file=None,
    extra="hf",
    library="transformers",
    check=check,
    write=write,
    read_back=read_back,
    usage=usage,
    notes=notes,
    resizes=True,
)
