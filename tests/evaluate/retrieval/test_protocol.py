from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from ibot_cli.errors import DataError
from ibot_cli.evaluate.baselines import random_weights, raw_pixels
from ibot_cli.evaluate.features import feature_pass
from ibot_cli.evaluate.retrieval import baselines as retrieval_baselines
from ibot_cli.evaluate.retrieval.gallery import Gallery, open_gallery
from ibot_cli.evaluate.retrieval.lookup import FeatureOptions
from ibot_cli.evaluate.retrieval.protocol import retrieve
from ibot_cli.evaluate.retrieval.queries import open_search
from ibot_cli.weights.load import LoadedBackbone
from tests.evaluate.images import write_folder
from tests.evaluate.passes import loaded


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def noise(folder: Path, classes: dict[str, int], seed: int = 0) -> Path:
    """Images that no network sorts perfectly."""
    rng = np.random.default_rng(seed)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name / f"{index}.png")
    return folder


def by_hand(network: LoadedBackbone, gallery: Gallery, pooling: str) -> tuple[float, dict[int, float]]:
    """mAP by scikit-learn and precision by sorting, on cosines in float64."""
    bank = feature_pass(network, gallery.source, poolings=(pooling,), cache=False)
    asked = (
        bank if gallery.queries is None else feature_pass(network, gallery.queries, poolings=(pooling,), cache=False)
    )
    b, q = (part.pooled(pooling).double().numpy() for part in (bank, asked))
    b, q = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (b, q))
    assert gallery.labels is not None
    labels = gallery.labels[bank.index]
    truth = labels if gallery.queries is None else gallery.query_labels[asked.index]  # type: ignore[index]
    scores: list[float] = []
    precision: dict[int, list[float]] = {1: [], 5: [], 10: []}
    for row in range(len(q)):
        kept = np.arange(len(b)) != (row if gallery.queries is None else -1)
        right = labels[kept] == truth[row]
        if not right.any():
            continue
        cosine = (b[kept] @ q[row]).astype(np.float32)
        scores.append(average_precision_score(right, cosine))
        order = np.argsort(-cosine, kind="stable")
        for k, values in precision.items():
            values.append(float(right[order[:k]].mean()))
    return float(np.mean(scores)), {k: float(np.mean(values)) for k, values in precision.items()}


def test_scores_leaving_one_out_equal_sklearn(tmp_path: Path) -> None:
    data = noise(tmp_path / "images", {"a": 14, "b": 9, "c": 1})
    gallery = open_gallery(str(data), channels=3)
    result, found = retrieve(loaded(), gallery, str(data), k=3, options=FeatureOptions(pooling="cls2+mean"))
    mean, precision = by_hand(loaded(), gallery, "cls2+mean")
    assert result.mean_average_precision == pytest.approx(mean, abs=1e-9)
    assert result.precision_at == pytest.approx(precision, abs=1e-9)
    assert (result.num_queries, result.num_counted, result.num_gallery, result.num_classes) == (24, 23, 24, 3)
    assert "1 queries" not in " ".join(result.notes)
    assert "1 query is left out, because no other image of the gallery is of its class." in result.notes
    assert result.protocol == "Each image is looked up among all the others." and result.pooling == "cls2+mean"
    assert all(query.query not in [near.path for near in query.neighbours] for query in found)


