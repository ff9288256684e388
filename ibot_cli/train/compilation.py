"""Compiled blocks and losses in a run: tried before the first update, left out where the compiler fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ibot_cli import distributed
from ibot_cli.config.schema import Config
from ibot_cli.core.backbone import Backbone
from ibot_cli.core.batch import Batch
from ibot_cli.core.buckets import bucket_sizes, fitting
from ibot_cli.core.compiled import Backend, compile_blocks, compile_losses, plain_blocks, plain_losses
from ibot_cli.core.masking import MaskSampler
from ibot_cli.core.objective import Objective
from ibot_cli.errors import TrainingError
from ibot_cli.train.build import masks_of
from ibot_cli.train.choices import Choice
from ibot_cli.train.out_of_memory import OutOfMemory, fits
from ibot_cli.train.reporter import Reporter

COMPILE = "runtime.compile"


class Compilation:
    """The compiled blocks of a run's backbones.

    Attributes:
        active: Whether the blocks are compiled.
        due: Whether the compiler was not tried yet.

    Args:
        backbones: Those whose blocks are compiled; none for a run without a compiler.
        device: Where processes agree.
        required: Whether a failing compiler ends the run; otherwise the run goes on without it.
        ragged: See `CompiledBlock`.
        objective: Whose losses are compiled too.
        masks: What draws the masks, where masked patches are padded to few sizes.
        backend: Of `torch.compile`.
    """

    def __init__(
        self,
        backbones: Sequence[Backbone],
        device: torch.device,
        *,
        required: bool = False,
        ragged: bool = False,
        objective: Objective | None = None,
        masks: MaskSampler | None = None,
        backend: Backend = "inductor",
    ) -> None:
        self._backbones, self._device, self._required = backbones, device, required
        self._objective, self._masks = objective, masks
        self._sizes: dict[int, tuple[int, ...]] = {}
        self.active = self.due = bool(backbones)
        for backbone in backbones:
            compile_blocks(backbone, backend, ragged=ragged)
        if objective is not None:
            compile_losses(objective, backend)

    @classmethod
    def of_objective(
        cls,
        objective: Objective,
        config: Config,
        device: torch.device,
        *,
        required: bool,
        backend: Backend = "inductor",
    ) -> Compilation:
        """Of both networks of a pre-training, if its configuration says so."""
        networks = (objective.student, objective.teacher) if config.runtime.compile else ()
        padding = config.head.norm != "batch"  # it would count the padding
        return cls(
            [network.backbone for network in networks],
            device,
            required=required,
            ragged=not padding,
            objective=objective if config.runtime.compile and padding else None,
            masks=masks_of(config) if padding else None,
            backend=backend,
        )

    def padded(self, batch: Batch) -> Batch:
        """The batch with its masked patches in one of at most four sizes, where blocks are compiled."""
        if not self.active or self._masks is None:
            return batch
        views = len(batch.global_views) * batch.num_images
        if views not in self._sizes:
            self._sizes[views] = bucket_sizes(self._masks, views)
        return batch.padded(fitting(self._sizes[views], len(batch.mask_index)))

    def try_out(self, passes: Callable[[], object], forget: Callable[[], None], reporter: Reporter) -> bool:
        """Compiles, if that is due, by forward and backward passes that do not count.

        No process waits for another one while it compiles; afterwards all of them use the compiled blocks or none.
        Passes that do not fit into memory are left to the step itself, and compiling stays due.

        Args:
            passes: Passes as training has them.
            forget: Drops what they leave.
            reporter: Is told that it takes a while, and why there is no compiling after all.

        Returns:
            Whether it was due.

        Raises:
            TrainingError: The compiler failed and is required.
        """
        if not self.due:
            return False
        reporter.say("Compiling the networks' blocks; this takes a minute or so, once.")
        reason, lacking = self._attempt(passes, forget)
        self.due = distributed.any_rank(lacking, self._device)
        if distributed.any_rank(reason is not None, self._device):
            self._end()
            self._report(reason or "it failed in another process", reporter)
        return True

    def _report(self, reason: str, reporter: Reporter) -> None:
        if self._required:
            raise TrainingError(
                f"{COMPILE} is on, but the compiler failed: {reason}.",
                f"Set {COMPILE}=off (a run goes on with --resume), or repair the compiler: a C++ compiler on a CPU, "
                "Triton on a GPU.",
            )
        reporter.warn(
            f"Blocks are not compiled, because the compiler failed: {reason}. Steps take longer; nothing else changes."
        )

    def _attempt(self, passes: Callable[[], object], forget: Callable[[], None]) -> tuple[str | None, bool]:
        """Why the compiler failed in this process, or None; and whether memory was lacking."""
        with distributed.alone():
            try:
                passes()
            except OutOfMemory:
                return None, True
            except Exception as error:
                self._end()
                forget()
                # what fails without a compiler too is not the compiler's failure; too little memory is the step's
                return _reason(error), not fits(passes)
            finally:
                forget()
        return None, False

    def _end(self) -> None:
        self.active = self.due = False
        for backbone in self._backbones:
            plain_blocks(backbone)
        if self._objective is not None:
            plain_losses(self._objective)


def asked_for(choices: Mapping[str, Choice], origin: Mapping[str, str], run_config: str) -> bool:
    """Whether the user wants compiling, rather than the plan, now or when the run began.

    Args:
        choices: Of the plan.
        origin: Of the plan.
        run_config: The run's configuration file, which holds what was decided when it began.
    """
    return COMPILE not in choices and origin.get(COMPILE) != run_config


def _reason(error: BaseException) -> str:
    """What went wrong at the bottom, in one line."""
    while (inner := getattr(error, "inner_exception", None) or error.__cause__) is not None:
        error = inner
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(":. ")[:300]
