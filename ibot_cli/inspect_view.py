"""How `ibot inspect` tells what it found: what it is, the verdict, then the details."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ibot_cli import console
from ibot_cli.quantities import counted

if TYPE_CHECKING:
    from ibot_cli.evaluate.inspection.inspection import HeadSizes, Inspection
    from ibot_cli.weights.statistics import PartStatistics

_ALL_BLOCKS, _ENDS = 8, 2
_NAMES, _CLASSES = 6, 12


def show(found: Inspection) -> None:
    """The report, on stderr."""
    console.table(["weights", found.weights], _facts(found), keep=["weights"])
    console.note("")
    reasons = [(reason.about, reason.text) for reason in found.verdict.reasons]
    console.table(["looked at", "what it says"], reasons, keep=["looked at"])
    console.note("")
    _show_parts(found)
    for text in found.notes:
        console.warn(text)
    if found.other_non_finite:
        console.warn(f"The {found.other} holds {found.other_non_finite:,} numbers that are NaN or infinite.")
    if found.account.refusal is not None:
        console.warn(f"Other commands load it with --partial only. {found.account.refusal}")


def _facts(found: Inspection) -> list[tuple[str, str]]:
    origin = found.origin
    rows = [("what", _layout(found)), ("verdict", f"{found.verdict.state}: {_lower(found.verdict.text)}")]
    if origin.path != found.weights:
        rows.append(("file", origin.path))
    if origin.networks:
        both = f"; the file holds {' and '.join(origin.networks)}" if len(origin.networks) > 1 else ""
        rows.append(("network", f"{origin.which}{both}"))
    if trained := _training(found):
        rows.append(("training", trained))
    rows.append(("architecture", found.architecture.sentence()))
    rows.append(("parameters", ", ".join(f"{name} {_count(count)}" for name, count in found.parameters.items())))
    if found.head is not None:
        rows.append(("head", _head(found.head)))
    if found.classes is not None:
        rows.append(("classes", _listed(found.classes, _CLASSES)))
    rows += [("images", _images(found)), ("tensors", _tensors(found))]
    rows += [(label, _listed(names, _NAMES)) for label, names in _unfit(found)]
    if origin.config is not None or origin.arguments:
        rows.append(("config", "inside; --config prints it"))
    return rows


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _layout(found: Inspection) -> str:
    run = "" if found.origin.run is None else f" in the run {found.origin.run}"
    return found.origin.layout + (run if str(found.origin.run) != found.weights else "")


def _training(found: Inspection) -> str:
    origin = found.origin
    parts = [origin.method or ""]
    parts += [f"epoch {origin.epoch:,}"] if origin.epoch is not None else []
    parts += [f"step {origin.step:,}"] if origin.step is not None else []
    return ", ".join(part for part in parts if part)


def _head(head: HeadSizes) -> str:
    if head.patch_prototypes is None:
        text = f"{head.prototypes:,} prototypes, shared by class token and patches"
    else:
        text = f"{head.prototypes:,} prototypes of class tokens, {head.patch_prototypes:,} of patches"
    batch = ", batch norm" if head.norm == "batch" else ""
    layers = counted(head.num_layers, "layer")
    mlp = "an MLP each" if head.separate_mlp else "MLP"
    return f"{text}; {mlp} of {layers}, {head.hidden_size:,} wide, bottleneck {head.bottleneck_size}{batch}"


def _images(found: Inspection) -> str:
    used = found.preprocessing
    mean, std = (" ".join(f"{value:.3f}" for value in values) for values in (used.mean, used.std))
    return f"{used.image_size} px, centre crop {used.crop_ratio:g}, mean {mean}, deviation {std}"


def _tensors(found: Inspection) -> str:
    account = found.account
    counts = (
        (account.unused, "known and not needed"),
        (account.missing, "missing"),
        (account.unexpected, "unexpected"),
    )
    more = [f"{len(names)} {label}" for names, label in counts if names]
    return ", ".join([f"{account.loaded} loaded", *(more or ["nothing missing, nothing left over"])])


def _unfit(found: Inspection) -> list[tuple[str, Sequence[str]]]:
    account = found.account
    groups = (("not needed", account.unused), ("missing", account.missing), ("unexpected", account.unexpected))
    return [(label, names) for label, names in groups if names]


def _show_parts(found: Inspection) -> None:
    apart = found.apart is not None
    columns = ["part", "parameters", "rms", "smallest", "largest"]
    rows = [_part(part, apart) for part in _shortened(found.parts)]
    columns += [f"{found.other} apart"] if apart else []
    bad = any(part.non_finite for part in found.parts)
    columns += ["not finite"] if bad else []
    rows = [row if bad else row[: len(columns)] for row in rows]
    console.table(columns, rows, right=columns[1:], keep=columns)
    for text in _remarks(found):
        console.note(text)


def _shortened(parts: Sequence[PartStatistics]) -> list[PartStatistics | int]:
    """Of many blocks (and reductions of a Swin) the first and the last, and how many there are between."""
    blocks = [index for index, part in enumerate(parts) if "block " in part.part or "reduction" in part.part]
    if len(blocks) <= _ALL_BLOCKS:
        return list(parts)
    sound = [index for index in blocks[_ENDS:-_ENDS] if not parts[index].non_finite]
    shown: list[PartStatistics | int] = []
    for index, part in enumerate(parts):
        if index not in sound:
            shown.append(part)
        elif index == sound[0]:
            shown.append(len(sound))
    return shown


def _part(part: PartStatistics | int, apart: bool) -> tuple[str, ...]:
    if isinstance(part, int):
        return (f"... {part} more", *[""] * (5 + apart))
    numbers = [_number(value) for value in (part.rms, part.smallest, part.largest)]
    share = ["" if part.distance is None else f"{part.distance:.1%}"] if apart else []
    return (part.part, _count(part.parameters), *numbers, *share, str(part.non_finite or ""))


def _remarks(found: Inspection) -> list[str]:
    remarks = []
    if found.apart is not None:
        remarks.append(f"The {found.other} is {found.apart:.1%} of the {found.origin.which}'s norm away from it.")
    for layer, name in zip(
        found.head.duplicates if found.head else (), ("prototypes", "patch prototypes"), strict=False
    ):
        seen = "" if layer.looked_at == layer.prototypes else f" of {layer.looked_at:,} that were compared"
        if layer.share:
            remarks.append(f"{layer.share:.1%} of the {name}{seen} point the same way as another (cosine above 0.975).")
    return remarks


def _listed(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _count(count: int) -> str:
    if count >= 1e6:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e3:.1f} k" if count >= 1e3 else str(count)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
