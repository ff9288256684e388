import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import make_blobs
from torch import Tensor
from torch.nn import functional

from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.evaluate.cluster import center_search
from ibot_cli.evaluate.cluster import kmeans as module
from ibot_cli.evaluate.cluster.center_search import choose_backend
from ibot_cli.evaluate.cluster.kmeans import kmeans

BACKENDS = ["torch", "faiss"]
BLOBS = torch.from_numpy(make_blobs(600, 12, centers=15, cluster_std=1.5, random_state=0)[0]).float()
UNIFORM = torch.from_numpy(np.random.default_rng(0).random((800, 6))).float()
NORMAL = torch.from_numpy(np.random.default_rng(1).normal(size=(700, 40)) + 50).float()  # far from the origin


def inertia(rows: Tensor, found: module.KMeans) -> float:
    return float((rows - found.centers[found.assignments]).double().square().sum())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [BLOBS, UNIFORM, NORMAL], ids=["blobs", "uniform", "normal"])
@pytest.mark.parametrize("k", [2, 15, 80])
def test_as_good_as_scikit_learn(rows: Tensor, k: int, backend: str) -> None:
    expected = Reference(k, n_init=10, random_state=0).fit(rows.numpy()).inertia_
    found = kmeans(rows, k, backend=backend)
    assert found.inertia == pytest.approx(inertia(rows, found), rel=1e-4)
    assert found.inertia < 1.01 * expected
    assert found.converged and found.backend == backend
    assert found.inertia == min(found.inertias) and len(found.inertias) == len(found.runs) == 10
    assert float(found.squared.sum()) == pytest.approx(found.inertia, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_comes_to_rest(backend: str) -> None:
    """Every row is at its nearest centre, and every centre is the mean of its rows."""
    found = kmeans(BLOBS, 15, backend=backend, restarts=2)
    assert (torch.cdist(BLOBS, found.centers).argmin(dim=1).numpy() == found.assignments).all()
    for cluster in range(15):
        assert torch.allclose(found.centers[cluster], BLOBS[found.assignments == cluster].mean(dim=0), atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_spherical_finds_the_best_of_all_partitions(backend: str) -> None:
    rows = torch.from_numpy(np.random.default_rng(3).normal(size=(8, 3))).float() * torch.linspace(1, 40, 8)[:, None]
    unit = functional.normalize(rows.double(), dim=1)
    # for a cluster whose rows sum to s, the best centre is s / |s|, and the cosines to it sum to |s|
    best = max(
        sum(float(unit[np.array(part) == each].sum(dim=0).norm()) for each in range(3))
        for part in itertools.product(range(3), repeat=8)
    )
    found = kmeans(rows, 3, spherical=True, restarts=20, backend=backend)
    cosines = (unit * found.centers[found.assignments]).sum()
    assert float(cosines) == pytest.approx(best, rel=1e-6)
    assert found.inertia == pytest.approx(2 * (8 - best), rel=1e-5)
    assert torch.allclose(found.centers.norm(dim=1), torch.ones(3))


def test_spherical_ignores_lengths_and_keeps_exact_in_a_narrow_cone() -> None:
    """Untrained networks give features that are nearly the same direction."""
    clusters = np.repeat(np.arange(4), 25)
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(100 + np.eye(4, 30)[clusters] + rng.normal(size=(100, 30)) * 0.05)
    rows *= torch.from_numpy(rng.uniform(0.1, 10, (100, 1)))
    found = kmeans(rows, 4, spherical=True)
    assert len({*zip(clusters.tolist(), found.assignments.tolist(), strict=True)}) == 4


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_seeded_and_silent_about_the_global_generators(backend: str, spherical: bool) -> None:
    torch.manual_seed(4)
    np.random.seed(4)  # noqa: NPY002
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (
        kmeans(UNIFORM, 9, spherical=spherical, restarts=3, seed=seed, backend=backend) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()  # noqa: NPY002
    assert torch.equal(first.centers, again.centers) and first.inertias == again.inertias
    assert all((a == b).all() for a, b in zip(first.runs, again.runs, strict=True))
    assert first.inertias != other.inertias
    assert (first.runs[0] == kmeans(UNIFORM, 9, spherical=spherical, restarts=1, backend=backend).assignments).all()


def test_backends_and_chunks_give_the_same_clusters() -> None:
    expected = kmeans(BLOBS, 15)
    for options in ({"backend": "faiss"}, {"chunk_elements": 100}, {"chunk_elements": 1}):
        found = kmeans(BLOBS, 15, restarts=10 if "backend" in options else 2, **options)
        assert (found.assignments == expected.assignments).all()
        assert found.inertia == pytest.approx(expected.inertia, rel=1e-5)


def test_products_sum_as_indexed_additions_do() -> None:
    """On a GPU the sums are a product; both ways must agree."""
    rows, assigned = BLOBS[:50], torch.arange(50) % 7
    product = functional.one_hot(assigned, 9).T.to(rows.dtype) @ rows
    assert torch.allclose(module._chunk_sums(rows, assigned, 9), product, atol=1e-4)


@pytest.mark.parametrize("spherical", [False, True])
def test_centres_without_rows_move_to_far_rows(monkeypatch: pytest.MonkeyPatch, spherical: bool) -> None:
    monkeypatch.setattr(module, "_first_centers", lambda rows, k, rng: torch.full((k, 12), 1e4))
    found = kmeans(BLOBS, 15, spherical=spherical, restarts=1)
    assert len(np.unique(found.assignments)) == 15 and found.converged
    rows = functional.normalize(BLOBS, dim=1) if spherical else BLOBS
    assert (torch.cdist(rows, found.centers).argmin(dim=1).numpy() == found.assignments).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_different_rows_than_clusters(backend: str) -> None:
    rows = torch.tensor([[0.0, 1.0], [3.0, 0.0], [5.0, 5.0]]).repeat(10, 1)
    found = kmeans(rows, 8, backend=backend, restarts=3)
    assert found.inertia == pytest.approx(0, abs=1e-8) and found.converged
    assert np.bincount(found.assignments, minlength=8).tolist() == [10, 10, 10, 0, 0, 0, 0, 0]


def test_one_cluster_and_a_cluster_each() -> None:
    one = kmeans(NORMAL, 1)
    assert torch.allclose(one.centers[0], NORMAL.mean(dim=0), atol=1e-3)
    assert one.inertia == pytest.approx(float((NORMAL - NORMAL.mean(dim=0)).square().sum()), rel=1e-4)
    each = kmeans(UNIFORM[:20], 20, restarts=1)
    assert sorted(each.assignments.tolist()) == list(range(20)) and each.inertia == pytest.approx(0, abs=1e-6)


def test_the_largest_cluster_comes_first() -> None:
    rows = torch.cat([torch.zeros(3, 2), torch.ones(9, 2), torch.full((5, 2), 7.0)])
    for run in kmeans(rows, 3, restarts=4).runs:
        assert run.tolist() == [2] * 3 + [0] * 9 + [1] * 5


def test_large_data_start_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEED_ROWS", 30)
    monkeypatch.setattr(module, "_SEED_ROWS_PER_CENTER", 2)
    assert kmeans(BLOBS, 15).inertia < 1.01 * Reference(15, n_init=10, random_state=0).fit(BLOBS.numpy()).inertia_


def test_stops_when_told() -> None:
    found = kmeans(UNIFORM, 20, restarts=1, max_iterations=2)
    assert not found.converged and found.iterations == 2
    assert found.inertia == pytest.approx(inertia(UNIFORM, found), rel=1e-5)
    assert (torch.cdist(UNIFORM, found.centers).argmin(dim=1).numpy() == found.assignments).all()


def test_progress() -> None:
    calls: list[tuple[int, int]] = []
    kmeans(BLOBS, 3, restarts=3, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("k", "restarts"), [(0, 1), (601, 1), (3, 0)])
def test_impossible_requests(k: int, restarts: int) -> None:
    with pytest.raises(ValueError, match=f"{k} clusters of 600 rows, {restarts} runs"):
        kmeans(BLOBS, k, restarts=restarts)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite(bad: float) -> None:
    rows = BLOBS.clone()
    rows[400, 3] = bad
    with pytest.raises(WeightsError, match="not finite"):
        kmeans(rows, 3)


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(center_search, "_faiss", lambda: None)
    assert choose_backend("auto", cpu) == choose_backend("auto", cuda) == "torch"
    with pytest.raises(UsageError, match="faiss is not installed") as caught:
        kmeans(BLOBS, 3, backend="faiss")
    assert caught.value.hint == "Use --backend torch."


def test_faiss_on_a_gpu_only_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda:1")
    monkeypatch.setattr(center_search, "_works_on", lambda device: False)
    assert choose_backend("auto", cuda) == "torch" == choose_backend("auto", torch.device("cpu"))
    with pytest.raises(UsageError, match="does not work on this GPU"):
        choose_backend("faiss", cuda)
    monkeypatch.setattr(center_search, "_works_on", lambda device: True)
    assert choose_backend("auto", cuda) == choose_backend("faiss", cuda) == "faiss"
    assert choose_backend("torch", cuda) == choose_backend("torch", torch.device("cpu")) == "torch"


@pytest.mark.parametrize("answer", [[1, 0], [0, 1], None])
def test_whether_faiss_works_is_tried_out(monkeypatch: pytest.MonkeyPatch, answer: list[int] | None) -> None:
    def search(rows: Tensor) -> tuple[Tensor, Tensor]:
        if answer is None:
            raise RuntimeError("no kernel image is available for execution on the device")
        return torch.zeros(2), torch.tensor(answer)

    class Faiss:
        GpuIndexFlatL2 = None

        def __init__(self, num_gpus: int) -> None:
            self.get_num_gpus = lambda: num_gpus

    works = center_search._works_on.__wrapped__
    monkeypatch.setattr(center_search, "_faiss_search", lambda centers: search)
    for module_found, expected in ((Faiss(1), answer == [1, 0]), (Faiss(0), False), (object(), False), (None, False)):
        monkeypatch.setattr(center_search, "_faiss", lambda found=module_found: found)
        assert works(torch.device("cpu")) is expected
