import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.evaluate.cluster.center_search import choose_backend
from ibot_cli.evaluate.retrieval import nearest
from ibot_cli.evaluate.retrieval.nearest import nearest_rows


@pytest.fixture(params=["faiss", "torch", "without faiss"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What finds the candidates: one library, the other, or what is chosen where faiss cannot be imported."""
    calls: list[str] = []
    for name in ("_faiss_candidates", "_torch_candidates"):
        original = getattr(nearest, name)
        monkeypatch.setattr(nearest, name, lambda *a, n=name, f=original: calls.append(n) or f(*a))
    if request.param == "without faiss":
        monkeypatch.setitem(sys.modules, "faiss", None)
        asked = "auto"
    else:
        pytest.importorskip("faiss")
        asked = request.param
    monkeypatch.setattr(
        nearest.nearest_rows, "__kwdefaults__", {**nearest.nearest_rows.__kwdefaults__, "backend": asked}
    )
    yield asked
    wrong = "_torch_candidates" if asked == "faiss" else "_faiss_candidates"
    assert wrong not in calls


def rows(num: int, seed: int, size: int = 24) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(num, size)) * rng.uniform(0.1, 9, size=(num, 1)), dtype=torch.float32)


def by_hand(
    bank: torch.Tensor, queries: torch.Tensor, k: int, exclude: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All cosines in float64 with NumPy, ordered by a stable sort."""
    b, q = (x.double().numpy() for x in (bank, queries))
    b, q = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (b, q))
    similarity = (q @ b.T).astype(np.float32)
    if exclude is not None:
        similarity[np.arange(len(q))[exclude >= 0], exclude[exclude >= 0]] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, : min(k, len(b) - (exclude is not None))]
    return np.take_along_axis(similarity, order, axis=1), order


def same(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(found[0].numpy(), expected[0], rtol=0, atol=2e-7)
    assert found[1].tolist() == expected[1].tolist()


@pytest.mark.parametrize("k", [1, 7, 400, 1000])
def test_equals_brute_force(k: int) -> None:
    bank, queries = rows(400, 0), rows(600, 1)
    same(nearest_rows(bank, queries, k), by_hand(bank, queries, k))


def test_a_row_does_not_find_itself() -> None:
    bank = rows(300, 2)
    found = nearest_rows(bank, bank, 5, exclude_self=True)
    same(found, by_hand(bank, bank, 5, np.arange(300)))
    assert not (found[1] == torch.arange(300).unsqueeze(1)).any()
    assert nearest_rows(bank, bank, 300, exclude_self=True)[1].shape == (300, 299)
    assert nearest_rows(bank[:1], bank[:1], 3, exclude_self=True)[1].shape == (1, 0)


def test_each_query_may_exclude_a_row() -> None:
    bank = rows(100, 3)
    exclude = np.array([4, -1, 99])
    same(
        nearest_rows(bank, bank[[4, 5, 7]], 3, exclude=torch.from_numpy(exclude)),
        by_hand(bank, bank[[4, 5, 7]], 3, exclude),
    )


def test_ties_go_to_the_smaller_index() -> None:
    bank = rows(10, 4).repeat(40, 1)  # far more equal rows than there are candidates
    similarity, index = nearest_rows(bank, bank[:10], 5)
    assert index.tolist() == [[row, row + 10, row + 20, row + 30, row + 40] for row in range(10)]
    assert torch.equal(similarity, torch.ones(10, 5))
    without = nearest_rows(bank, bank, 2, exclude_self=True)[1]
    assert without[0].tolist() == [10, 20] and without[10].tolist() == [0, 20] and without[399].tolist() == [9, 19]


def test_rounding_in_float32_does_not_decide() -> None:
    centre = rows(1, 5, size=300)
    bank = centre + 1e-3 * rows(2000, 6, size=300)  # cosines that differ in the seventh digit
    same(nearest_rows(bank, centre, 20), by_hand(bank, centre, 20))


@pytest.mark.parametrize("elements", [1, 100, 5000])
def test_chunks_change_nothing(elements: int) -> None:
    bank = torch.cat([rows(70, 7), rows(20, 7)])
    whole, parts = (nearest_rows(bank, bank, 9, exclude_self=True, chunk_elements=n) for n in (None, elements))
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])


def test_rows_of_zeros_and_none_at_all() -> None:
    bank = torch.cat([torch.zeros(1, 24), rows(30, 8)])
    same(nearest_rows(bank, torch.zeros(1, 24), 3), by_hand(bank, torch.zeros(1, 24), 3))
    assert nearest_rows(bank, bank[:0], 3)[0].shape == (0, 3)


def test_what_goes_in_stays_as_it_is() -> None:
    bank, queries = rows(20, 9), rows(5, 10)
    before = bank.clone(), queries.clone(), torch.get_rng_state()
    nearest_rows(bank, queries, 3)
    assert torch.equal(bank, before[0]) and torch.equal(queries, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def test_features_that_are_not_finite() -> None:
    bank = rows(20, 11)
    for place in ("bank", "queries"):
        parts = {"bank": bank.clone(), "queries": bank[:3].clone()}
        parts[place][2, 0] = torch.nan
        with pytest.raises(WeightsError, match="features that are not finite") as caught:
            nearest_rows(**parts, k=2)
        assert caught.value.hint is not None and "diverged" in caught.value.hint


def test_shapes_that_do_not_fit() -> None:
    bank = rows(4, 12)
    for arguments in ((bank, bank, 0), (bank[:0], bank, 1), (bank, rows(4, 12, size=3), 1)):
        with pytest.raises(ValueError, match="do not fit"):
            nearest_rows(*arguments)
    with pytest.raises(ValueError, match="do not fit"):
        nearest_rows(bank, bank[:2], 1, exclude_self=True)


def test_faiss_that_is_asked_for_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match="faiss is not installed") as caught:
        nearest_rows(rows(3, 0), rows(3, 0), 1, backend="faiss")
    assert caught.value.hint == "Use --backend torch."


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu(backend: str) -> None:
    if backend == "faiss" and choose_backend("auto", torch.device("cuda")) != "faiss":
        pytest.skip("faiss does not work on this GPU")
    bank, queries = rows(5000, 13, size=384), rows(700, 14, size=384)
    cpu, gpu = (nearest_rows(bank, queries, 20, device=device) for device in ("cpu", "cuda"))
    torch.testing.assert_close(cpu[0], gpu[0], rtol=0, atol=2e-7)
    assert torch.equal(cpu[1], gpu[1])