def test_scores_of_a_test_part_equal_sklearn_and_stand_beside_baselines(tmp_path: Path) -> None:
    data = tmp_path / "images"
    noise(data / "train", {"a": 8, "c": 9})
    noise(data / "val", {"a": 5, "b": 2, "c": 4}, seed=1)
    gallery = open_gallery(str(data), channels=3)
    stages: list[str] = []
    result, found = retrieve(
        loaded(), gallery, str(data), listed=False, progress=lambda stage, *_: stages.append(stage)
    )
    assert found == () and result.protocol == "Each test image is looked up among the training images."
    assert (result.num_queries, result.num_counted, result.num_gallery) == (11, 9, 17)
    assert "2 queries are left out, because no image of the gallery is of their class." in result.notes
    assert result.mean_average_precision == pytest.approx(by_hand(loaded(), gallery, "cls")[0], abs=1e-9)
    baselines = result.baselines
    assert baselines is not None and (baselines.num_gallery, baselines.num_queries) == (17, 11)
    expected = [by_hand(random_weights(loaded(), seed), gallery, "cls") for seed in range(3)]
    assert baselines.random_map_per_seed == pytest.approx([mean for mean, _ in expected], abs=1e-9)
    assert baselines.random_map == pytest.approx(np.mean([mean for mean, _ in expected]), abs=1e-9)
    assert baselines.random_precision_at[5] == pytest.approx(np.mean([p[5] for _, p in expected]), abs=1e-9)
    pixels = by_hand(raw_pixels(loaded()), gallery, "cls")
    assert baselines.pixels_map == pytest.approx(pixels[0], abs=1e-9)
    assert baselines.pixels_precision_at == pytest.approx(pixels[1], abs=1e-9)
    shown = list(dict.fromkeys(stages))
    assert shown[:3] == ["gallery images", "queries", "rankings"] and "random weights, seed 2" in shown


def test_baselines_are_kept_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = str(noise(tmp_path / "images", {"a": 9, "b": 9}))
    gallery = open_gallery(data, channels=3)
    monkeypatch.setattr(retrieval_baselines, "MAX_TRAIN", 8)
    first = retrieve(loaded(), gallery, data)[0]
    assert first.baselines is not None and first.baselines.num_gallery == 8
    assert any("look 8 queries up among 8 images only" in note for note in first.notes)
    monkeypatch.setattr(retrieval_baselines, "look_up", None)
    assert retrieve(loaded(), gallery, data)[0].baselines == first.baselines
    for options in (FeatureOptions(pooling="mean"), FeatureOptions(cache=False)):  # another figure, and no cache
        with pytest.raises(TypeError):
            retrieve(loaded(), gallery, data, options=options)
    assert retrieve(loaded(), gallery, data, baselines=False)[0].baselines is None


def test_neighbours_have_paths_classes_and_similarities(tmp_path: Path) -> None:
    data = noise(tmp_path / "images", {"a": 5, "b": 5})
    gallery = open_gallery(str(data), channels=3)
    found = retrieve(loaded(), gallery, str(data), k=4, baselines=False)[1]
    assert [query.query for query in found] == [str(data / name / f"{i}.png") for name in "ab" for i in range(5)]
    bank = feature_pass(loaded(), gallery.source).pooled("cls").double()
    unit = torch.nn.functional.normalize(bank, dim=1)
    cosines = unit @ unit.T - 9 * torch.eye(10, dtype=torch.float64)
    for row, query in enumerate(found):
        order = cosines[row].argsort(descending=True)[:4].tolist()
        assert [near.place for near in query.neighbours] == order
        assert [near.similarity for near in query.neighbours] == pytest.approx(cosines[row, order].tolist(), abs=1e-6)
        assert [near.path for near in query.neighbours] == [gallery.source.path(place) for place in order]
        assert [near.label for near in query.neighbours] == [Path(near.path).parent.name for near in query.neighbours]
        assert query.label == Path(query.query).parent.name


