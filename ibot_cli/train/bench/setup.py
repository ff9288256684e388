"""From what was asked for to a plan of steps to time: resolved as `ibot pretrain` resolves it, cut to a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ibot_cli import distributed
from ibot_cli.config.load import Resolved
from ibot_cli.data.probe import probe
from ibot_cli.data.sources import Source
from ibot_cli.errors import UsageError
from ibot_cli.train.arithmetic import CORE_FLOPS
from ibot_cli.train.bench.noise import Noise
from ibot_cli.train.bench.operations import count_operations
from ibot_cli.train.plan import Plan, known, make_plan
from ibot_cli.train.recipe import Recipe, settle, with_statistics
from ibot_cli.train.request import METHOD_PRESET, Request

BATCH, EPOCHS = 1024, 100
# A step that is timed on a CPU should take about so long; the sum over a few of them is what one waits for.
STEP_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What will be timed.

    Attributes:
        name: The recipe: a file, or else a preset.
        plan: Everything decided.
        source: The images.
        synthetic: Whether they are noise, so that no loading is timed.
    """

    name: str
    plan: Plan
    source: Source
    synthetic: bool


def prepare_bench(request: Request, batch_size: int | None = None) -> Bench:
    """Resolves the configuration, opens DATA if there is any and plans. Writes nothing.

    Args:
        request: As of `ibot pretrain`; without DATA the views are synthetic.
        batch_size: Images per step over all processes; None is what a process passes forward at once, on a CPU no more
            than take some seconds.

    Raises:
        ConfigError: Settings are wrong; all problems at once.
        UsageError: Flags do not go together.
        DataError: The images cannot be used.
    """
    if request.workers is not None and not request.data:
        raise UsageError(
            "--workers is for the loader, and without DATA nothing is loaded.", "Name DATA, or leave it out."
        )
    request = replace(request, preset=preset_of(request))
    name = request.base() if request.config is None else str(request.config)
    given = () if batch_size is None else (f"train.batch_size={batch_size}",)
    request = replace(request, sets=[*request.sets, *given])
    recipe = settle(request) if request.data else _synthetic(request)
    source, resolved = recipe.source, _without_monitoring(recipe.resolved)
    summary = source.summary() if isinstance(source, Noise) else probe(source)

    def planned(resolved: Resolved) -> Plan:
        return make_plan(
            resolved,
            source,
            summary,
            reference_epochs=recipe.reference_epochs,
            choices=recipe.choices,
            want_memory=True,
        )

    if _is_open(resolved, "train.batch_size"):
        most = min(known(resolved.config.train.batch_size), len(source)) // distributed.world()
        resolved = _with_batch(resolved, max(most, 1) * distributed.world())
        plan = planned(resolved)
        images = _affordable(plan) * distributed.world()
        if images != plan.schedule.batch_size:
            plan = planned(_with_batch(resolved, images))
    else:
        plan = planned(resolved)
    return Bench(name=name, plan=plan, source=source, synthetic=not request.data)


def preset_of(request: Request) -> str | None:
    """The preset to begin with: synthetic views suit every recipe, so none follows from the data."""
    return request.preset or (None if request.data else METHOD_PRESET)


def _synthetic(request: Request) -> Recipe:
    """Images of noise for a whole batch; they are loaded before anything is timed, by this process."""
    resolved = request.resolve()
    config = resolved.config
    batch, epochs = config.train.batch_size or BATCH, config.train.epochs or EPOCHS
    noise = Noise.for_views(config, batch)
    config = replace(
        config,
        train=replace(config.train, batch_size=batch, epochs=epochs),
        init=replace(config.init, freeze_backbone_epochs=config.init.freeze_backbone_epochs or 0),
        runtime=replace(config.runtime, workers=0),
    )
    resolved, choices = with_statistics(replace(resolved, config=config), noise)
    return Recipe(data=noise.name, source=noise, resolved=resolved, choices=choices, reference_epochs=epochs)


def _without_monitoring(resolved: Resolved) -> Resolved:
    monitor = replace(resolved.config.monitor, knn_epochs=0, tensorboard=False)
    return replace(resolved, config=replace(resolved.config, monitor=monitor))


def _is_open(resolved: Resolved, path: str) -> bool:
    """Whether nobody asked for this value: it is a recipe's."""
    return resolved.origin[path].startswith(("default", "preset", "chosen"))


def _with_batch(resolved: Resolved, images: int) -> Resolved:
    train = replace(resolved.config.train, batch_size=images)
    if _is_open(resolved, "train.micro_batch_size"):
        train = replace(train, micro_batch_size=None)
    return replace(resolved, config=replace(resolved.config, train=train))


def _affordable(plan: Plan) -> int:
    """What one process passes forward at once; on a CPU a power of two that takes about `STEP_SECONDS` at most."""
    if plan.device.type == "cuda":
        return plan.micro_batch_size
    rate = CORE_FLOPS["fp32"] * known(plan.config.runtime.threads)
    images = int(STEP_SECONDS * rate / count_operations(plan.config, 1, 0).total)
    return min(plan.micro_batch_size, 1 << max(images.bit_length() - 1, 0))
