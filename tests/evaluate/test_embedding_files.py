import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ibot_cli.errors import UsageError
from ibot_cli.evaluate import embedding_files
from ibot_cli.evaluate.embedding_files import Embeddings, check_can_write, write_embeddings

ABOUT = {"weights": "a run", "pooling": "cls+mean", "normalized": False, "shape": [5, 3]}


def embeddings(labelled: bool = True) -> Embeddings:
    return Embeddings(
        features=torch.arange(15.0).view(5, 3) / 7,
        paths=["a/1.png", "a/2.png", "b/ü.png", "b/4.png", "b/5.png"],
        labels=np.array([0, 0, 1, 1, 1]) if labelled else None,
        classes=["a", "b"] if labelled else None,
        about=ABOUT,
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_npy_with_a_description_beside_it(tmp_path: Path, labelled: bool) -> None:
    written = write_embeddings(tmp_path / "f.npy", embeddings(labelled))
    assert written == [tmp_path / "f.npy", tmp_path / "f.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.json", "f.npy"]
    features = np.load(written[0], allow_pickle=False)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, embeddings().features.numpy())
    assert json.loads(written[1].read_text(encoding="utf-8")) == {
        **ABOUT,
        "classes": ["a", "b"] if labelled else None,
        "paths": embeddings().paths,
        "labels": [0, 0, 1, 1, 1] if labelled else None,
    }


@pytest.mark.parametrize("labelled", [True, False])
def test_safetensors(tmp_path: Path, labelled: bool) -> None:
    (written,) = write_embeddings(tmp_path / "f.safetensors", embeddings(labelled))
    with safe_open(written, framework="pt") as file:
        assert set(file.keys()) == ({"features", "labels"} if labelled else {"features"})
        assert torch.equal(file.get_tensor("features"), embeddings().features)
        metadata = file.metadata()
        assert json.loads(metadata["paths"]) == embeddings().paths
        assert (metadata["pooling"], metadata["normalized"], metadata["shape"]) == ("cls+mean", "false", "[5, 3]")
        if labelled:
            assert file.get_tensor("labels").tolist() == [0, 0, 1, 1, 1]
            assert json.loads(metadata["classes"]) == ["a", "b"]


@pytest.mark.parametrize("labelled", [True, False])
def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: bool) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(embedding_files, "ROWS_PER_GROUP", 2)
    check_can_write(tmp_path / "f.parquet", force=False)
    (written,) = write_embeddings(tmp_path / "f.parquet", embeddings(labelled))
    table = parquet.read_table(written)
    assert table.column_names == (["path", "label", "class", "feature"] if labelled else ["path", "feature"])
    assert table["path"].to_pylist() == embeddings().paths
    np.testing.assert_array_equal(np.array(table["feature"].to_pylist(), np.float32), embeddings().features.numpy())
    assert table.schema.metadata[b"pooling"] == b"cls+mean"
    assert parquet.ParquetFile(written).num_row_groups == 3
    if labelled:
        assert table["label"].to_pylist() == [0, 0, 1, 1, 1]
        assert table["class"].to_pylist() == ["a", "a", "b", "b", "b"]


def test_parquet_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="Parquet files need the package pyarrow, which is not installed") as caught:
        check_can_write(tmp_path / "f.parquet", force=False)
    assert caught.value.hint == "Run `pip install 'ibot-cli[parquet]'`, or write .npy or .safetensors."
    check_can_write(tmp_path / "f.npy", force=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("f.csv", r"f.csv ends in .csv\.$"),
        ("f", r"f has no ending\.$"),
        ("missing/f.npy", r"There is no folder .*missing for --out\.$"),
    ],
)
def test_places_that_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_can_write(tmp_path / name, force=True)


def test_files_are_replaced_only_by_force(tmp_path: Path) -> None:
    out = tmp_path / "f.npy"
    write_embeddings(out, embeddings())
    with pytest.raises(UsageError, match=r"f.npy and .*f.json exist already") as caught:
        check_can_write(out, force=False)
    assert "--force" in (caught.value.hint or "")
    out.unlink()
    with pytest.raises(UsageError, match=r"f.json exists already"):
        check_can_write(out, force=False)
    check_can_write(out, force=True)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UsageError, match=r"folder.npy exists already"):
        check_can_write(tmp_path / "folder.npy", force=True)


def test_a_failure_leaves_no_file_and_no_description_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "f.npy"
    write_embeddings(out, embeddings())
    before = out.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_embeddings(out, embeddings(labelled=False))
    assert [path.name for path in tmp_path.iterdir()] == ["f.npy"]
    assert out.read_bytes() == before