def test_queries_are_looked_up_without_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise(tmp_path / "images", {"a": 5, "b": 5})
    other = noise(tmp_path / "more", {"b": 1, "z": 1}, seed=1)
    (other / "z" / "bad.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    gallery = open_search("images", ["images/a/2.png", "more"], channels=3)
    assert gallery.own is not None and gallery.own.tolist() == [2, -1, -1, -1]
    result, found = retrieve(loaded(), gallery, "images", k=20)
    assert [query.query for query in found] == ["images/a/2.png", "more/b/0.png", "more/z/0.png"]
    assert [query.label for query in found] == ["a", "b", None]
    assert [len(query.neighbours) for query in found] == [9, 9, 9] and result.k == 9
    assert str(data / "a" / "2.png") not in [near.path for near in found[0].neighbours]
    assert result.mean_average_precision is None and result.num_counted is None and result.baselines is None
    assert "k = 20 was cut to the 9 images that a query can find." in result.notes
    assert any("more/z/bad.png could not be read and was left out: not an image" in note for note in result.notes)


def test_unreadable_images_shift_rows_against_places(tmp_path: Path) -> None:
    data = noise(tmp_path / "images", {"a": 4, "b": 4})
    (data / "a" / "0.png").write_bytes(b"no image")  # rows and places are no longer the same
    query = data / "b" / "1.png"
    found = retrieve(loaded(), open_search(str(data), [str(query)], channels=3), str(data))[1]
    assert str(query) not in [near.path for near in found[0].neighbours] and len(found[0].neighbours) == 6


def test_without_labels_or_with_one_class(tmp_path: Path) -> None:
    data = noise(tmp_path / "images", {"a": 4})
    result, found = retrieve(loaded(), open_gallery(str(data / "a"), channels=3), "a")
    assert result.mean_average_precision is None and result.precision_at == {} and result.num_classes is None
    assert any("has no labels, so mAP and precision are left out" in note for note in result.notes)
    assert found[0].label is None and found[0].neighbours[0].label is None
    both = tmp_path / "both"
    noise(both / "train", {"a": 3, "b": 1})
    noise(both / "val", {"a": 2})
    assert retrieve(loaded(), open_gallery(str(both), channels=3), "x")[0].num_counted == 2
    single = retrieve(loaded(), open_gallery(str(both), channels=3, part="test"), "x")[0]
    assert single.mean_average_precision is None and single.num_classes == 1
    assert any("has one class only, a: every answer would be right" in note for note in single.notes)


def test_nobody_has_another_of_its_class(tmp_path: Path) -> None:
    data = noise(tmp_path / "images", {"a": 1, "b": 1})
    result, _ = retrieve(loaded(), open_gallery(str(data), channels=3), "x")
    assert result.mean_average_precision is None and result.num_counted == 0 and result.baselines is None
    text = "No query has another image of its class in the gallery, so mAP and precision are left out."
    assert text in result.notes


def test_one_image_has_no_neighbour(tmp_path: Path) -> None:
    data = noise(tmp_path / "images", {"a": 1})
    with pytest.raises(DataError, match="x has one readable image only, which has no neighbour") as caught:
        retrieve(loaded(), open_gallery(str(data), channels=3), "x")
    assert caught.value.hint == "Add images to the gallery."


def test_parts_of_the_data(tmp_path: Path) -> None:
    data = tmp_path / "images"
    write_folder(data / "train", {"dark": 4, "light": 3})
    write_folder(data / "val", {"dark": 2, "light": 1})
    sizes = {"all": 10, "train": 7, "test": 3}
    for part, size in sizes.items():
        gallery = open_gallery(str(data), channels=3, part=part)  # type: ignore[arg-type]
        assert len(gallery.source) == size and gallery.queries is None
    auto, again = (open_gallery(str(data), channels=3) for _ in range(2))
    assert (len(auto.source), len(auto.queries or ())) == (7, 3)
    assert auto.fingerprint == again.fingerprint != open_gallery(str(data), channels=3, part="all").fingerprint


def test_queries_that_are_not_there(tmp_path: Path) -> None:
    data = str(noise(tmp_path / "images", {"a": 2}))
    with pytest.raises(DataError, match=r"There is no image or folder .*nothing\.png"):
        open_search(data, [str(tmp_path / "nothing.png")], channels=3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no image"):
        open_search(data, [str(tmp_path / "empty")], channels=3)
    with pytest.raises(DataError, match="empty holds no files"):
        open_search(str(tmp_path / "empty"), [f"{data}/a/0.png"], channels=3)
