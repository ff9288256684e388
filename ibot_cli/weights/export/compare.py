"""How far an exported network is from the one it came from, on real images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source, open_source
from ibot_cli.data.transform import IMAGENET, eval_transform
from ibot_cli.errors import DataError, ExportError, WeightsError
from ibot_cli.weights.export.subject import Subject

LEAST_IMAGES, IMAGES = 4, 8
EMBEDDED = {1: "builtin:digits", 3: "builtin:photos"}
Images = Callable[[int], Tensor]
"""From the side in pixels to normalised images `[B, C, side, side]`."""
Network = Callable[[Tensor], Mapping[str, Tensor]]


def comparison_images(subject: Subject, data: str | None = None) -> Images:
    """A few real images, prepared exactly as evaluations do it.

    Args:
        subject: Says how.
        data: DATA; default the embedded digits for one channel, the embedded photos for three. For other channels or
            16 bits the default is the photos as well, each colour normalised and all repeated in order.

    Raises:
        DataError: It cannot be opened, or fewer than four of its images can be read.
    """
    if data is None and not (subject.channels in EMBEDDED and subject.bits == 8):
        return _stand_ins(subject)
    source = open_source(data or EMBEDDED[subject.channels], channels=subject.channels, bits=subject.bits)
    chosen = _readable(source)
    if len(chosen) < LEAST_IMAGES:
        raise DataError(
            f"{source.name} has {len(chosen)} readable images; the comparison needs {LEAST_IMAGES}.",
            "Name other images with --data, or leave it out: the embedded ones are taken then.",
        )

    def prepared(size: int) -> Tensor:
        transform = eval_transform(size, subject.crop_ratio, subject.channels, subject.mean, subject.std)
        return torch.stack([transform(source.levels(index)) for index in chosen])

    return prepared


def _stand_ins(subject: Subject) -> Images:
    """Embedded photos for a network of other channels."""
    source = open_source(EMBEDDED[3], channels=3)
    chosen, channels = _readable(source), torch.arange(subject.channels) % 3

    def prepared(size: int) -> Tensor:
        transform = eval_transform(size, subject.crop_ratio, 3, *IMAGENET[3])
        return torch.stack([transform(source.levels(index)) for index in chosen])[:, channels]

    return prepared


@torch.no_grad()
def compare(
    reference: Network, exported: Network, images: Tensor, leaves_out: Collection[str] = ()
) -> dict[str, float]:
    """Largest difference over largest value of each output that has values.

    Args:
        reference: The network that was exported.
        exported: What was read back.
        images: Normalised images `[B, C, H, W]`.
        leaves_out: Outputs that the form has no place for.

    Raises:
        WeightsError: The network itself gives numbers that are not finite.
        ExportError: What was exported has not all outputs, one too many, or one of another shape.
    """
    expected = reference(images)
    broken = [name for name, value in expected.items() if not value.isfinite().all()]
    if broken:
        raise WeightsError(
            f"The network itself gives NaN or infinity on real images, in {', '.join(broken)}.",
            "There is nothing to hand over; `ibot inspect` says more about the weights.",
        )
    found = exported(images)
    wanted = {name for name, value in expected.items() if value.numel() and name not in leaves_out}
    if not wanted <= set(found) <= set(expected):
        raise ExportError(f"The exported network gives {', '.join(found) or 'no output'}, not {', '.join(expected)}.")
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise ExportError(
                f"The exported network gives `{name}` as {list(value.shape)}, not {list(expected[name].shape)}."
            )
    return {name: relative_difference(value, expected[name]) for name, value in found.items() if value.numel()}


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest |difference| over largest |expected value|."""
    largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((found.detach().float().cpu() - expected.float()).abs().max() / largest)


def difference_text(difference: float) -> str:
    """For people; equal bit for bit is 0."""
    return f"{difference:.1e}" if difference else "0"


def _readable(source: Source) -> list[int]:
    """Up to `IMAGES` images, spread over the whole."""
    count = len(source)
    spread = [round(place * (count - 1) / max(IMAGES - 1, 1)) for place in range(IMAGES)]
    candidates = dict.fromkeys([*spread, *range(min(count, 10 * IMAGES))]) if count else {}
    found: list[int] = []
    for index in candidates:
        try:
            source.levels(index)
        except UnreadableImage:
            continue
        found.append(index)
        if len(found) == IMAGES:
            break
    return found
