"""`find_patterns`: the patches that a network's head puts into the same prototype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from ibot_cli.core.heads import Head
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import EvalTransform, eval_transform
from ibot_cli.errors import DataError, UsageError, WeightsError
from ibot_cli.evaluate.faults import left_out
from ibot_cli.evaluate.precision import check_precision
from ibot_cli.visualize.patterns.assignment import NetworkAssigner, evaluating, num_prototypes
from ibot_cli.visualize.patterns.center import Scale, StageProgress, find_scale
from ibot_cli.visualize.patterns.collector import Candidates, Collector
from ibot_cli.visualize.patterns.geometry import Geometry
from ibot_cli.visualize.patterns.measurement import Measurement, measure
from ibot_cli.visualize.patterns.result import Member, Pattern, PatternOptions, Patterns
from ibot_cli.visualize.patterns.selection import (
    check_options,
    class_share,
    members_class,
    overall_purity,
    select,
)
from ibot_cli.visualize.patterns.wording import item, items
from ibot_cli.weights.load import LoadedBackbone

__all__ = ["PatternOptions", "find_patterns", "require_head"]


def find_patterns(
    loaded: LoadedBackbone, source: Source, options: PatternOptions, *, progress: StageProgress | None = None
) -> Patterns:
    """Assign every patch of every image to a prototype, and gather the best patches of those that are shown.

    No global generator is touched, and neither the number of loader processes nor (up to rounding in the network) the
    size of the batches changes anything. Memory is that of K x `top_k` members, and 8 bytes per image.

    Args:
        loaded: Weights with a head.
        source: The images; labels, where there are any, give purities.
        options: What to look for.
        progress: Called with the stage, what is done and its total.

    Raises:
        WeightsError: The weights have no head, or give scores that are not finite.
        UsageError: The options do not fit the weights or the images; see `check_options`.
        DataError: No image can be read, or none has a patch to show.

    Source:
        iBOT (arXiv 2111.07832), figures 4 and 14 to 17, from the authors' `extract_topk_cluster`: raw scores choose the
        prototype and rank its patches, one per image, and dark windows are left out. Here they are left out before the
        best are chosen.
    """
    head = require_head(loaded)
    check_precision(options.precision)
    check_options(options, num_prototypes(head, options.kind), source.labels is not None)
    device, transform = torch.device(options.device), preparation(loaded)
    with evaluating(device, loaded.backbone, head):
        scale = find_scale(loaded.scale, loaded.backbone, head, source, transform, options, progress)
        assigner = network_assigner(loaded, scale, options)
        report = None if progress is None else partial(progress, "patterns")
        found = measure([assigner], source, transform, patch_side(loaded), options, progress=report)
    return _patterns(loaded, source, options, found, scale.notes)


def require_head(loaded: LoadedBackbone) -> Head:
    """The projection head.

    Raises:
        WeightsError: There is none.
    """
    if loaded.head is not None:
        return loaded.head
    what = "are fine-tuned: their projection head was replaced by a classifier" if loaded.classifier else "have no head"
    raise WeightsError(
        f"{loaded.description}: these weights {what}, and patterns are the head's prototypes.",
        "Use the pre-training run, or a full checkpoint with teacher and head; `ibot cluster` groups images without.",
    )


def network_assigner(loaded: LoadedBackbone, scale: Scale, options: PatternOptions) -> NetworkAssigner:
    """Of weights with a head; both have to be on the options' device, in evaluation mode.

    Raises:
        WeightsError: There is no head.
    """
    return NetworkAssigner(
        loaded.backbone,
        require_head(loaded),
        options.kind,
        center=scale.center,
        temp=scale.temp,
        precision=options.precision,
        description=loaded.description,
    )


def preparation(loaded: LoadedBackbone) -> EvalTransform:
    """The evaluation transform of these weights."""
    found = eval_transform(*loaded.preparation)
    assert isinstance(found, EvalTransform)
    return replace(found, bits=loaded.bits)


def patch_side(loaded: LoadedBackbone) -> int:
    """Pixels per patch token and side."""
    stride = loaded.backbone.stride
    assert isinstance(stride, int)
    return stride


def _patterns(
    loaded: LoadedBackbone, source: Source, options: PatternOptions, found: Measurement, notes: Sequence[str]
) -> Patterns:
    collector = found.collectors[0]
    selection = select(collector, options)
    if not selection.prototypes:
        raise _nothing_to_show(source, options, collector)
    transform, stride = preparation(loaded), patch_side(loaded)
    bright = int(collector.counts.sum())
    return Patterns(
        kind=options.kind,
        order=options.order if options.prototypes is None else "chosen",
        window=options.window,
        top_k=options.top_k,
        min_brightness=options.min_brightness,
        min_count=selection.min_count,
        num_prototypes=collector.num_prototypes,
        used=int((collector.counts > 0).sum()),
        num_images=collector.num_images,
        num_patches=collector.num_images * collector.num_patches,
        num_dark=int(collector.dark.sum()),
        grid=found.grid,
        patterns=tuple(
            _pattern(number, source, options, found, transform, stride, bright) for number in selection.prototypes
        ),
        classes=_class_names(source),
        overall_purity=None if source.labels is None else overall_purity(collector),
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        data=source.name,
        fingerprint=source.fingerprint,
        unreadable=found.unreadable,
        warnings=(*loaded.notes, *selection.warnings, *left_out(found.unreadable)),
        notes=(*notes, *_dark_notes(loaded, options, collector)),
    )


def _pattern(
    number: int,
    source: Source,
    options: PatternOptions,
    found: Measurement,
    transform: EvalTransform,
    stride: int,
    bright: int,
) -> Pattern:
    collector = found.collectors[0]
    rows, count = collector.members(number), int(collector.counts[number])
    label, share = (None, None) if source.labels is None else class_share(collector, number)
    theirs = (None, None) if source.labels is None else members_class(source.labels[rows.image], label)
    return Pattern(
        prototype=number,
        count=count,
        share=count / bright,
        probability=float(collector.probability_sum[number] / count),
        dark=int(collector.dark[number]),
        label=label,
        purity=share,
        members_label=theirs[0],
        members_purity=theirs[1],
        members=tuple(_member(rows, row, source, options, found, transform, stride) for row in range(len(rows))),
    )


def _member(
    rows: Candidates,
    row: int,
    source: Source,
    options: PatternOptions,
    found: Measurement,
    transform: EvalTransform,
    stride: int,
) -> Member:
    index = int(rows.image[row])
    width, height = found.sizes[index].tolist()
    geometry = Geometry.of(width, height, transform)
    at = divmod(int(rows.patch[row]), found.grid[1]) if options.kind == "patch" else None
    return Member(
        index=index,
        path=source.path(index),
        label=None if source.labels is None else int(source.labels[index]),
        row=None if at is None else at[0],
        column=None if at is None else at[1],
        score=float(rows.score[row]),
        probability=float(rows.probability[row]),
        box=geometry.seen if at is None else geometry.patch(*at, stride),
        window=geometry.seen if at is None else geometry.window(*at, stride, options.window),
        seen=geometry.seen,
    )


def _class_names(source: Source) -> tuple[str, ...] | None:
    if source.labels is None:
        return None
    if source.classes is not None:
        return tuple(source.classes)
    return tuple(str(label) for label in range(int(source.labels.max()) + 1))


def _dark_notes(loaded: LoadedBackbone, options: PatternOptions, collector: Collector) -> list[str]:
    if loaded.bits != 8:
        return ["Nothing counts as dark: images of 16 bits have no common scale of brightness."]
    total, dark = collector.num_images * collector.num_patches, int(collector.dark.sum())
    if dark == 0:
        return []
    verbs = ("is", "was") if dark == 1 else ("are", "were")
    return [f"{dark:,} of {items(options.kind, total)} {verbs[0]} dark and {verbs[1]} left out ({dark / total:.1%})."]


def _nothing_to_show(source: Source, options: PatternOptions, collector: Collector) -> DataError | UsageError:
    if not collector.counts.any():
        return DataError(
            f"Every {item(options.kind)} of {source.name} is dark: "
            f"none is brighter than {options.min_brightness:g} of 255.",
            "Lower the minimal brightness; below 0 it keeps everything.",
        )
    named = ", ".join(map(str, dict.fromkeys(options.prototypes or ())))
    return UsageError(
        f"No {item(options.kind)} of {source.name} belongs to prototype {named}.",
        "Name others, or none to see the most populated ones.",
    )
