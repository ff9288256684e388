"""From a request to everything decided: resolve, look at weights and images, plan. Nothing is written here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ibot_cli import distributed
from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import Resolution, from_mapping, resolve, to_yaml
from ibot_cli.data.bad_files import BadLimits
from ibot_cli.data.places import anywhere
from ibot_cli.errors import DataError, RunError, UsageError
from ibot_cli.evaluate.labelled import open_labelled
from ibot_cli.runs.checkpoint import Checkpoint, latest
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.train.finetune.choices import choose_preset, recipe_choices
from ibot_cli.train.finetune.images import FinetuneImages, choose_images
from ibot_cli.train.finetune.plan import FinetunePlan, as_loaded, make_plan
from ibot_cli.train.finetune.request import FinetuneRequest
from ibot_cli.train.finetune.start import Start, starting_classifier
from ibot_cli.train.opening import bad_file_outlook, check_place
from ibot_cli.train.plan import known
from ibot_cli.train.request import openable_anywhere
from ibot_cli.train.resume import micro_batch_warnings, refuse_changes, require_task, resume_warnings, stored_data
from ibot_cli.weights.finetuned import TASK, unpack
from ibot_cli.weights.load import LoadedBackbone, Which, load_weights
from ibot_cli.weights.trainable import Trainable, trainable


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The weights that a run begins with.

    Attributes:
        weights: WEIGHTS, so that they are found from any working directory.
        heads: `--heads`.
        which: `--which`.
        partial: `--partial`.
        description: The weights in words.
        weights_hash: sha256 of their tensors.
        architecture: Says exactly what their backbone is.
    """

    weights: str
    heads: int | None
    description: str
    weights_hash: str
    architecture: str
    which: Which = "teacher"
    partial: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything decided, nothing written.

    Attributes:
        request: What was asked for.
        data: DATA, also where a resumed run remembers it.
        origin: The weights.
        start: The classifier before its first step.
        plan: The plan.
        out: The run directory.
        checkpoint: Where a resumed run goes on, or None to begin.
        refusal: Why the run would stop at once: more unreadable files than it accepts; or None.
    """

    request: FinetuneRequest
    data: str
    origin: Origin
    start: Start
    plan: FinetunePlan
    out: Path
    checkpoint: Checkpoint | None
    refusal: DataError | None


def prepare(request: FinetuneRequest, *, want_memory: bool = False) -> Prepared:
    """Resolves the configuration, looks at weights and images and makes the plan.

    Raises:
        ConfigError: Settings are wrong; all problems at once.
        UsageError: Options do not go together.
        WeightsError: The weights cannot be fine-tuned.
        DataError: The images cannot be used.
        RunError: The run directory cannot be used, or a resumed run was asked to change what it computes.
    """
    request.check()
    return _prepare_resumed(request, want_memory) if request.resume else _prepare_new(request, want_memory)


def _prepare_new(request: FinetuneRequest, want_memory: bool) -> Prepared:
    weights, data = known(request.weights), known(request.data)
    if request.out is not None:
        check_place(request.out)
    loaded = load_weights(weights, which=request.which, heads=request.heads, partial=request.partial)
    split = open_labelled(data, channels=loaded.channels, bits=loaded.bits)
    parts = trainable(loaded)
    preset, why = choose_preset(request, len(split.train.labels), parts.shape)
    resolved = request.resolve(preset)
    _use_threads(resolved.config)
    images = choose_images(split, resolved.config)
    # Asked twice: what suits depends on how many labels the settings leave.
    choices = recipe_choices(resolved, images.available, len(images.train.source), distributed.world())
    resolved = request.resolve(preset, choices)
    config = as_loaded(resolved.config, loaded)
    start = starting_classifier(loaded, parts, config, images.classes)
    plan = make_plan(
        Resolution(config, resolved.origin),
        images,
        start.shape,
        reference_epochs=resolve(root=FinetuneConfig, preset=preset, file=None, sets=()).config.train.epochs,
        choices={**({} if request.preset is not None else {"preset": (preset, why)}), **choices},
        want_memory=want_memory,
    )
    plan.warnings[:0] = loaded.notes
    _use_threads(plan.config)
    stamp = distributed.agree(time.strftime("%Y%m%d-%H%M%S"))
    out = request.out or Path("runs") / f"{preset}-{stamp}"
    origin = Origin(
        weights=openable_anywhere(weights),
        heads=request.heads,
        which=request.which,
        partial=request.partial,
        description=loaded.description,
        weights_hash=loaded.weights_hash,
        architecture=repr(parts.shape),
    )
    return _prepared(request, data, origin, start, plan, out, None)


def _prepare_resumed(request: FinetuneRequest, want_memory: bool) -> Prepared:
    if request.out is None:
        raise UsageError("--resume needs the run directory.", "Add --out DIR.")
    run = RunDirectory.open(request.out)
    require_task(run, TASK)
    about = stored_data(run)
    stored = from_mapping(yaml.safe_load(run.config.read_text()), str(run.config), FinetuneConfig)
    resolved = _asked(request, stored, run)
    _use_threads(stored)
    data = request.data or about["data"]
    split = open_labelled(data, channels=known(stored.data.channels), bits=stored.data.bits or 8)
    images = choose_images(split, resolved.config)
    _require_same_images(about, images)
    checkpoint = latest(run.checkpoints)
    origin = Origin(**about["origin"])
    start = _start_again(request, run, origin, resolved.config, images, checkpoint)
    plan = make_plan(
        resolved,
        images,
        start.shape,
        reference_epochs=stored.train.epochs,
        choices={},
        want_memory=want_memory,
    )
    train = images.train.source
    plan.warnings.extend(resume_warnings(run, train, plan.device, checkpoint))
    plan.warnings.extend(micro_batch_warnings(stored, plan.config))
    return _prepared(request, data, origin, start, plan, request.out, checkpoint)


def _asked(request: FinetuneRequest, stored: FinetuneConfig, run: RunDirectory) -> Resolution[FinetuneConfig]:
    """The run's configuration with what may change."""
    resolved = resolve(
        root=FinetuneConfig,
        preset=request.preset,
        file=request.config,
        sets=request.sets,
        base=yaml.safe_load(to_yaml(stored)),
        base_origin=str(run.config),
        flags=request.flags(),
    )
    refuse_changes(stored, resolved.config, run)
    return resolved


