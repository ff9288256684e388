"""`inspect_weights`: what a weights file is, what it holds, and whether it looks trained, collapsed or broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ibot_cli.core.heads import BatchNorm, Head
from ibot_cli.evaluate.inspection.architecture import Architecture, describe_architecture
from ibot_cli.evaluate.inspection.opening import Opened, open_weights
from ibot_cli.evaluate.inspection.probe import Probe, probe
from ibot_cli.evaluate.inspection.signs import Signs, find_faults, prototype_layers, read_signs, untrained
from ibot_cli.evaluate.inspection.spread import Duplicates, duplicates_of
from ibot_cli.evaluate.inspection.verdict import Evidence, Verdict, judge
from ibot_cli.quantities import counted
from ibot_cli.weights.loaded import LoadedBackbone, Which
from ibot_cli.weights.origin import Origin
from ibot_cli.weights.statistics import PartStatistics, distance, measure_parts


@dataclass(frozen=True, kw_only=True)
class HeadSizes:
    """A projection head; see `ibot_cli.core.heads.Head`. `patch_prototypes` is None where they are shared."""

    prototypes: int
    patch_prototypes: int | None
    hidden_size: int
    bottleneck_size: int
    num_layers: int
    norm: str
    separate_mlp: bool
    duplicates: tuple[Duplicates, ...]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How images are prepared; see `ibot_cli.data.transform.eval_transform`."""

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of the tensors of the file.

    Attributes:
        loaded: Tensors of the network that came from the file.
        unused: Names in the file that are known and not needed.
        missing: Names that the network has and the file has not, or in another shape.
        unexpected: Names in the file that the network has not.
        refusal: Why every other command refuses the file without --partial; None where it does not.
    """

    loaded: int
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    refusal: str | None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is known of weights.

    Attributes:
        weights: As given.
        origin: What the file says about itself.
        architecture: Of the backbone.
        parameters: By `backbone`, `head`, `classifier`, as far as there are any.
        head: Of the projection head; None without one.
        classes: Names; None without a classifier.
        preprocessing: Of images.
        account: Of the tensors.
        parts: Norms and scales, part by part.
        apart: Distance of the other network of the file over this one's norm; None without another.
        other: Its name.
        other_non_finite: Its NaN and infinite numbers.
        signs: Of training; None where numbers are not finite.
        probe: Answers to images; None where nobody looked.
        unprobed: Why nobody looked.
        verdict: In words.
        weights_hash: sha256 of the network.
        notes: What the user should be told.
    """

    weights: str
    origin: Origin
    architecture: Architecture
    parameters: Mapping[str, int]
    head: HeadSizes | None
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing
    account: Account
    parts: tuple[PartStatistics, ...]
    apart: float | None
    other: str | None
    other_non_finite: int
    signs: Signs | None
    probe: Probe | None
    unprobed: str | None
    verdict: Verdict
    weights_hash: str
    notes: tuple[str, ...]


def inspect_weights(
    weights: str,
    *,
    which: Which | None = None,
    heads: int | None = None,
    data: str | None = None,
    features: bool = True,
) -> Inspection:
    """Look at weights; no generator is touched.

    Args:
        weights: As `ibot_cli.weights.load.load_weights` takes it; a file from which something is missing too.
        which: The network of a file that holds two; None is the teacher where there is one.
        heads: Attention heads of a foreign ViT of unusual width.
        data: Images to look at; embedded ones if None.
        features: Whether images are looked at.

    Raises:
        WeightsError: Nothing can be loaded.
        RunError: A run's checkpoints cannot be read.
        DataError: `data` cannot be read.
    """
    opened = open_weights(weights, which, heads)
    loaded = opened.loaded
    faults = find_faults(opened.tensors)
    parts = tuple(measure_parts(opened.tensors, opened.other))
    finite = all(part.non_finite == 0 for part in parts)
    signs = read_signs(loaded.backbone) if finite and not loaded.missing else None
    unprobed = _unprobed(finite, loaded, signs, features)
    found = probe(loaded, data) if unprobed is None else unprobed
    evidence = Evidence(
        faults=faults,
        missing=loaded.missing,
        total=len(opened.tensors) + len(loaded.missing),
        signs=signs,
        probe=found if isinstance(found, Probe) else None,
        unprobed=found if isinstance(found, str) else None,
        done=_done(loaded.origin),
    )
    return Inspection(
        weights=weights,
        origin=loaded.origin,
        architecture=describe_architecture(loaded),
        parameters=_parameters(loaded),
        head=None if loaded.head is None else _head_sizes(loaded.head, finite),
        classes=loaded.classes,
        preprocessing=Preprocessing(
            image_size=loaded.image_size,
            channels=loaded.channels,
            mean=loaded.mean,
            std=loaded.std,
            crop_ratio=loaded.crop_ratio,
        ),
        account=_account(opened),
        parts=parts,
        apart=None if opened.other is None or not finite else distance(opened.tensors, opened.other),
        other=_other_name(opened),
        other_non_finite=_non_finite(opened),
        signs=signs,
        probe=evidence.probe,
        unprobed=evidence.unprobed,
        verdict=judge(evidence),
        weights_hash=loaded.weights_hash,
        notes=opened.notes,
    )


def _unprobed(finite: bool, loaded: LoadedBackbone, signs: Signs | None, wanted: bool) -> str | None:
    """Why images are not looked at; weights from before training are what features would be compared with."""
    if not wanted:
        return "--no-features"
    if not finite:
        return "its numbers are not finite"
    if loaded.missing:
        return "tensors are missing"
    return "the weights are those of a network before training" if signs is not None and untrained(signs) else None


def _done(origin: Origin) -> str | None:
    if origin.step:
        return counted(origin.step, "step")
    return counted(origin.epoch, "epoch") if origin.epoch else None


def _account(opened: Opened) -> Account:
    return Account(
        loaded=len(opened.tensors),
        unused=opened.unused,
        missing=opened.loaded.missing,
        unexpected=opened.unexpected,
        refusal=opened.refusal,
    )


def _parameters(loaded: LoadedBackbone) -> dict[str, int]:
    backbone = loaded.backbone if loaded.classifier is None else loaded.classifier.backbone
    found = {"backbone": sum(parameter.numel() for parameter in backbone.parameters())}
    if loaded.head is not None:
        found["head"] = sum(parameter.numel() for parameter in loaded.head.parameters())
    if loaded.classifier is not None:
        whole = sum(parameter.numel() for parameter in loaded.classifier.parameters())
        found["classifier"] = whole - found["backbone"]
    return found


def _head_sizes(head: Head, finite: bool) -> HeadSizes:
    linear = [layer for layer in head.mlp if isinstance(layer, torch.nn.Linear)]
    layers = prototype_layers(head)
    return HeadSizes(
        prototypes=len(layers[0]),
        patch_prototypes=len(layers[1]) if len(layers) > 1 else None,
        hidden_size=linear[0].out_features,
        bottleneck_size=linear[-1].out_features,
        num_layers=len(linear),
        norm="batch" if any(isinstance(layer, BatchNorm) for layer in head.mlp) else "none",
        separate_mlp=head.mlp2 is not None,
        duplicates=tuple(duplicates_of(layer) for layer in layers) if finite else (),
    )


def _other_name(opened: Opened) -> str | None:
    origin = opened.loaded.origin
    names = [name for name in origin.networks if name != origin.which]
    return names[0] if names and opened.other is not None else None


def _non_finite(opened: Opened) -> int:
    tensors = (opened.other or {}).values()
    return sum(int((~torch.isfinite(tensor)).sum()) for tensor in tensors if tensor.is_floating_point())
