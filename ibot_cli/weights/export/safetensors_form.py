"""One safetensors file in our own names, which works as WEIGHTS everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.weights.description import KEY, as_text
from ibot_cli.weights.export import many_bands
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.subject import Reference, Subject
from ibot_cli.weights.layouts.native import CLS_CENTER, MASK_TOKEN, PATCH_CENTER

FILE = "model.safetensors"


def check(subject: Subject, options: ExportOptions) -> None:
    """Refuse what only timm can build.

    Raises:
        WeightsError: The network is none of ours.
    """
    if subject.shape is None:
        raise WeightsError(
            f"{subject.loaded.description} has layers that ibot itself does not build; safetensors holds our names.",
            "Export it with --to onnx or --to torch-export.",
        )


def tensors_of(subject: Subject) -> dict[str, Tensor]:
    """Every tensor of the file: `backbone.*`, the head's or the classifier's, centres and mask token."""
    tensors = {f"backbone.{name}": value for name, value in subject.tensors.items()}
    if subject.classifier is not None:
        state = subject.classifier.state_dict()
        tensors |= {name: value for name, value in state.items() if not name.startswith("backbone.")}
    if subject.head is not None:
        tensors |= {f"head.{name}": value for name, value in subject.head.state_dict().items()}
        scale = subject.loaded.scale
        centers = {} if scale is None else {CLS_CENTER: scale.cls_center, PATCH_CENTER: scale.patch_center}
        tensors |= {name: value for name, value in centers.items() if value is not None}
    if subject.loaded.mask_token is not None:
        tensors[MASK_TOKEN] = subject.loaded.mask_token
    return {name: value.detach().float().contiguous().clone() for name, value in tensors.items()}


def write(subject: Subject, folder: Path, options: ExportOptions) -> None:
    """One file with the description in its metadata."""
    metadata = {"format": "pt", KEY: as_text(subject.describe())}
    (folder / FILE).write_bytes(save(tensors_of(subject), metadata))


def read_back(folder: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """By our own strict loader."""
    from ibot_cli.weights.load import load_weights

    loaded = load_weights(str(folder / FILE))
    return Reference(loaded.backbone, loaded.head, loaded.classifier).eval()


def usage(subject: Subject, path: str) -> str:
    """The lines that open it with `ibot_cli`."""
    lines = opened_with_ibot(subject, path)
    if subject.classifier is not None:
        lines.append("probabilities = weights.classifier(images).softmax(-1)  # in the order of weights.classes")
    if subject.head is not None:
        lines.append("scores = weights.head.cls_logits(weights.head.bottleneck(tokens[:, 0]))  # [B, prototypes]")
    return "\n".join(lines)


def opened_with_ibot(subject: Subject, path: str) -> list[str]:
    """Python lines from a file that is WEIGHTS to the tokens of an image."""
    image, importing = "Image.open('image.png').convert('RGB')", ["from PIL import Image"]
    if subject.channels == 1:
        image = image.replace("RGB", "L")
    opened = ["from ibot_cli.data.transform import eval_transform", "from ibot_cli.weights.load import load_weights"]
    if not many_bands.is_plain(subject):
        image, importing = f"read_levels('{many_bands.FILE}', weights.channels, weights.bits)", []
        opened.insert(0, "from ibot_cli.data.single import read_levels")
    return [
        *opened,
        *importing,
        "",
        f"weights = load_weights({path!r})  # also WEIGHTS of every command",
        "prepared = eval_transform(*weights.preparation)",
        f"images = prepared({image}).unsqueeze(0)",
        "tokens = weights.backbone(images)  # [B, 1 + N, D], class token first",
    ]


SAFETENSORS = Form(
    name="safetensors",
    title="safetensors in the names of ibot",
    file=FILE,
    extra=None,
    library="ibot",
    check=check,
    write=write,
    read_back=read_back,
    usage=usage,
    resizes=True,
)
