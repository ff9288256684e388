"""The first section: what the run is, its key numbers and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.schema import Config
from ibot_cli.evaluate.comparison import Cell
from ibot_cli.quantities import counted, duration
from ibot_cli.visualize.pages.numbers import NOTHING, number, percent
from ibot_cli.visualize.report.evaluations import Evaluated, standing
from ibot_cli.visualize.report.record import RunRecord
from ibot_cli.visualize.report.section import Section
from ibot_cli.visualize.report.verdict import findings, health


@dataclass(frozen=True)
class Card:
    """A key number: its name, itself, a line about it, and the tone of `Finding`."""

    name: str
    value: str
    about: str = ""
    tone: str = ""


def overview_section(run: RunRecord, evaluated: Evaluated) -> Section:
    """Key numbers as cards, then what to say about the run."""
    return Section(
        id="overview",
        title="Overview",
        template="report/overview.html",
        values={"cards": _cards(run, evaluated), "findings": findings(run, evaluated)},
    )


def lead(run: RunRecord) -> str:
    """What the run is, in a sentence."""
    images = run.data.get("name") or run.data.get("data") or "unknown images"
    if run.task == "finetune":
        begun = "random weights" if _from_scratch(run) else _described(run.data.get("origin") or {})
        return f"Fine-tuning of {begun} on {images}."
    if not isinstance(run.config, Config):
        return f"Pre-training on {images}."
    return f"{run.config.objective.method} pre-training of {network(run.config)} on {images}.{_start(run)}"


def _start(run: RunRecord) -> str:
    """What a continued pre-training went on from; empty for random weights."""
    start = run.data.get("init")
    if not start:
        return ""
    changes = ", ".join(map(str, (start.get("sentences") or ())[1:]))
    return f" It went on from {_described(start)}" + (f": {changes}." if changes else ".")


def _described(weights: Mapping[str, Any]) -> str:
    """Weights that a run noted, in the middle of a sentence."""
    text = str(weights.get("description", "unknown weights"))
    return f"the {text}" if text.startswith(("teacher", "student")) else text


def network(config: Config) -> str:
    """The backbone in words."""
    model, size = config.model, config.views.global_size
    if model.arch.startswith("swin"):
        return f"{model.arch}, window {model.window_size}, {size} px"
    shape = [f"{name} {value}" for name, value in (("width", model.width), ("depth", model.depth)) if value is not None]
    shape += [f"{model.registers} registers"] if model.registers else []
    shape += ["layer scale"] if model.layer_scale else []
    return ", ".join([model.arch, *shape, f"patch {model.patch_size}", f"{size} px"])


def _from_scratch(run: RunRecord) -> bool:
    return isinstance(run.config, FinetuneConfig) and run.config.model.from_scratch


def _cards(run: RunRecord, evaluated: Evaluated) -> list[Card]:
    word, tone = health(run)
    cards = _finetune_cards(run, evaluated) if run.task == "finetune" else _pretrain_cards(run, evaluated)
    return [*cards, Card("Optimisation", word, "from the records of the run", tone), *_size_cards(run)]


def _pretrain_cards(run: RunRecord, evaluated: Evaluated) -> list[Card]:
    cards = []
    knn = run.metrics.of_epochs("knn_accuracy")
    if found := evaluated.find("k-NN top-1"):
        cards.append(_figure("k-NN top-1", found[1], percent(found[1].value)))
    elif len(knn):
        begun = f"; {percent(knn.values[0])} before the first step" if knn.steps[0] == 0 else ""
        cards.append(Card("k-NN top-1", percent(knn.values[-1]), f"while training, on held-out training images{begun}"))
    if found := evaluated.find("linear probe top-1", "logistic regression top-1"):
        cards.append(_figure(found[0].measure, found[1], percent(found[1].value)))
    if found := evaluated.find("k-means NMI"):
        cards.append(_figure("k-means NMI", found[1], number(found[1].value), percentage=False))
    elif (nmi := run.metrics.of_epochs("clusters/nmi").last) is not None:
        cards.append(Card("NMI of prototypes", number(nmi), "with the labels, while training"))
    return cards


def _finetune_cards(run: RunRecord, evaluated: Evaluated) -> list[Card]:
    found = next(
        (each for c in evaluated.columns if c.command == "finetune" and (each := evaluated.find(c.measure))), None
    )
    if found is not None:
        return [_figure("Top-1 on test images", found[1], percent(found[1].value))]
    for part, text in (("test", "test images"), ("holdout", "held-out training images")):
        if (value := run.metrics.of_epochs(f"{part}/top1_accuracy").last) is not None:
            return [Card("Top-1", percent(value), f"on {text}, while training")]
    return []


def _figure(name: str, cell: Cell, value: str, *, percentage: bool = True) -> Card:
    baselines = ", ".join(
        f"{text} {percent(each) if percentage else number(each)}" for text, each in cell.baselines.items()
    )
    each = standing(cell)
    words = f"{baselines}: {each.words}" if each.tone in ("warn", "bad") else baselines
    return Card(name, value, words or each.words, each.tone)


def _size_cards(run: RunRecord) -> list[Card]:
    planned = NOTHING if run.epochs_planned is None else f"{run.epochs_planned:,}"
    done = Card(
        "Epochs",
        f"{run.epochs_done:,} of {planned}",
        counted(run.metrics.last_step, "step"),
        "" if run.finished else "warn",
    )
    classes = run.data.get("classes")
    images = run.data.get("num_images")
    cards = [done]
    if isinstance(images, int):
        about = f"{len(classes):,} classes" if isinstance(classes, list) else "no labels"
        cards.append(Card("Training images", f"{images:,}", about))
    if run.seconds is not None:
        devices = run.environment.get("devices") or []
        device = devices[0] if devices and _on_gpu(run) else run.environment.get("cpu") or ""
        time = f"{duration(run.seconds)} {'min' if run.seconds < 3600 else 'h'}"
        cards.append(Card("Time of the updates", time, str(device)))
    return cards


def _on_gpu(run: RunRecord) -> bool:
    return run.config is not None and str(run.config.runtime.device).startswith("cuda")
