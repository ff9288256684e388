import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ibot_cli.core.heads import Head
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError, UsageError, WeightsError
from ibot_cli.evaluate.baselines import random_weights, raw_pixels
from ibot_cli.evaluate.cluster import baselines as cluster_baselines
from ibot_cli.evaluate.cluster import protocol as cluster_protocol
from ibot_cli.evaluate.cluster.agreement import agreement, hungarian_accuracy, purity
from ibot_cli.evaluate.cluster.kmeans import kmeans
from ibot_cli.evaluate.cluster.protocol import evaluate_clusters
from ibot_cli.evaluate.cluster.result import Clustering, ClusterOptions
from ibot_cli.evaluate.cluster.standardization import standardized
from ibot_cli.evaluate.features import extract
from ibot_cli.weights.load import LoadedBackbone
from tests.evaluate.images import write_folder
from tests.evaluate.passes import loaded

OPTIONS = ClusterOptions(restarts=3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(write_folder(tmp_path / "images", {"dark": 8, "grey": 7, "light": 9}))


def with_head() -> LoadedBackbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        head = Head(16, 6, hidden_size=12, bottleneck_size=5).eval()
    return loaded(head=head)


def features(model: LoadedBackbone, found: Clustering) -> torch.Tensor:
    prepare = eval_transform(model.image_size, model.crop_ratio, 3, model.mean, model.std)
    return extract(model.backbone, found.images.source, prepare).cls


def test_prototypes_and_k_means(data: str) -> None:
    model = with_head()
    found = evaluate_clusters(model, data, ks=[5, 3], options=OPTIONS)
    result, labels = found.result, np.repeat([0, 1, 2], [8, 7, 9])
    assert [(row.method, row.k) for row in result.rows] == [("prototypes", 6), ("kmeans", 3), ("kmeans", 5)]
    assert (result.num_images, result.num_classes, result.prototypes) == (24, 3, 6)
    assert found.labels is not None and found.labels.tolist() == labels.tolist()

    cls = features(model, found)
    assert model.head is not None
    with torch.no_grad():
        logits = functional.normalize(model.head.mlp(cls), dim=1) @ model.head.last_layer.weight().T
    expected = [logits.argmax(dim=1).numpy()]
    expected += [kmeans(standardized(cls), k, spherical=True, restarts=3).assignments for k in (3, 5)]
    for row, grouping, clusters in zip(result.rows, found.groupings, expected, strict=True):
        assert (grouping.assignments == clusters).all()
        scores = row.scores
        assert scores is not None
        for name, value in asdict(agreement(clusters, labels)).items():
            assert getattr(scores, name) == value
        assert scores.purity == purity(clusters, labels)
        paired = row.k == 3
        assert scores.hungarian_accuracy == (hungarian_accuracy(clusters, labels, 3, 3) if paired else None)
        assert (scores.chance.hungarian is not None) == paired
        assert row.sizes.used + row.sizes.empty == row.k
    assert torch.equal(found.groupings[0].centrality, logits.max(dim=1).values)


def test_what_belongs_to_k_means_alone(data: str) -> None:
    own, three = evaluate_clusters(with_head(), data, options=OPTIONS).result.rows
    assert (own.nmi_of_runs, own.stability, own.inertia, own.converged) == ((), None, None, None)
    assert len(three.nmi_of_runs) == 3 and three.stability is not None and three.inertia and three.converged
    assert three.scores is not None and three.scores.nmi in three.nmi_of_runs
    single = evaluate_clusters(with_head(), data, baselines=False, options=replace(OPTIONS, restarts=1)).result
    assert single.rows[1].stability is None and len(single.rows[1].nmi_of_runs) == 1


def test_the_same_answer_twice_and_plain_data(data: str) -> None:
    first, again = (evaluate_clusters(with_head(), data, options=OPTIONS).result for _ in range(2))
    assert first == again
    json.dumps(asdict(first), allow_nan=False)
    other = evaluate_clusters(with_head(), data, ks=[9], options=replace(OPTIONS, seed=1), baselines=False).result
    assert other.rows[1].scores != evaluate_clusters(with_head(), data, ks=[9], options=OPTIONS).result.rows[1].scores


def test_options_change_what_they_say(data: str) -> None:
    model, labels = loaded(), np.repeat([0, 1, 2], [8, 7, 9])
    for spherical in (True, False):
        for standardize in (True, False):
            options = replace(OPTIONS, spherical=spherical, standardize=standardize)
            found = evaluate_clusters(model, data, ks=[4], baselines=False, options=options)
            cls = features(model, found)
            rows = standardized(cls) if standardize else cls
            expected = kmeans(rows, 4, spherical=spherical, restarts=3)
            assert found.result.rows[0].inertia == expected.inertia
            assert found.result.rows[0].scores is not None
            assert found.result.rows[0].scores.nmi == agreement(expected.assignments, labels).nmi
            assert found.result.silhouette_metric == ("cosine" if spherical else "euclidean")
    faiss = evaluate_clusters(model, data, baselines=False, options=replace(OPTIONS, backend="faiss")).result
    assert faiss.backend == "faiss"


def test_without_a_head(data: str) -> None:
    result = evaluate_clusters(loaded(), data, baselines=False, options=OPTIONS).result
    assert [row.method for row in result.rows] == ["kmeans"] and result.prototypes is None
    assert "These weights have no projection head, so there are no prototypes to cluster by." in result.notes


def test_baselines_are_as_strong_as_can_be(data: str) -> None:
    model, labels = loaded(), np.repeat([0, 1, 2], [8, 7, 9])
    found = evaluate_clusters(model, data, ks=[3, 4], options=OPTIONS)
    random, pixels = (
        [row for row in found.result.baselines if row.features == name] for name in ("random weights", "raw pixels")
    )
    assert [row.k for row in random] == [row.k for row in pixels] == [3, 4]
    assert {row.num_images for row in found.result.baselines} == {24}
    plain = features(raw_pixels(model), found)
    for row in pixels:
        clusters = kmeans(plain, row.k, restarts=3).assignments
        assert row.nmi == pytest.approx(agreement(clusters, labels).nmi)
        assert row.purity == pytest.approx(purity(clusters, labels))
    for row in random:
        assert row.seeds == len(row.nmi_per_seed) == 3
        for seed, value in enumerate(row.nmi_per_seed):
            cls = standardized(features(random_weights(model, seed), found))
            assert value == agreement(kmeans(cls, row.k, spherical=True, restarts=3).assignments, labels).nmi
        assert row.nmi == pytest.approx(np.mean(row.nmi_per_seed))
        assert 0 < row.nmi_chance < 0.5


def test_baselines_are_cached_and_bounded(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate_clusters(loaded(), data, options=OPTIONS).result.baselines
    monkeypatch.setattr(cluster_baselines, "random_weights", None)  # would fail if it were called
    assert evaluate_clusters(loaded(1), data, options=OPTIONS).result.baselines == first
    monkeypatch.undo()
    monkeypatch.setattr(cluster_baselines, "MAX_TRAIN", 12)
    result = evaluate_clusters(loaded(), data, ks=[3, 20], options=replace(OPTIONS, cache=False)).result
    assert [(row.k, row.num_images) for row in result.baselines] == [(3, 12), (3, 12)]  # no 20 clusters of 12 images
    assert any(note.startswith("The baselines cluster 12 images only; compare their AMI") for note in result.notes)


def test_without_labels(data: str) -> None:
    result = evaluate_clusters(with_head(), str(Path(data) / "dark"), options=OPTIONS).result
    assert result.num_classes is None and result.baselines == ()
    assert [(row.method, row.k) for row in result.rows] == [("prototypes", 6), ("kmeans", 2)]
    assert all(row.scores is None and row.nmi_of_runs == () for row in result.rows)
    assert result.rows[1].silhouette is not None and result.rows[1].stability is not None


def test_labels_of_one_class_say_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path / "split" / "train", {"dark": 2, "light": 2})
    write_folder(tmp_path / "split" / "val", {"dark": 5})
    result = evaluate_clusters(loaded(), str(tmp_path / "split"), options=OPTIONS).result
    assert result.num_classes is None and any("of one class, dark" in note for note in result.notes)


def test_unreadable_images_are_left_out_and_named(data: str) -> None:
    for number in range(7):
        (Path(data) / "light" / f"{number}.png").write_bytes(b"nothing")
    found = evaluate_clusters(loaded(), data, baselines=False, options=OPTIONS)
    assert found.result.num_images == 17 == len(found.index) == len(found.groupings[0].assignments)
    assert sum("0.png could not be read and was left out:" in note for note in found.result.notes) == 1
    assert "2 more images could not be read." in found.result.notes
    with pytest.raises(UsageError, match="there are only 17 images"):
        evaluate_clusters(loaded(), data, ks=[18], options=OPTIONS)


def test_too_many_clusters_are_refused_before_the_features(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_protocol, "feature_pass", None)
    with pytest.raises(UsageError, match="there are only 24 images"):
        evaluate_clusters(loaded(), data, ks=[25], options=OPTIONS)


def test_features_that_are_not_finite(data: str) -> None:
    model = loaded()
    with torch.no_grad():
        model.backbone.norm.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(WeightsError, match="not finite"):
        evaluate_clusters(model, data, options=OPTIONS)


def test_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="No image of"):
        evaluate_clusters(loaded(), str(tmp_path), options=OPTIONS)


