import itertools

import numpy as np
import pytest

from ibot_cli.visualize.patterns import collector as module
from ibot_cli.visualize.patterns.collector import Assigned, Collector

NUM, PATCHES, K, CLASSES = 23, 9, 7, 3
Row = tuple[int, int, float, float]  # image, patch, score, probability


def draw(seed: int, levels: int = 5) -> tuple[Assigned, np.ndarray, np.ndarray]:
    """Scores with many ties, dark patches, labels."""
    rng = np.random.default_rng(seed)
    assigned = Assigned(
        rng.integers(0, K - 1, (NUM, PATCHES)),  # the last prototype stays empty
        (rng.integers(0, levels, (NUM, PATCHES)) / levels - 0.5).astype(np.float32),
        rng.random((NUM, PATCHES), dtype=np.float32),
    )
    return assigned, rng.random((NUM, PATCHES)) < 0.2, rng.integers(0, CLASSES, NUM)


def oracle(assigned: Assigned, dark: np.ndarray, images: np.ndarray, prototype: int, top_k: int) -> list[Row]:
    """Loop by loop."""
    best: list[Row] = []
    for place, image in enumerate(images):
        mine = [
            (int(image), patch, float(assigned.score[place, patch]), float(assigned.probability[place, patch]))
            for patch in range(PATCHES)
            if assigned.prototype[place, patch] == prototype and not dark[place, patch]
        ]
        if mine:
            best.append(min(mine, key=lambda row: (-row[2], row[1])))
    return sorted(best, key=lambda row: (-row[2], row[0]))[:top_k]


def filled(
    assigned: Assigned, dark: np.ndarray, labels: np.ndarray, images: np.ndarray, top_k: int, batch: int
) -> Collector:
    found = Collector(K, top_k, CLASSES)
    for start in range(0, NUM, batch):
        cut = slice(start, start + batch)
        part = Assigned(assigned.prototype[cut], assigned.score[cut], assigned.probability[cut])
        found.add(images[cut], part, dark[cut], labels[cut])
    return found


def members(found: Collector, prototype: int) -> list[Row]:
    rows = found.members(prototype)
    assert (rows.prototype == prototype).all()
    columns = (rows.image.tolist(), rows.patch.tolist(), rows.score.tolist(), rows.probability.tolist())
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize(
    ("top_k", "batch", "pending", "seed"),
    [*itertools.product((1, 4, 50), (1, 5, NUM), (1, 30), (0,)), (4, 3, 10, 1), (4, 3, 10, 2)],
)
def test_it_finds_what_loops_find(
    monkeypatch: pytest.MonkeyPatch, top_k: int, batch: int, pending: int, seed: int
) -> None:
    monkeypatch.setattr(module, "_PENDING", pending)
    assigned, dark, labels = draw(seed)
    images = np.random.default_rng(seed).permutation(1000)[:NUM]  # in no order
    found = filled(assigned, dark, labels, images, top_k, batch)
    for prototype in range(K):
        assert members(found, prototype) == oracle(assigned, dark, images, prototype, top_k)
        mine = (assigned.prototype == prototype) & ~dark
        assert found.counts[prototype] == mine.sum()
        assert found.dark[prototype] == ((assigned.prototype == prototype) & dark).sum()
        assert found.probability_sum[prototype] == pytest.approx(assigned.probability[mine].sum())
        per_image = mine.sum(axis=1)
        assert found.histogram[prototype].tolist() == [per_image[labels == label].sum() for label in range(CLASSES)]
    assert found.num_images == NUM and found.num_patches == PATCHES
    assert members(found, K - 1) == []


def test_batches_change_nothing_bit_by_bit() -> None:
    assigned, dark, labels = draw(3, levels=1000)
    images = np.arange(NUM)
    one, other = (filled(assigned, dark, labels, images, 4, batch) for batch in (1, 8))
    assert (one.probability_sum == other.probability_sum).all()
    assert all(members(one, prototype) == members(other, prototype) for prototype in range(K))


def test_without_labels_and_with_unknown_ones() -> None:
    assigned, dark, labels = draw(4)
    plain = Collector(K, 4)
    plain.add(np.arange(NUM), assigned, dark)
    assert plain.histogram.shape == (K, 0)
    labels[:] = -1
    labels[0] = 2
    known = filled(assigned, dark, labels, np.arange(NUM), 4, 5)
    assert known.histogram.sum() == known.histogram[:, 2].sum() == (~dark[0]).sum()


def test_an_empty_batch_of_bright_patches() -> None:
    assigned, dark, labels = draw(5)
    found = filled(assigned, np.ones_like(dark), labels, np.arange(NUM), 4, 5)
    assert found.counts.sum() == 0 and found.dark.sum() == NUM * PATCHES
    assert all(len(found.members(prototype)) == 0 for prototype in range(K))


def test_the_memory_is_that_of_the_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PENDING", 100)
    found = Collector(K, 2)
    held = list[int]()
    rng = np.random.default_rng(0)
    for start in range(0, 4000, 100):
        shape = (100, PATCHES)
        scores = rng.random(shape, dtype=np.float32)
        found.add(
            np.arange(start, start + 100), Assigned(rng.integers(0, K, shape), scores, scores), np.zeros(shape, bool)
        )
        held.append(len(found._kept) + sum(map(len, found._pending)))
    assert max(held) < 2 * K + 100  # of 36,000 patches
    assert sum(len(found.members(prototype)) for prototype in range(K)) == 2 * K
