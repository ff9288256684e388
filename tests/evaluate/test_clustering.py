import numpy as np
import pytest

from ibot_cli.evaluate.clustering import agreement

LABELS = np.repeat(np.arange(4), 25)


def test_only_the_partition_counts() -> None:
    found = agreement(LABELS * -7 + 100, LABELS)
    assert (found.nmi, found.ami, found.ari, found.fmi) == pytest.approx((1, 1, 1, 1))


def test_chance_and_one_cluster() -> None:
    many = np.random.default_rng(0).integers(0, 50, len(LABELS))
    found = agreement(many, LABELS)
    assert found.nmi > 0.3 and abs(found.ami) < 0.1 and abs(found.ari) < 0.05
    assert agreement(np.zeros_like(LABELS), LABELS).nmi == pytest.approx(0)


def test_by_hand() -> None:
    found = agreement(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]))
    assert found.fmi == pytest.approx((1 * 1 / 2) ** 0.5)  # 1 pair together in both; 2 by cluster, 1 by label
    mutual, cluster, label = np.log(2), np.log(2), 1.5 * np.log(2)
    assert found.nmi == pytest.approx(mutual / ((cluster + label) / 2))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 assignments for 100 labels"):
        agreement(np.zeros(2, np.int64), LABELS)
