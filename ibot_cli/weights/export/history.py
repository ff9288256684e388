"""Where weights come from, as lines of a model card; names of folders, never the paths of a machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibot_cli.config.schema import Config
from ibot_cli.quantities import counted
from ibot_cli.weights.export.subject import Subject
from ibot_cli.weights.origin import Origin

_MOST_CLASSES = 20


def title_of(subject: Subject, classifies: bool) -> str:
    """The run or the file, and what it is; a classifier may leave without its last layer."""
    kind = {"vit": "vision transformer", "swin": "Swin transformer", "other": "backbone"}[subject.kind]
    method = subject.loaded.origin.method
    name = _name(subject.loaded.origin)
    if classifies:
        return f"{name}: an image classifier"
    if subject.loaded.origin.step == 0:
        return f"{name}: a {kind} from before its training"
    trained = {None: "", "supervised": ", trained with labels"}.get(method, f" pre-trained with {method}")
    return f"{name}: a {kind}{trained}"


def method_text(origin: Origin) -> str:
    """Method, network and length of the training."""
    parts = [origin.method or "not known", *([] if origin.which is None else [origin.which])]
    if origin.epoch is not None:
        steps = "" if origin.step is None else f" ({counted(origin.step, 'step')})"
        parts.append(f"{counted(origin.epoch, 'epoch')}{steps}")
    return ", ".join(parts)


def data_text(subject: Subject) -> str:
    """The images of the training, from the run's `data.json`."""
    told, origin = _told(subject.loaded.origin), subject.loaded.origin
    started = _started_from(origin, told)
    if origin.step == 0:
        return "None yet." if started is None else f"None yet but what the weights `{started}` were trained on."
    if "num_images" not in told:
        return "The file does not say which images it was trained on."
    classes = told.get("classes") or []
    named = f" in {counted(len(classes), 'class', 'classes')}" if classes else ""
    lines = [f"`{data_name(str(told.get('data', '')))}`: {counted(told['num_images'], 'image')}{named}."]
    if origin.config is not None and classes:
        lines.append("Labels were not used.")
    if started is not None:
        lines.append(f"The training started from the weights `{started}`.")
    return " ".join(lines)


def recipe_text(subject: Subject) -> str:
    """The settings that matter most; empty before the training and without a configuration of ours."""
    origin = subject.loaded.origin
    if origin.step == 0:
        return ""
    if origin.config is not None:
        return "\n".join(_pretraining(origin.config))
    if subject.classifier is not None and isinstance(origin.arguments.get("train"), Mapping):
        return "\n".join(_finetuning(origin.arguments, subject))
    return ""


def data_name(data: str) -> str:
    """DATA or WEIGHTS without the folders above it: these say something about a machine, not about the images."""
    if data.startswith(("builtin:", "timm:")) or (data.startswith("hf:") and not Path(data[3:]).is_absolute()):
        return data
    prefix = "hf:" if data.startswith("hf:") else ""
    pattern = re.sub(r"\{[^{}]*/[^{}]*\}", "*", data)  # folders that the braces of tar shards name
    return prefix + (Path(pattern).name or "images")


def class_names(classes: tuple[str, ...]) -> str:
    """Names of classes; only the first where there are many."""
    shown = ", ".join(classes[:_MOST_CLASSES])
    more = "" if len(classes) <= _MOST_CLASSES else ", ..."
    return f"{len(classes):,}: {shown}{more}"


def _pretraining(config: Config) -> list[str]:
    views, mask, objective, optim, train = config.views, config.mask, config.objective, config.optim, config.train
    crops = f"{views.num_global} global crops of {views.global_size} pixels"
    if views.num_local:
        crops += f" and {views.num_local} local crops of {views.local_size}"
    masked = " or ".join(f"{ratio:.0%}" for ratio in mask.ratio)
    epochs = "not known" if train.epochs is None else counted(train.epochs, "epoch")
    prototypes = f"{config.head.prototypes:,} prototypes" if config.head.prototypes is not None else "prototypes"
    return [
        f"- Views: {crops}.",
        *([f"- Masks: {mask.kind}, {masked} of the patches."] if objective.patch != "none" else []),
        f"- Targets: {prototypes}, balanced by {objective.balance}, teacher momentum {objective.teacher_momentum:g}.",
        f"- Optimiser: AdamW, learning rate {optim.lr:g} for a batch of 256, weight decay {optim.weight_decay:g} to "
        f"{optim.weight_decay_end:g}.",
        f"- Length: {epochs}, batches of {train.batch_size}, seed {train.seed}.",
        "",
        "The whole configuration travels inside the file, as JSON under `ibot`.",
    ]


def _finetuning(arguments: Mapping[str, Any], subject: Subject) -> list[str]:
    train, optim = arguments["train"], arguments.get("optim") or {}
    lines = [f"- Pooling: {subject.pooling}."]
    if "lr" in optim:
        lines.append(f"- Optimiser: AdamW, learning rate {optim['lr']:g}, layer decay {optim.get('layer_decay', 1):g}.")
    lines.append(f"- Length: {counted(train['epochs'], 'epoch')}, batches of {train['batch_size']}.")
    return lines


def _started_from(origin: Origin, told: Mapping[str, Any]) -> str | None:
    start = origin.config.init.weights if origin.config is not None else (told.get("origin") or {}).get("weights")
    return None if not start else data_name(str(start))


def _told(origin: Origin) -> Mapping[str, Any]:
    """The run's `data.json`; empty without a run."""
    if origin.run is None:
        return {}
    try:
        content = json.loads((origin.run / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _name(origin: Origin) -> str:
    if origin.run is not None:
        return origin.run.resolve().name
    path = origin.path
    return path.removeprefix("timm:") if path.startswith("timm:") else Path(path).stem or "weights"
