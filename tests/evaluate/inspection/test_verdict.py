"""Verdicts from figures that were measured on networks whose quality is known."""

from dataclasses import replace

import pytest

from ibot_cli.evaluate.inspection.probe import Probe
from ibot_cli.evaluate.inspection.signs import Signs
from ibot_cli.evaluate.inspection.spread import Answers, Spread
from ibot_cli.evaluate.inspection.verdict import Evidence, judge


def signs(median: float, structured: int, *, shift: float = 0.02, untouched: int = 0) -> Signs:
    return Signs(
        matrices=19, structure=median, least=0.9, most=2.0, structured=structured, norms=7,
        untouched_norms=untouched, norm_shift=shift, zero_positions=False,
    )  # fmt: skip


def spread(cosine: float, deviation: float, rank: float) -> Spread:
    return Spread(images=64, cosine=cosine, centred_cosine=0.4, deviation=deviation, effective_rank=rank)


def answers(information: float, choices: float) -> Answers:
    return Answers(
        temp=0.02, information=information, most=4.16, marginal_entropy=0.7, entropy=0.3, first_choices=choices
    )


def probed(
    features: Spread, random: Spread, head: Answers | None = None, before: Answers | None = None, **more: int
) -> Probe:
    fields = {"not_finite": 0, "predicted": None, **more}
    return Probe(
        data="builtin:digits", embedded=True, draws=3, pooling="class token", features=features,
        random_features=random, answers=head, random_answers=before, **fields,
    )  # fmt: skip


DIGITS = spread(0.991, 0.094, 3.8)
PHOTOS = spread(0.261, 0.86, 2.2)
HEAD, PHOTO_HEAD = answers(0.17, 32), answers(1.3, 12)
TRAINED = signs(1.5, 18)
BASE = Evidence(faults=(), missing=(), total=58, signs=TRAINED, probe=None, unprobed=None, done=None)


@pytest.mark.parametrize(
    ("probe", "state"),
    [
        (probed(spread(0.973, 0.164, 7.8), DIGITS, answers(3.0, 33), HEAD), "trained"),  # 120 epochs of digits
        (probed(spread(0.574, 0.648, 7.1), PHOTOS, answers(3.0, 34), PHOTO_HEAD), "trained"),  # 60 epochs of photos
        (probed(spread(0.968, 0.180, 3.0), DIGITS, answers(1.6, 37), HEAD), "trained"),  # 20 epochs, k-NN 0.75
        (probed(spread(0.961, 0.180, 2.5), DIGITS, answers(1.4, 15), HEAD), "trained"),  # 10 epochs, k-NN 0.63
        (probed(spread(0.999, 0.034, 2.3), DIGITS, answers(0.006, 6), HEAD), "collapsed"),  # no centring, k-NN 0.48
        (probed(spread(0.999, 0.032, 2.4), DIGITS, answers(4e-6, 17), answers(0.0075, 32)), "collapsed"),  # uniform
        (probed(spread(0.065, 0.959, 1.6), PHOTOS, answers(1.2, 4), PHOTO_HEAD), "collapsed"),  # k-NN 0.60 of 0.87
        (probed(spread(0.574, 0.648, 7.1), PHOTOS), "trained"),
        (probed(spread(0.968, 0.180, 3.0), DIGITS), "unclear"),  # as above, without its head
        (probed(spread(0.5, 0.648, 7.1), PHOTOS, answers(1.4, 20), PHOTO_HEAD), "unclear"),
        (probed(spread(0.999, 0.034, 2.3), DIGITS), "collapsed"),
        (probed(spread(0.993, 0.052, 4.6), DIGITS), "trained"),  # as of grey photos that saw digits, k-NN 0.78
        (probed(spread(0.9999, 0.007, 4.6), DIGITS), "collapsed"),
    ],
)
def test_what_images_say_about_trained_weights(probe: Probe, state: str) -> None:
    assert judge(replace(BASE, probe=probe)).state == state