def _require_same_images(about: Mapping[str, Any], images: FinetuneImages) -> None:
    """The order and the labels of a run depend on them.

    Raises:
        DataError: There are other classes, or more or fewer training images.
    """
    if tuple(about["classes"]) != images.classes:
        raise DataError(
            f"The run learns the classes {', '.join(about['classes'])}; the data have {', '.join(images.classes)}.",
            "Restore the data, or start a new run.",
        )
    now = len(images.train.source)
    if about["num_images"] != now:
        raise DataError(
            f"The run trains on {about['num_images']:,} images; the data give {now:,}.",
            "Restore the data, or start a new run.",
        )


def _start_again(
    request: FinetuneRequest,
    run: RunDirectory,
    origin: Origin,
    config: FinetuneConfig,
    images: FinetuneImages,
    checkpoint: Checkpoint | None,
) -> Start:
    """The run's classifier: of its checkpoint, or of its weights where there is none yet.

    Raises:
        RunError: Other weights were named than the run began with.
    """
    if request.weights is not None or checkpoint is None:
        loaded = load_weights(
            request.weights or origin.weights,
            which=origin.which,
            heads=request.heads or origin.heads,
            partial=request.partial or origin.partial,
        )
        parts = trainable(loaded)
        _require_same_weights(run, origin, loaded, parts)
        if checkpoint is None:
            return starting_classifier(loaded, parts, config, images.classes)
    shape = unpack(known(checkpoint)).shape
    with torch.random.fork_rng(devices=[]):  # building draws weights that are overwritten by the loop
        model = shape.build()
    return Start(
        shape=shape, model=model, head=stored_data(run)["head"], sentences=("all weights are those of the run",)
    )


def _require_same_weights(run: RunDirectory, origin: Origin, loaded: LoadedBackbone, parts: Trainable) -> None:
    way_out = "Leave WEIGHTS out: the run remembers them. Or start a new run."
    if repr(parts.shape) != origin.architecture:
        raise RunError(
            f"{loaded.description} has another architecture than the weights that {run.path} began with: "
            f"{parts.shape!r}, not {origin.architecture}.",
            way_out,
        )
    if loaded.weights_hash != origin.weights_hash:
        raise RunError(f"{loaded.description} holds other weights than those that {run.path} began with.", way_out)


def _prepared(
    request: FinetuneRequest,
    data: str,
    origin: Origin,
    start: Start,
    plan: FinetunePlan,
    out: Path,
    checkpoint: Checkpoint | None,
) -> Prepared:
    """Joins the parts and holds what is known about unreadable files against the limits."""
    settings = plan.config.data
    limits = BadLimits(len(plan.images.train.source), settings.max_bad_ratio, settings.max_bad_files)
    refusal, warning = bad_file_outlook(plan.data, limits)
    plan.warnings.extend([warning] if warning else [])
    return Prepared(
        request=request,
        data=data,
        origin=origin,
        start=start,
        plan=plan,
        out=out,
        checkpoint=checkpoint,
        refusal=refusal,
    )


def description(prepared: Prepared) -> dict[str, Any]:
    """What a run's `data.json` says about its images and its weights."""
    images = prepared.plan.images
    return {
        "task": TASK,
        "data": anywhere(prepared.data),
        "name": images.train.source.name,
        "num_images": len(images.train.source),
        "num_holdout": 0 if images.holdout is None else len(images.holdout.source),
        "num_test": len(images.test.source),
        "fingerprint": images.train.source.fingerprint,
        "classes": images.classes,
        "notes": images.notes,
        "origin": asdict(prepared.origin),
        "head": prepared.start.head,
    }


def _use_threads(config: FinetuneConfig) -> None:
    threads = config.runtime.threads
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
