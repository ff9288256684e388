"""Attention maps and patch features of a few images."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ibot_cli.errors import DataError
from ibot_cli.evaluate.faults import left_out
from ibot_cli.visualize.attention.colours import head_colours
from ibot_cli.visualize.attention.figure import USUAL_MASS
from ibot_cli.visualize.attention.maps import CLS, Query, attention_maps, check_attention, patch_features
from ibot_cli.visualize.attention.mass import head_figures
from ibot_cli.visualize.attention.panels import attention_panels
from ibot_cli.visualize.attention.pca import patch_colours
from ibot_cli.visualize.lettering import short_name
from ibot_cli.visualize.pages import inline_image
from ibot_cli.visualize.palette import hex_colour
from ibot_cli.visualize.report.samples.choice import readable_images
from ibot_cli.visualize.report.samples.options import StageProgress
from ibot_cli.visualize.report.samples.subject import Subject
from ibot_cli.visualize.whole_image import OverlongImage, WholeImage, whole_image
from ibot_cli.weights.load import LoadedBackbone

SIDE = 160
_STAGE = "attention"
_BESIDE = 3  # pictures of an image before those of its heads
_MOST_HEADS, _FIRST_HEADS = 12, 6  # where there are more than the former, the latter are shown at once


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of an image's row.

    Attributes:
        uri: As a `data:` URI.
        name: Short, below it.
        about: What the enlarged view says.
        sharp: Whether it is to be enlarged without blur.
        colour: Of the head, as `#rrggbb`, or None.
    """

    uri: str
    name: str
    about: str
    sharp: bool
    colour: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """An image with all that is shown of it.

    Attributes:
        name: Its file, and its class where that is known.
        grid: Rows and columns of patches.
        panels: The image, all heads, the patch features, then the first heads.
        more: The other heads.
    """

    name: str
    grid: tuple[int, int]
    panels: tuple[Panel, ...]
    more: tuple[Panel, ...]


def attention_values(subject: Subject, progress: StageProgress | None = None) -> Mapping[str, object]:
    """What the template `report_attention.html` shows.

    Raises:
        DataError: No image can be read.
        WeightsError: The network's attention cannot be read.
    """
    loaded, options = subject.loaded, subject.options
    of_class_token = subject.has_class_token
    check_attention(loaded, [CLS] if of_class_token else [(0, 0)])
    bad: dict[str, str] = {}
    seen: list[tuple[int, WholeImage, Tensor, Tensor]] = []
    for place, image in readable_images(subject.source, options.attention, options.seed, bad):
        try:
            whole = whole_image(image, loaded)
        except OverlongImage as error:
            bad[subject.source.path(place)] = error.reason
            continue
        query: Query = CLS if of_class_token else _centre(whole)
        maps = attention_maps(loaded, whole, [query], options.device)[0]
        seen.append((place, whole, maps, patch_features(loaded, whole, options.device)))
        if progress is not None:
            progress(_STAGE, len(seen), min(options.attention, len(subject.source)))
    if not seen:
        raise DataError(f"No image of {subject.source.name} can be read.", "Check the files.")
    colours = patch_colours([features for *_, features in seen])
    rows = [
        _row(subject, place, whole, maps, picture, of_class_token)
        for (place, whole, maps, _), picture in zip(seen, colours.images, strict=True)
    ]
    return {
        "rows": rows,
        "of_class_token": of_class_token,
        "why_not": None if of_class_token else _why_not(loaded),
        "explained": sum(colours.explained),
        "part": subject.part,
        "num_source": len(subject.source),
        "command": shlex.join(["ibot", "visualize-attention", str(subject.run), subject.data]),
        "notes": left_out(bad),
    }


def _why_not(loaded: LoadedBackbone) -> str:
    if loaded.backbone.has_class_token:
        return "The network was fine-tuned on the mean of its patches, so its class token says nothing"
    return "This network (Swin) has no class token, and each patch attends to its own window only"


def _centre(whole: WholeImage) -> tuple[int, int]:
    return whole.grid[0] // 2, whole.grid[1] // 2


def _row(subject: Subject, place: int, whole: WholeImage, maps: Tensor, colours: Tensor, of_class_token: bool) -> Row:
    name = short_name(subject.source.path(place))
    labels, classes = subject.source.labels, subject.source.classes
    if labels is not None and classes is not None:
        name = f"{name}, class {classes[int(labels[place])]}"
    query = None if of_class_token else _centre(whole)
    panels = tuple(_panels(name, whole, maps, colours, query))
    first = _BESIDE + (_FIRST_HEADS if len(maps) > _MOST_HEADS else len(maps))
    return Row(name=name, grid=whole.grid, panels=panels[:first], more=panels[first:])


def _panels(
    name: str, whole: WholeImage, maps: Tensor, colours: Tensor, query: tuple[int, int] | None
) -> Iterable[Panel]:
    drawn = attention_panels(whole, maps, query=query, side=SIDE)
    small = max(whole.shown.size) < SIDE // 2  # its pixels are squares in the panels, which cost little without loss
    yield _panel(drawn.image, "image", f"{name}, as the network sees it", small)
    yield _panel(drawn.overlay, "all heads", f"{name}: each patch in the colour of its strongest head", small)
    yield _panel(_squares(colours, whole.grid), "features", f"{name}: patch features as colours", True)
    num_patches = whole.grid[0] * whole.grid[1]
    of_heads = zip(drawn.heads, head_figures(maps, USUAL_MASS), head_colours(len(maps)), strict=True)
    for picture, figures, colour in of_heads:
        about = (
            f"{name}, head {figures.head}: {USUAL_MASS:.0%} of its attention falls on "
            f"{figures.patches_for_mass} of {num_patches} patches"
        )
        yield _panel(picture, f"head {figures.head}", about, True, hex_colour(colour))


def _squares(colours: Tensor, grid: tuple[int, int]) -> Image.Image:
    """A pixel per patch; `colours` `[rows * columns, 3]` in 0..1."""
    return Image.fromarray((colours * 255).round().to(torch.uint8).reshape(*grid, 3).numpy())


def _panel(picture: Image.Image, name: str, about: str, sharp: bool, colour: str | None = None) -> Panel:
    uri = inline_image(picture, sharp_up_to=max(picture.size) if sharp else 0)
    return Panel(uri=uri, name=name, about=about, sharp=sharp, colour=colour)
