"""How near the image processor of Hugging Face's transformers library comes to our own preparation of images."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import eval_transform
from ibot_cli.weights.export import many_bands
from ibot_cli.weights.export.compare import EMBEDDED
from ibot_cli.weights.export.form import ExportOptions
from ibot_cli.weights.export.hf_config import image_processor_config
from ibot_cli.weights.export.silence import quiet_transformers
from ibot_cli.weights.export.subject import Subject

PREPROCESSOR = "preprocessor_config.json"
IMAGES = 8
_LEVELS = 255


def notes(subject: Subject, options: ExportOptions) -> tuple[str, ...]:
    """What its backends differ by, measured on the embedded images; or that it does not prepare such images."""
    if not many_bands.is_plain(subject):
        return many_bands.notes(subject)
    pil, default = (round(preparation_difference(subject, backend), 2) for backend in ("pil", "torchvision"))
    told = (
        f"AutoImageProcessor with backend='pil' is at most {pil:g} of 255 levels from ibot's own preparation "
        f"({IMAGES} embedded images, which are square), with its default backend {default:g}."
    )
    if crops_elsewhere(subject):
        return (told + " The margin that it crops is odd, and it rounds the half pixel down where ibot rounds it up.",)
    return (told + " Of other images it crops one in four a pixel further to the left or top, as it rounds so.",)


def crops_elsewhere(subject: Subject) -> bool:
    """Whether the centre crop of a square image is one pixel beside ours: they round a half down, we to even."""
    margin: int = image_processor_config(subject)["size"]["shortest_edge"] - subject.image_size
    return round(margin / 2) != margin // 2


def preparation_difference(subject: Subject, backend: str) -> float:
    """Largest difference of the image processor from `eval_transform`, in levels of 0 to 255.

    Args:
        subject: Says how images are prepared.
        backend: `pil` or `torchvision`.
    """
    import transformers

    ours = eval_transform(subject.image_size, subject.crop_ratio, subject.channels, subject.mean, subject.std)
    source = open_source(EMBEDDED[subject.channels], channels=subject.channels)
    images = [source.read(round(place * (len(source) - 1) / (IMAGES - 1))) for place in range(IMAGES)]
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        write_json(Path(folder) / PREPROCESSOR, image_processor_config(subject))
        processor: Any = transformers.AutoImageProcessor.from_pretrained(folder, backend=backend)
        theirs = [processor(images=image, return_tensors="pt").pixel_values[0] for image in images]
    scale = torch.tensor(subject.std).reshape(-1, 1, 1) * _LEVELS
    return max(float(((ours(image) - other) * scale).abs().max()) for image, other in zip(images, theirs, strict=True))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """As one of the library's configuration files."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
