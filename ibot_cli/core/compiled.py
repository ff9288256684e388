"""The blocks of a backbone, and the losses of an objective, in compiled form."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ibot_cli.core.backbone import Backbone
from ibot_cli.core.losses import score_chunk
from ibot_cli.core.objective import Objective

Backend = str | Callable[..., Any]
# Of one function: blocks of student and teacher, with and without gradient, the last ones in four sizes each.
MOST_SHAPES = 64


class CompiledBlock:
    """A block's function, compiled where its shapes come back; evaluations, whose shapes may not, run it as it is.

    Args:
        plain: See `Backbone.run_block`.
        backend: Of `torch.compile`.
        ragged: Whether the rows that are wanted of the last block change in number from batch to batch; it then runs
            as it is.
    """

    def __init__(self, plain: Callable[..., Tensor], backend: Backend, *, ragged: bool) -> None:
        self.plain, self.ragged = plain, ragged
        self._compiled: Callable[..., Tensor] = torch.compile(plain, backend=backend, dynamic=False, fullgraph=True)

    def __call__(self, block: nn.Module, *inputs: Any) -> Tensor:
        """As the plain function."""
        changing = self.ragged and len(inputs) > 3 and inputs[3] is not None
        return (self._compiled if block.training and not changing else self.plain)(block, *inputs)


def compile_blocks(backbone: Backbone, backend: Backend = "inductor", *, ragged: bool) -> None:
    """Puts a `CompiledBlock` in the place of the backbone's function; nothing is compiled before it is called."""
    _configure()
    backbone.run_block = CompiledBlock(backbone.run_block, backend, ragged=ragged)


def plain_blocks(backbone: Backbone) -> None:
    """Undoes `compile_blocks`."""
    if isinstance(backbone.run_block, CompiledBlock):
        backbone.run_block = backbone.run_block.plain


def compile_losses(objective: Objective, backend: Backend = "inductor") -> None:
    """Compiles what is done with a chunk of scores, when it is called."""
    _configure()
    objective.score_chunk = torch.compile(score_chunk, backend=backend, dynamic=False, fullgraph=True)


def plain_losses(objective: Objective) -> None:
    """Undoes `compile_losses`."""
    objective.score_chunk = score_chunk


def _configure() -> None:
    """Room for all shapes; and the compiler works in this process only, so nothing of it stays behind."""
    # It warns of a missing GPU also where blocks are compiled for the CPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_SHAPES)
    inductor.compile_threads = 1
