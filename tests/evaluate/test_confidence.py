import math

import numpy as np
import pytest
from scipy import optimize, stats

from ibot_cli.evaluate.confidence import paired_difference, unpaired_difference, wilson

Z = 1.959963984540054


def answers(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe, Stat. Med. 17 (1998), 857-872, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_the_published_table(correct: int, total: int, low: float, high: float) -> None:
    assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (7, 7), (345, 360), (49_999, 50_000)])
def test_wilson_against_scipy(correct: int, total: int, level: float) -> None:
    expected = stats.binomtest(correct, total).proportion_ci(level, method="wilson")
    assert wilson(correct, total, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_at_the_ends_is_exact() -> None:
    assert wilson(0, 3)[0] == 0 and wilson(3, 3)[1] == 1


@pytest.mark.parametrize(("correct", "total", "level"), [(1, 0, 0.9), (-1, 3, 0.9), (4, 3, 0.9), (1, 3, 1), (1, 3, 0)])
def test_impossible_counts_and_levels(correct: int, total: int, level: float) -> None:
    with pytest.raises(ValueError, match="of"):
        wilson(correct, total, level)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    # Newcombe, Stat. Med. 17 (1998), 873-890, table II, method 10
    [((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((10, 10, 0, 10), 0.6075, 1.0)],
)
def test_unpaired_against_the_published_table(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    difference, *limits = unpaired_difference(*counts)
    assert difference == pytest.approx(counts[0] / counts[1] - counts[2] / counts[3])
    assert limits == pytest.approx([low, high], abs=5e-5)


def score(only_a: int, only_b: int, total: int, delta: float) -> float:
    """Tango's statistic with the likelihood maximised numerically."""
    same = total - only_a - only_b

    def unlikely(share_b: float) -> float:
        parts = ((only_a, share_b + delta), (only_b, share_b), (same, 1 - 2 * share_b - delta))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in parts if count)

    bounds = (max(0.0, -delta), (1 - delta) / 2)
    share_b = float(optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x)
    return (only_a - only_b - total * delta) / math.sqrt(total * (2 * share_b + delta * (1 - delta)))


@pytest.mark.parametrize(
    ("both", "only_a", "only_b", "neither"), [(36, 12, 2, 0), (330, 15, 4, 11), (1, 3, 9, 2), (500, 1, 0, 12)]
)
def test_paired_limits_are_where_the_score_is_z(both: int, only_a: int, only_b: int, neither: int) -> None:
    a, b = answers(both, only_a, only_b, neither)
    difference, low, high = paired_difference(a, b)
    assert difference == pytest.approx(a.mean() - b.mean())
    assert score(only_a, only_b, len(a), low) == pytest.approx(Z, abs=1e-3)
    assert score(only_a, only_b, len(a), high) == pytest.approx(-Z, abs=1e-3)


def test_paired_is_mirrored_when_the_two_change_places() -> None:
    a, b = answers(330, 15, 4, 11)
    difference, low, high = paired_difference(a, b)
    assert paired_difference(b, a) == pytest.approx((-difference, -high, -low))


@pytest.mark.parametrize("count", [1, 360])
def test_paired_without_any_disagreement_is_not_certain(count: int) -> None:
    same = np.ones(count, dtype=np.bool_)
    half = Z**2 / (count + Z**2)
    assert paired_difference(same, same) == pytest.approx((0, -half, half), abs=1e-9)


def test_paired_total_disagreement() -> None:
    ones = np.ones(20, dtype=np.bool_)
    difference, low, high = paired_difference(ones, ~ones)
    assert (difference, high) == (1, 1) and 0.6 < low < 0.9
    assert paired_difference(~ones, ones) == pytest.approx((-1, -1, -low))


def test_paired_agrees_with_mcnemar() -> None:
    for only_a, only_b in [(10, 2), (9, 2), (8, 2), (7, 2), (30, 16), (30, 17), (30, 18)]:
        _, low, _ = paired_difference(*answers(300, only_a, only_b, 40))
        rejected = (only_a - only_b) / math.sqrt(only_a + only_b) > Z
        assert (low > 0) == rejected, (only_a, only_b)


def test_paired_is_narrower_where_the_two_mostly_agree() -> None:
    a, b = answers(330, 12, 4, 14)
    _, low, high = paired_difference(a, b)
    _, wide_low, wide_high = unpaired_difference(int(a.sum()), 360, int(b.sum()), 360)
    assert wide_low < low and high < wide_high and high - low < 0.7 * (wide_high - wide_low)


def test_answers_to_different_images_are_refused() -> None:
    for a, b in [(np.ones(3, dtype=np.bool_), np.ones(4, dtype=np.bool_)), (np.ones(0, dtype=np.bool_),) * 2]:
        with pytest.raises(ValueError, match="not two answers to the same images"):
            paired_difference(a, b)


@pytest.mark.parametrize("shares", [(0.90, 0.06, 0.02), (0.6, 0.05, 0.15), (0.97, 0.01, 0.005)])
def test_intervals_cover_the_truth_as_often_as_they_say(shares: tuple[float, float, float]) -> None:
    truth, draws = shares[1] - shares[2], 1500
    rng = np.random.default_rng(0)
    tables = rng.multinomial(200, (*shares, 1 - sum(shares)), size=draws)
    known: dict[tuple[int, ...], tuple[bool, bool]] = {}
    for table in map(tuple, tables.tolist()):
        if table not in known:
            both, only_a, only_b, _ = table
            _, low, high = paired_difference(*answers(*table))
            _, wide_low, wide_high = unpaired_difference(both + only_a, 200, both + only_b, 200)
            known[table] = low <= truth <= high, wide_low <= truth <= wide_high
    paired, unpaired = np.mean([known[tuple(table)] for table in tables.tolist()], axis=0)
    # three standard errors of the simulation are 0.017; positive correlation makes the unpaired one cover too much
    assert 0.93 <= paired <= 0.985
    assert unpaired >= 0.95
