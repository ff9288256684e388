"""Filling a network with tensors so that every name is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ibot_cli.errors import WeightsError

_LISTED = 8
Network = TypeVar("Network", bound=nn.Module | None)


class Part(NamedTuple):
    """A module and the tensors that are for it, under names with a prefix.

    Attributes:
        prefix: `backbone.`, `head.`, or empty.
        module: What is filled.
        tensors: Prefixed names.
    """

    prefix: str
    module: nn.Module
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Fit:
    """How tensors and a network go together; names with prefix.

    Attributes:
        fitting: Of the same name and shape.
        missing: The network has them, the file does not.
        unexpected: The file has them, the network does not.
        reshaped: Both have them, in other shapes: `NAME is [..], not [..]` by name.
    """

    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, unexpected or of another shape."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the network that no tensor fits."""
        return tuple(sorted((*self.missing, *self.reshaped)))

    def problems(self) -> str:
        """Everything that does not fit, for people; empty if `complete`."""
        groups = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", tuple(self.reshaped.values())),
        )
        return "; ".join(f"{label}: {listed(names)}" for label, names in groups if names)


def unfilled(build: Callable[[], Network]) -> Network:
    """What `build` makes, to be loaded as a whole: its weights are not drawn, which takes longer than all the rest.

    Memory is only reserved until it is filled.

    Args:
        build: Makes a network, or None. Called again, and its weights drawn, where that cannot be avoided: for tables
            that are computed while it is built, as Swin's.
    """
    try:
        with torch.device("meta"):
            network = build()
    except RuntimeError:  # it needs the value of a tensor
        return _drawn(build)
    if network is None:
        return network
    kept = network.state_dict().keys()
    if any(name not in kept for name, _ in network.named_buffers()):
        return _drawn(build)
    return network.to_empty(device="cpu")


def _drawn(build: Callable[[], Network]) -> Network:
    with torch.random.fork_rng(devices=[]):
        return build()


def listed(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def fit(parts: Sequence[Part]) -> Fit:
    """Compare names and shapes; nothing is loaded."""
    fitting, missing, unexpected, reshaped = [], [], [], {}
    for prefix, module, tensors in parts:
        wanted = {prefix + name: value for name, value in module.state_dict().items()}
        missing += sorted(wanted.keys() - tensors.keys())
        unexpected += sorted(tensors.keys() - wanted.keys())
        for name in sorted(wanted.keys() & tensors.keys()):
            problem = _difference(tensors[name], wanted[name])
            if problem is None:
                fitting.append(name)
            else:
                reshaped[name] = f"{name} is {problem}"
    return Fit(tuple(fitting), tuple(missing), tuple(unexpected), reshaped)


def _difference(found: Tensor, wanted: Tensor) -> str | None:
    """Why one cannot stand for the other; integers are codes of a compressed network, not its weights."""
    if found.shape != wanted.shape:
        return f"{list(found.shape)}, not {list(wanted.shape)}"
    if wanted.is_floating_point() and not found.is_floating_point():
        return f"{found.dtype}, not floating-point".removeprefix("torch.")
    return None


def fill(parts: Sequence[Part], origin: str) -> None:
    """Load all tensors of all parts.

    Args:
        parts: What is filled.
        origin: Where the tensors come from, for the message.

    Raises:
        WeightsError: Something is missing, unexpected or of another shape; all of it is listed and nothing is loaded.
    """
    found = fit(parts)
    if not found.complete:
        raise WeightsError(
            f"The tensors of {origin} do not fit the network. {found.problems()}.",
            "Nothing was loaded. --partial loads what fits and reports the rest.",
        )
    load_fitting(parts, found)


def load_fitting(parts: Sequence[Part], found: Fit) -> None:
    """Load what fits and leave the rest of the network as it is."""
    names = set(found.fitting)
    for prefix, module, tensors in parts:
        chosen = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name in names}
        module.load_state_dict(chosen, strict=False)


def check_enough(part: Part, origin: str) -> None:
    """Refuse to call it loaded where most of a network would be random.

    Raises:
        WeightsError: Less than half of the part's tensors fit.
    """
    found = fit([part])
    total = len(part.module.state_dict())
    if 2 * len(found.fitting) < total:
        raise WeightsError(
            f"Only {len(found.fitting)} of the {total} tensors of the backbone fit {origin}, less than half. "
            f"{found.problems()}.",
            "These are weights of another network; --partial is for a few tensors that are missing or left over.",
        )