def test_a_run_that_was_cut_short_is_told(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished = lambda rows, k, options, report: replace(kmeans(rows, k, restarts=1), converged=False)  # noqa: E731
    monkeypatch.setattr(cluster_protocol, "cluster", unfinished)
    result = evaluate_clusters(loaded(), data, ks=[6, 9], baselines=False, options=OPTIONS).result
    assert "k-means did not come to rest within 300 iterations at K = 6, 9." in result.notes


def test_progress(data: str) -> None:
    stages: dict[str, tuple[int, int]] = {}
    evaluate_clusters(
        loaded(), data, options=OPTIONS, progress=lambda stage, done, total: stages.update({stage: (done, total)})
    )
    expected = ["features", "k-means, K = 3", *(f"random weights, seed {seed}" for seed in range(3)), "raw pixels"]
    assert list(stages) == expected
    assert stages["features"] == (24, 24) and stages["k-means, K = 3"] == (3, 3)


def test_a_damaged_cache_is_noted(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = evaluate_clusters(loaded(), data, baselines=False, options=OPTIONS).result
    (file,) = (tmp_path / "cache").rglob("cls@1.f32")
    content = bytearray(file.read_bytes())
    content[5] ^= 0xFF
    file.write_bytes(content)
    again = evaluate_clusters(loaded(), data, baselines=False, options=OPTIONS).result
    assert sum("were damaged" in note for note in again.notes) == 1
    assert replace(again, notes=()) == replace(first, notes=())
