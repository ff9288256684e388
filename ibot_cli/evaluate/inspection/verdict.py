"""From measured signs to a verdict in words.

The thresholds stand where networks that are known lie apart; `docs/guides/weights.md` has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ibot_cli.evaluate.inspection.probe import Probe
from ibot_cli.evaluate.inspection.signs import STRUCTURED, Signs, untrained
from ibot_cli.evaluate.inspection.spread import Answers, Spread
from ibot_cli.quantities import counted

State = Literal["trained", "random", "collapsed", "broken", "incomplete", "unclear"]

TRAINED_SHARE = 1 / 3  # of the matrices that are above `STRUCTURED`
SMALL_SHIFT = 0.01  # of layer norms; what a few epochs do
FEW_IMAGES = 8
# beside random weights, all of them
EQUAL_COSINE = 0.99
ALIKE_COSINE = 0.9  # where a classifier puts all images into one class
NARROW = 0.6  # of their deviation, in fewer directions
VERY_NARROW = 0.1  # in any; images unlike those of the training lie close together too, in more directions
FEW_DIRECTIONS = 0.85  # of their effective rank
SILENT = 0.2  # of the information in their answers
NO_MORE = 1.2  # times that information
MORE = 1.5
FEW_CHOICES = 0.5  # of the prototypes that they put first


@dataclass(frozen=True)
class Reason:
    """What a verdict hangs on.

    Attributes:
        about: What was measured, in one word.
        text: A sentence with the measured number.
    """

    about: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What weights are worth.

    Attributes:
        state: In one word.
        text: In a sentence.
        reasons: What it hangs on.
    """

    state: State
    text: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that a verdict hangs on.

    Attributes:
        faults: Of `find_faults`.
        missing: Names that the file should have and has not, or in another shape.
        total: Tensors of the network.
        signs: None where numbers are not finite.
        probe: Answers to images; None without.
        unprobed: Why there are none.
        done: Training that the file tells of, `1,200 steps`; None if it does not.
    """

    faults: Sequence[str]
    missing: Sequence[str]
    total: int
    signs: Signs | None
    probe: Probe | None
    unprobed: str | None
    done: str | None


def judge(evidence: Evidence) -> Verdict:
    """The verdict: what is broken comes first, then what is missing, then what was learnt."""
    faults = [*(Reason("numbers", text) for text in evidence.faults), *_answer_faults(evidence.probe)]
    if faults:
        return Verdict(state="broken", text="These numbers are no working network.", reasons=tuple(faults))
    if evidence.missing:
        return _incomplete(evidence)
    signs, probe = evidence.signs, evidence.probe
    if signs is None or signs.structure is None:
        text = "There is no matrix large enough to be told from random numbers."
        return Verdict(state="unclear", text=text, reasons=tuple(_seen(probe)))
    weights = _weight_reasons(signs)
    if signs.structured < TRAINED_SHARE * signs.matrices:
        return _untrained(evidence, signs, [*weights, *_seen(probe)])
    return _structured(evidence, signs, weights)


def _answer_faults(probe: Probe | None) -> list[Reason]:
    if probe is None or not probe.not_finite:
        return []
    text = f"{counted(probe.not_finite, 'image')} of {probe.data} give features that are NaN or infinite."
    return [Reason("features", text)]


def _incomplete(evidence: Evidence) -> Verdict:
    count = len(evidence.missing)
    return Verdict(
        state="incomplete",
        text="The file does not hold the whole network; --partial loads what there is.",
        reasons=(Reason("tensors", f"{count} of the network's {evidence.total} are missing or of another shape."),),
    )


def _untrained(evidence: Evidence, signs: Signs, reasons: Sequence[Reason]) -> Verdict:
    """Most matrices cannot be told from random numbers."""
    shift = signs.norm_shift or 0.0
    if untrained(signs):
        text = "These are the weights of a network before training."
        return Verdict(state="random", text=text, reasons=tuple(reasons))
    if signs.structured or (0 < shift < SMALL_SHIFT) or evidence.done:
        text = "Hardly trained, if at all: there are few traces of it in the weights."
        if evidence.done:
            text = f"Hardly trained: {evidence.done} left few traces in the weights."
        return Verdict(state="unclear", text=text, reasons=tuple(reasons))
    text = "The matrices are random numbers, although the norms are not where networks start."
    return Verdict(state="random", text=text, reasons=tuple(reasons))


def _structured(evidence: Evidence, signs: Signs, weights: Sequence[Reason]) -> Verdict:
    """The weights were trained; whether to any good is for the answers to images to say."""
    probe = evidence.probe
    if probe is None or probe.features is None or probe.features.images < FEW_IMAGES:
        why = evidence.unprobed or f"there are less than {FEW_IMAGES} images"
        text = f"The weights were trained. Whether they collapsed was not looked at: {why}."
        return Verdict(state="trained", text=text, reasons=tuple(weights))
    reasons = (*weights, *_seen(probe))
    collapse = _collapse(probe)
    if collapse is not None:
        return Verdict(state="collapsed", text=collapse, reasons=reasons)
    doubt = _doubt(probe)
    if doubt is not None:
        more = " --data with images like those of the training says more." if probe.embedded else ""
        return Verdict(state="unclear", text=f"The weights were trained, but {doubt}.{more}", reasons=reasons)
    return Verdict(
        state="trained", text="The weights were trained, and different images get different features.", reasons=reasons
    )


def _doubt(probe: Probe) -> str | None:
    """What speaks neither for a collapse nor against one; of a head its answers count, which say more than features.

    Features of fine-tuned weights need no more directions than there are classes.
    """
    if probe.predicted is not None:
        return f"every image of {probe.data} is put into the same class" if _one_class(probe) else None
    if probe.answers is not None and probe.random_answers is not None:
        enough = probe.answers.information >= MORE * probe.random_answers.information
        return None if enough else f"its head tells images of {probe.data} apart hardly better than a random one"
    if _few_directions(probe):
        return f"features of {probe.data} spread over fewer directions than those of random weights"
    return None


def _few_directions(probe: Probe) -> bool:
    assert probe.features is not None
    return probe.features.effective_rank < FEW_DIRECTIONS * probe.random_features.effective_rank


def _one_class(probe: Probe) -> bool:
    assert probe.features is not None
    return probe.predicted == 1 and probe.features.cosine > ALIKE_COSINE


def _collapse(probe: Probe) -> str | None:
    """What collapsed, or None."""
    features, random = probe.features, probe.random_features
    assert features is not None
    fewer = features.effective_rank < random.effective_rank
    narrow = features.deviation < (NARROW if fewer else VERY_NARROW) * random.deviation
    if features.cosine > EQUAL_COSINE and narrow:
        return "Different images get almost the same features, more so than with random weights."
    if _one_class(probe) and not probe.embedded:  # embedded images may be of no class, all alike
        return "Every image is put into the same class."
    answers, before = probe.answers, probe.random_answers
    if answers is None or before is None:
        return None
    if answers.information < SILENT * before.information:
        return "The head answers every image alike, more so than a random one."
    few = _few_directions(probe) and answers.first_choices < FEW_CHOICES * before.first_choices
    if few and answers.information < NO_MORE * before.information:
        return "Fewer prototypes are chosen, by features of fewer directions, than with random weights."
    return None


def _weight_reasons(signs: Signs) -> list[Reason]:
    found = []
    if signs.structure is not None:
        text = (
            f"The largest singular value is {signs.structure:.2f} times that of random numbers (median of "
            f"{signs.matrices}; {signs.least:.2f} to {signs.most:.2f}); {signs.structured} are above {STRUCTURED:g}."
        )
        found.append(Reason("matrices", text))
    if signs.norms and signs.untouched_norms == signs.norms:
        found.append(Reason("norms", f"All {signs.norms} have weight 1 and bias 0, as before training."))
    elif signs.norms:
        found.append(Reason("norms", f"Moved by {signs.norm_shift:.2g} on average from weight 1 and bias 0."))
    if signs.zero_positions:
        found.append(Reason("positions", "All are 0: the network does not know where in the image a patch is."))
    return found


def _seen(probe: Probe | None) -> list[Reason]:
    """What images showed, each number beside that of random weights."""
    if probe is None or probe.features is None:
        return []
    found = [Reason("features", _feature_text(probe.features, probe.random_features, probe))]
    if probe.answers is not None and probe.random_answers is not None:
        found.append(Reason("head", _answer_text(probe.answers, probe.random_answers)))
    if probe.predicted is not None:
        classes = counted(probe.predicted, "class is", "classes are")
        found.append(Reason("classifier", f"{classes} put first for an image."))
    return found


def _feature_text(found: Spread, random: Spread, probe: Probe) -> str:
    pooled = "" if probe.pooling == "class token" else f" ({probe.pooling})"
    return (
        f"Of {found.images} images of {probe.data}{pooled}: mean cosine {_cosine(found.cosine)} (random weights "
        f"{_cosine(random.cosine)}), effective rank {found.effective_rank:.1f} ({random.effective_rank:.1f})."
    )


def _answer_text(found: Answers, random: Answers) -> str:
    first = counted(round(found.first_choices), "prototype is", "prototypes are")
    return (
        f"An answer tells {found.information:.2g} of {found.most:.2f} nats about its image (random "
        f"{random.information:.2g}); {first} put first ({random.first_choices:.0f})."
    )


def _cosine(value: float) -> str:
    """Enough digits to be told from 1."""
    return f"{value:.3f}" if value < 0.9995 else f"{value:.5f}"
