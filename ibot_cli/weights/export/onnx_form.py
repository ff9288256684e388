"""One ONNX file for any number of images, opened with onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ibot_cli.errors import ExportError, UsageError
from ibot_cli.weights.description import KEY
from ibot_cli.weights.export import many_bands
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.onnx_graph import INPUT, onnx_graph, output_shapes
from ibot_cli.weights.export.quantize import half_weights, integer_weights
from ibot_cli.weights.export.silence import import_onnxruntime
from ibot_cli.weights.export.subject import Subject

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

FILE = "model.onnx"
EXTERNAL = "model.onnx.data"
LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights in one file: a message of protobuf ends at 2 GiB; the rest is for the graph."""
HALF_TOLERANCE, INTEGER_TOLERANCE = 1e-2, 0.5


def check(subject: Subject, options: ExportOptions) -> None:
    """Refuse a precision that cannot be written for a network of this size.

    Raises:
        UsageError: `--fp16` or `--int8` for weights beyond 2 GiB.
    """
    size = _weight_bytes(subject)
    if options.precision != "fp32" and size > LARGEST_FILE:
        raise UsageError(
            f"--{options.precision}: {subject.loaded.description} has {size / 2**30:.1f} GiB of float32 weights; "
            "conversion works up to 2 GiB.",
            f"Leave --{options.precision} out: the weights then lie in a second file beside the graph.",
        )


def write(subject: Subject, folder: Path, options: ExportOptions) -> None:
    """`model.onnx`, checked; beyond 2 GiB with its weights in `model.onnx.data`.

    Raises:
        ExportError: The network has no ONNX form, or not in this precision.
    """
    import onnx

    model, file = onnx_graph(subject), folder / FILE
    if options.precision == "fp16":
        model = half_weights(model)
    if options.precision == "int8":
        integer_weights(model, file)
    else:
        _save(model, file)
    onnx.checker.check_model(str(file), full_check=True)


def read_back(folder: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """By onnxruntime on the CPU.

    Raises:
        ExportError: onnxruntime cannot open it.
    """
    session = open_session(folder / FILE)
    names = [output.name for output in session.get_outputs()]

    def network(images: Tensor) -> dict[str, Tensor]:
        values = session.run(names, {INPUT: images.float().contiguous().numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return network


def open_session(file: Path) -> InferenceSession:
    """An onnxruntime session on the CPU, with as many threads as torch has.

    Raises:
        ExportError: onnxruntime cannot open the file.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise ExportError(f"onnxruntime cannot open {file.name}: {str(error).splitlines()[0]}") from error


def usage(subject: Subject, path: str) -> str:
    """The lines that open it with onnxruntime, and prepare an image with Pillow and numpy alone."""
    file = path if path.endswith(".onnx") else f"{path}/{FILE}"
    mode = "L" if subject.channels == 1 else "RGB"
    opening = _OPENING.format(file=file, mode=mode, key=KEY)
    if not many_bands.is_plain(subject):
        opening = "\n".join([*many_bands.opening_lines(subject), _OPENING_BANDS.format(file=file, key=KEY)])
    if subject.classes is not None:
        return opening + _CLASSES
    shapes = {name: ", ".join(map(str, ("B", *shape))) for name, shape in output_shapes(subject).items()}
    lines = [f"{name} = outputs[{place}]  # [{shape}]" for place, (name, shape) in enumerate(shapes.items())]
    return opening + "\n".join([f'outputs = session.run({list(shapes)}, {{"images": images}})', *lines])


def notes(subject: Subject, options: ExportOptions) -> tuple[str, ...]:
    """What fewer bits mean, and when they count as broken."""
    if options.precision == "fp16":
        return (
            "float16 weights and products; norms and softmax are computed in float32, inputs and outputs are float32.",
        )
    if options.precision == "int8":
        return (
            "8-bit matrices, made for CPUs. How much that changes is for you to judge by the figures; only a "
            f"difference above {INTEGER_TOLERANCE:.0%} of the largest value counts as broken.",
        )
    return ()


def _weight_bytes(subject: Subject) -> int:
    return sum(4 * tensor.numel() for tensor in subject.network.state_dict().values())


def _save(model: ModelProto, file: Path) -> None:
    import onnx

    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_FILE
    onnx.save_model(model, str(file), save_as_external_data=large, location=EXTERNAL if large else None)


_OPENING = """\
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession({file!r})
about = json.loads(session.get_modelmeta().custom_metadata_map[{key!r}])
settings = about["preparation"]


def prepared(path):
    image = ImageOps.exif_transpose(Image.open(path)).convert({mode!r})
    size, shorter = settings["image_size"], int(settings["image_size"] / settings["crop_ratio"])
    width, height = (shorter * side // min(image.size) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    levels = np.asarray(image, np.float32).reshape(size, size, -1) / 255
    values = (levels - np.array(settings["mean"], np.float32)) / np.array(settings["std"], np.float32)
    return values.transpose(2, 0, 1)


images = np.stack([prepared("image.png")])  # any number of images
"""
_OPENING_BANDS = """
import json

import onnxruntime

session = onnxruntime.InferenceSession({file!r})
about = json.loads(session.get_modelmeta().custom_metadata_map[{key!r}])
images = images.numpy()
"""
_CLASSES = """\
logits = session.run(["logits"], {"images": images})[0].astype(np.float64)
probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
probabilities /= probabilities.sum(axis=1, keepdims=True)
print(about["classes"][probabilities[0].argmax()], probabilities[0].max())"""

ONNX = Form(
    name="onnx",
    title="ONNX",
    file=FILE,
    extra="onnx",
    library="onnx",
    reader="onnxruntime",
    check=check,
    write=write,
    read_back=read_back,
    usage=usage,
    notes=notes,
    reduced={"fp16": HALF_TOLERANCE, "int8": INTEGER_TOLERANCE},
)
