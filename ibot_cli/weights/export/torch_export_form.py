"""A program of `torch.export`: opened with torch alone, for any number of images of one size."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.description import as_text
from ibot_cli.weights.export import many_bands
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.silence import silence
from ibot_cli.weights.export.subject import Subject

FILE, DESCRIPTION = "model.pt2", "ibot.json"


def check(subject: Subject, options: ExportOptions) -> None:
    """Every network can be tried."""


def write(subject: Subject, folder: Path, options: ExportOptions) -> None:
    """The program with its weights, and the description as an extra file inside.

    Raises:
        WeightsError: torch cannot trace this network.
    """
    size = subject.image_size
    images = torch.zeros(2, subject.channels, size, size)
    batch = torch.export.Dim("batch", min=1)
    file = io.BytesIO()  # on a full disk torch would abort the program
    try:
        with silence(), torch.no_grad():
            program = torch.export.export(subject.network, (images,), dynamic_shapes={"images": {0: batch}})
            _forget_sources(program)
            torch.export.save(program, file, extra_files={DESCRIPTION: as_text(subject.describe())})
    except (RuntimeError, torch._dynamo.exc.UserError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsError(
            f"torch.export cannot trace {subject.loaded.description}: {reason}", "Export it with --to safetensors."
        ) from error
    (folder / FILE).write_bytes(file.getbuffer())


def read_back(folder: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """By `torch.export.load`."""
    with silence():
        module: Callable[[Tensor], dict[str, Tensor]] = torch.export.load(folder / FILE).module()
    return module


def usage(subject: Subject, path: str) -> str:
    """The lines that open it with torch, and prepare images with torchvision."""
    size, mode = subject.image_size, "L" if subject.channels == 1 else "RGB"
    resized = math.floor(size / subject.crop_ratio)
    lines = [
        "import torch",
        "from PIL import Image",
        "from torchvision import transforms",
        "",
        f"network = torch.export.load({path!r}).module()",
        "prepared = transforms.Compose(",
        "    [",
        f"        transforms.Resize({resized}, transforms.InterpolationMode.BICUBIC),",
        f"        transforms.CenterCrop({size}),",
        "        transforms.ToTensor(),",
        f"        transforms.Normalize({subject.mean}, {subject.std}),",
        "    ]",
        ")",
        f'images = prepared(Image.open("image.png").convert("{mode}")).unsqueeze(0)  # any number',
    ]
    if not many_bands.is_plain(subject):
        lines = [*many_bands.opening_lines(subject), "", f"network = torch.export.load({path!r}).module()"]
    lines += [
        "outputs = network(images)",
        'cls, patches = outputs["cls"], outputs["patches"]  # [B, D] and [B, N, D]',
    ]
    if subject.classes is not None:
        lines += [
            f"classes = {list(subject.classes)}",
            'probabilities = outputs["logits"].softmax(-1)  # of the classes',
        ]
    if subject.head is not None:
        lines.append('scores = outputs["cls_logits"]  # [B, prototypes], before temperature')
    return "\n".join(lines)


def _forget_sources(program: torch.export.ExportedProgram) -> None:
    """torch notes the lines of code that each operation comes from, with the folders of this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


TORCH_EXPORT = Form(
    name="torch-export",
    title="program of torch.export",
    file=FILE,
    extra=None,
    library="pytorch",
    reader="torch.export",
    check=check,
    write=write,
    read_back=read_back,
    usage=usage,
)
