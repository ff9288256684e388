from dataclasses import replace

import pytest

from ibot_cli.visualize.patterns.wording import (
    about_pattern,
    beside_title,
    explanation,
    items,
    measured,
    probable,
    purity_lines,
    purity_text,
)
from tests.visualize.patterns.paintings import UNLABELLED, find, other


@pytest.mark.parametrize(
    ("probability", "text"), [(1.0, "1.00"), (0.125, "0.12"), (0.005, "0.01"), (0.0049, "0.005"), (3.2e-5, "3e-05")]
)
def test_probabilities_are_never_all_zero(probability: float, text: str) -> None:
    assert probable(probability) == text


def test_what_is_counted() -> None:
    assert (items("patch"), items("patch", 1), items("patch", 1200)) == ("patches", "1 patch", "1,200 patches")
    assert (items("cls"), items("cls", 1)) == ("images", "1 image")
    assert measured(find()) == "3 images, 48 patches" and measured(find(kind="cls")) == "3 images"


def test_a_pattern_in_a_line() -> None:
    found = find()
    pattern = found.patterns[0]
    expected = f"Prototype 3: 18 patches (37.5%), mean probability {pattern.probability:.2f}, 78% of class sunny"
    assert about_pattern(pattern, found) == expected
    plain = find(UNLABELLED)
    assert purity_text(plain.patterns[0], plain) is None and "class" not in about_pattern(plain.patterns[0], plain)


def test_members_of_another_class_are_named() -> None:
    found = find()
    pattern = replace(found.patterns[0], members_label=0, members_purity=0.5)
    assert purity_text(pattern, found) == "members: 50% of class warm; all patches: 78% of class sunny"
    assert purity_lines(pattern, found) == ("members: 50% warm", "all: 78% sunny")
    assert purity_lines(found.patterns[0], found) == ("78% of class sunny",)
    plain = find(UNLABELLED)
    assert purity_lines(plain.patterns[0], plain) == ()


def test_which_random_weights() -> None:
    assert beside_title(other(find())) == "Random weights (seed 0)"


def test_how_to_read_it() -> None:
    text = explanation(find())
    assert text.startswith("4 of the 4 prototypes in use (5 in all), those with the most patches first.")
    assert "within the 3 x 3 patches around it" in text
    assert "around" not in explanation(find(window=1)) and "patch" not in explanation(find(kind="cls"))
