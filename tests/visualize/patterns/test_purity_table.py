from dataclasses import replace

from ibot_cli.visualize.patterns.purity_table import purity_columns, purity_notes, purity_ratios, purity_rows
from tests.visualize.patterns.paintings import COMPARISON


def test_rows() -> None:
    assert purity_rows(COMPARISON) == [
        ("trained weights", "90.0%", "80.0%", "4"),
        ("random weights, 3 seeds", "60.0% (50.0% to 70.0%)", "40.0% (40.0% to 40.0%)", "4"),
        ("k-means on raw pixels, K = 4", "100.0%", "50.0%", "4"),
        ("chance", "30.0%", "25.0%", ""),
    ]
    assert purity_columns("patch") == ("Patterns of", "Members shown", "All patches", "Prototypes used")
    assert purity_columns("cls")[2] == "All images"


def test_ratios() -> None:
    assert [round(ratio, 6) for ratio in purity_ratios(COMPARISON)] == [1.5, 2.0]
    text = " ".join(purity_notes(COMPARISON, "patch"))
    assert "mean over 4 patterns of 1,234 images; with more or fewer patterns it is another." in text
    assert max(map(len, purity_notes(COMPARISON, "patch"))) <= 120
    assert "Trained / random weights: 1.50 of the members shown, 2.00 of all patches" in text
    assert "trained / raw pixels: 0.90 and 1.60" in text


def test_class_tokens_are_images() -> None:
    text = " ".join(purity_notes(replace(COMPARISON, num_images=1), "cls"))
    assert "2.00 of all images" in text and "patch" not in text and "patterns of 1 image;" in text


def test_where_the_centres_of_raw_pixels_come_from() -> None:
    text = " ".join(purity_notes(COMPARISON, "patch"))
    assert "k-means has as many centres (K) as the trained weights use prototypes." in text
    fewer = replace(COMPARISON, pixels_k=3)
    assert "k-means has as many centres (K) as its sample has patches." in " ".join(purity_notes(fewer, "patch"))
    assert purity_rows(fewer)[2][0] == "k-means on raw pixels, K = 3"


def test_a_random_network_without_patterns() -> None:
    nothing = replace(COMPARISON.pixels, members=0.0, patches=float("nan"))
    text = " ".join(purity_notes(replace(COMPARISON, random=(nothing,)), "patch"))
    assert "nan of the members shown, nan of all patches" in text
