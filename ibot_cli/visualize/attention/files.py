"""`draw_attention`: a figure per image, a sheet of patch features, and all numbers, in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from ibot_cli.durable import write_atomically, write_json
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.evaluate.faults import each_left_out
from ibot_cli.runs.directory import is_run
from ibot_cli.runs.filled_folder import filled_folder
from ibot_cli.visualize.attention.figure import attention_figure
from ibot_cli.visualize.attention.maps import (
    CLS,
    Query,
    attention_maps,
    attention_notes,
    check_attention,
    patch_features,
)
from ibot_cli.visualize.attention.mass import head_figures
from ibot_cli.visualize.attention.pca import patch_colours, pca_figure
from ibot_cli.visualize.attention.pictures import Picture, open_pictures
from ibot_cli.visualize.attention.result import (
    AttentionOptions,
    AttentionResult,
    ImageFigures,
    PcaFigures,
    QueryFigures,
)
from ibot_cli.visualize.figure_folder import check_figure_folder
from ibot_cli.visualize.sheets import stacked
from ibot_cli.visualize.whole_image import whole_image
from ibot_cli.weights.load import LoadedBackbone

COMMAND = "ibot visualize-attention"
NUMBERS, PCA = "attention.json", "pca"
Progress = Callable[[str, int, int], None]


def default_folder(weights: str) -> Path:
    """`figures/attention` in a run, else `attention` here."""
    return Path(weights) / "figures" / "attention" if is_run(Path(weights)) else Path("attention")


def check_attention_folder(folder: Path) -> None:
    """Refuse, before anything is computed, a folder that could not hold the figures or holds something else.

    Raises:
        UsageError: See `check_figure_folder`.
    """
    check_figure_folder(folder, mark=NUMBERS, made_by=COMMAND, names=("*.png", NUMBERS))


def draw_attention(
    folder: Path,
    loaded: LoadedBackbone,
    places: Sequence[str],
    options: AttentionOptions,
    *,
    progress: Progress | None = None,
) -> AttentionResult:
    """Draw what a network attends to in images; the files appear together, or not at all.

    Where the network's attention cannot be drawn and patch features are asked for, those alone are drawn, with a note.

    Args:
        folder: Replaced if an earlier call has filled it; see `check_attention_folder`.
        loaded: The network.
        places: Image files and DATA.
        options: What to draw.
        progress: Called with the stage, the images done and their total.

    Raises:
        UsageError: The size does not do, a point lies outside an image, or the class token is asked for and there is
            none.
        DataError: An image file cannot be read or is too long, or nothing of DATA can be read; the folder cannot be
            written.
        WeightsError: The network has no patches, or its attention cannot be read.
    """
    left_out = _why_left_out(loaded, options)
    notes = _cls_notes(loaded, options) if left_out is None else [left_out]
    opened = open_pictures(
        places,
        lambda levels: whole_image(levels, loaded, options.size),
        channels=loaded.channels,
        bits=loaded.bits,
        num=options.num,
        seed=options.seed,
        taken=[PCA],
    )
    queries = [[] if left_out else _queries(picture, options) for picture in opened.pictures]
    with filled_folder(folder) as place:
        images = []
        for picture, asked in zip(opened.pictures, queries, strict=True):
            images.append(_draw_image(place, loaded, picture, asked, options))
            if progress is not None:
                progress("images", len(images), len(queries))
        result = AttentionResult(
            made_by=COMMAND,
            weights=loaded.description,
            weights_hash=loaded.weights_hash,
            folder=str(folder),
            mass=options.mass,
            threshold=options.threshold,
            images=tuple(images),
            pca=_draw_pca(place, loaded, opened.pictures, options) if options.pca else None,
            unreadable=opened.unreadable,
            notes=(*notes, *opened.notes, *each_left_out(opened.unreadable)),
        )
        write_json(place / NUMBERS, asdict(result))
    return result


def _why_left_out(loaded: LoadedBackbone, options: AttentionOptions) -> str | None:
    """None where attention can be drawn; a sentence where it cannot be, and patch features are asked for."""
    try:
        check_attention(loaded, [(0, 0)] if options.at else [CLS])
    except (UsageError, WeightsError) as error:
        if not options.pca:
            raise
        return f"{error.message} Only the patch features are drawn."
    return None


def _cls_notes(loaded: LoadedBackbone, options: AttentionOptions) -> list[str]:
    return [] if options.at else attention_notes(loaded)


def _queries(picture: Picture, options: AttentionOptions) -> list[Query]:
    if not options.at:
        return [CLS]
    return [_patch(picture, x, y) for x, y in options.at]


def _patch(picture: Picture, x: float, y: float) -> tuple[int, int]:
    whole = picture.whole
    patch = whole.patch_at(x, y)
    if patch is not None:
        return patch
    width, height = whole.source_size
    left, top, right, bottom = whole.seen
    if 0 <= x < width and 0 <= y < height:
        raise UsageError(
            f"--at {x:g},{y:g} lies on an edge of {picture.path} that is cut away for whole patches.",
            f"The network sees {left:.0f} to {right:.0f} across and {top:.0f} to {bottom:.0f} down; another --size "
            "cuts elsewhere.",
        )
    raise UsageError(
        f"--at {x:g},{y:g} lies outside {picture.path}, which is {width} x {height} pixels.",
        "X counts from the left and Y from the top, in pixels of the image file.",
    )


def _draw_image(
    place: Path, loaded: LoadedBackbone, picture: Picture, queries: Sequence[Query], options: AttentionOptions
) -> ImageFigures:
    whole = picture.whole
    points = options.at if options.at else (None,)
    figures, found = [], []
    maps = list(attention_maps(loaded, whole, queries, options.device)) if queries else []
    for query, point, heads in zip(queries, points if queries else (), maps, strict=True):
        patch = None if query == CLS else query
        title = f"{picture.name}: {_wording(point, options)}"
        figures.append(attention_figure(whole, heads, threshold=options.threshold, query=patch, title=title))
        found.append(QueryFigures(at=point, patch=patch, heads=head_figures(heads, options.mass)))
    file = f"{picture.name}.png"
    if figures:
        _write(place / file, stacked(figures))
    return ImageFigures(
        path=picture.path,
        file=file if figures else None,
        source_size=whole.source_size,
        seen=whole.seen,
        size=whole.shown.size,
        grid=whole.grid,
        queries=tuple(found),
    )


def _wording(point: tuple[float, float] | None, options: AttentionOptions) -> str:
    who = "the class token" if point is None else f"the patch at {point[0]:g}, {point[1]:g}"
    most = "" if options.threshold is None else f"; the fewest patches with {options.threshold:.0%} of it"
    return f"what {who} attends to{most}"


def _draw_pca(
    place: Path, loaded: LoadedBackbone, pictures: Sequence[Picture], options: AttentionOptions
) -> PcaFigures:
    wholes = [picture.whole for picture in pictures]
    colours = patch_colours([patch_features(loaded, whole, options.device) for whole in wholes])
    file = f"{PCA}.png"
    _write(place / file, pca_figure(wholes, colours, [picture.name for picture in pictures]))
    return PcaFigures(file=file, explained=colours.explained)


def _write(path: Path, image: Image.Image) -> None:
    write_atomically(path, lambda file: image.save(file, format="PNG", optimize=True))