@pytest.mark.parametrize(
    ("found", "done", "state", "text"),
    [
        (signs(0.98, 0, shift=0.0, untouched=7), None, "random", "before training"),
        (signs(0.98, 0, shift=0.04), None, "random", "not where networks start"),
        (signs(0.98, 0, shift=0.001), None, "unclear", "Hardly trained, if at all: there are few"),
        (signs(0.98, 0, shift=0.04), "22 steps", "unclear", "Hardly trained: 22 steps left few traces"),
        (signs(1.0, 4, shift=0.003), None, "unclear", "Hardly trained"),
        (signs(1.09, 8, shift=0.004), "220 steps", "trained", "The weights were trained. Whether"),
        (replace(TRAINED, structure=None, matrices=0), None, "unclear", "no matrix large enough"),
    ],
)
def test_what_weights_say_without_images(found: Signs, done: str | None, state: str, text: str) -> None:
    verdict = judge(replace(BASE, signs=found, done=done, unprobed="--no-features"))
    assert verdict.state == state and text in verdict.text


def test_fine_tuned_weights_need_few_directions_only() -> None:
    few = spread(0.3, 0.9, 1.5)
    assert judge(replace(BASE, probe=probed(few, DIGITS, predicted=2))).state == "trained"
    alike = spread(0.95, 0.2, 1.5)
    one_class = probed(alike, DIGITS, predicted=1)
    doubtful = judge(replace(BASE, probe=one_class))
    assert doubtful.state == "unclear" and "every image of builtin:digits is put into the same class" in doubtful.text
    verdict = judge(replace(BASE, probe=replace(one_class, embedded=False)))
    assert (verdict.state, verdict.text) == ("collapsed", "Every image is put into the same class.")
    assert verdict.reasons[-1].text == "1 class is put first for an image."


def test_few_images_decide_nothing() -> None:
    probe = probed(replace(spread(0.999, 0.01, 1.0), images=3), DIGITS)
    verdict = judge(replace(BASE, probe=probe))
    assert verdict.state == "trained" and "there are less than 8 images" in verdict.text


def test_broken_comes_first_and_incomplete_next() -> None:
    probe = replace(probed(DIGITS, DIGITS), features=None, not_finite=2)
    broken = judge(replace(BASE, faults=("All is 0.",), missing=("a",), probe=probe))
    assert broken.state == "broken"
    assert [(reason.about, reason.text) for reason in broken.reasons] == [
        ("numbers", "All is 0."),
        ("features", "2 images of builtin:digits give features that are NaN or infinite."),
    ]
    incomplete = judge(replace(BASE, missing=("a", "b")))
    assert incomplete.state == "incomplete" and "--partial" in incomplete.text
    assert incomplete.reasons[0].text == "2 of the network's 58 are missing or of another shape."


def test_more_images_are_asked_for_only_where_nobody_gave_any() -> None:
    doubtful = probed(spread(0.968, 0.180, 3.0), DIGITS)
    assert "--data" in judge(replace(BASE, probe=doubtful)).text
    assert "--data" not in judge(replace(BASE, probe=replace(doubtful, embedded=False))).text


def test_zero_positions_are_a_remark() -> None:
    verdict = judge(replace(BASE, signs=replace(TRAINED, zero_positions=True), probe=probed(PHOTOS, PHOTOS)))
    assert (verdict.state, [reason.about for reason in verdict.reasons]) == (
        "trained", ["matrices", "norms", "positions", "features"],
    )  # fmt: skip


def test_reasons_are_measured_numbers() -> None:
    verdict = judge(replace(BASE, probe=probed(spread(0.99969, 0.0175, 2.2), DIGITS, answers(1.1e-5, 10), HEAD)))
    assert [reason.about for reason in verdict.reasons] == ["matrices", "norms", "features", "head"]
    assert "mean cosine 0.99969 (random weights 0.991), effective rank 2.2 (3.8)" in verdict.reasons[2].text
    assert "tells 1.1e-05 of 4.16 nats" in verdict.reasons[3].text
