"""Files of embeddings: `.npy` with a `.json` beside it, `.parquet`, or `.safetensors`; written whole or not at all."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.durable import finite, write_atomically
from ibot_cli.errors import UsageError

FORMATS = (".npy", ".parquet", ".safetensors")
ROWS_PER_GROUP = 16_384


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Features of images, row by row.

    Attributes:
        features: float32 `[n, D]` on the CPU.
        paths: Where each image is.
        labels: int64 `[n]`, places in `classes`, or None.
        classes: Names, or None.
        about: What made them: plain values.
    """

    features: Tensor
    paths: Sequence[str]
    labels: NDArray[np.int64] | None
    classes: Sequence[str] | None
    about: Mapping[str, Any]

    @cached_property
    def names(self) -> list[str] | None:
        """Class name of each image."""
        if self.labels is None or self.classes is None:
            return None
        return [self.classes[label] for label in self.labels.tolist()]


def written_files(out: Path) -> list[Path]:
    """What writing to `out` would write.

    Raises:
        UsageError: The end of the name is none of the formats.
    """
    suffix = out.suffix.lower()
    if suffix not in FORMATS:
        given = f"ends in {out.suffix}" if out.suffix else "has no ending"
        raise UsageError(f"--out {out} {given}.", f"The end of the name is the format: {', '.join(FORMATS)}.")
    return [out, out.with_suffix(".json")] if suffix == ".npy" else [out]


def check_can_write(out: Path, *, force: bool) -> None:
    """Look for what would make writing fail, before anything is computed.

    Raises:
        UsageError: An unknown format, no such folder, a file that is there already, or a missing package.
    """
    files = written_files(out)
    if not out.parent.is_dir():
        raise UsageError(f"There is no folder {out.parent} for --out.", "Make it first, or choose another place.")
    if taken := [str(file) for file in files if file.is_dir() or (file.exists() and not force)]:
        verb = "exist" if len(taken) > 1 else "exists"
        raise UsageError(f"{' and '.join(taken)} {verb} already.", "--force replaces files; or choose another name.")
    if out.suffix.lower() == ".parquet" and not _has_pyarrow():
        raise UsageError(
            "Parquet files need the package pyarrow, which is not installed.",
            "Run `pip install 'ibot-cli[parquet]'`, or write .npy or .safetensors.",
        )


def write_embeddings(out: Path, embeddings: Embeddings) -> list[Path]:
    """Write the file, and what belongs beside it; `check_can_write` says before whether it can work.

    Returns:
        The files written.

    Raises:
        OSError: The disk is full or not writable; the file that was there is untouched then.
    """
    files = written_files(out)
    for beside in files[1:]:  # never the description of other features beside the new ones
        beside.unlink(missing_ok=True)
    for file, write in zip(files, _WRITERS[out.suffix.lower()], strict=True):
        write_atomically(file, lambda target, write=write: write(target, embeddings))  # type: ignore[misc]
    return files


def _has_pyarrow() -> bool:
    try:
        return importlib.util.find_spec("pyarrow") is not None
    except ValueError:  # somebody put None in its place
        return False


def _write_npy(file: BinaryIO, embeddings: Embeddings) -> None:
    np.save(file, embeddings.features.numpy(), allow_pickle=False)


def _write_json(file: BinaryIO, embeddings: Embeddings) -> None:
    """The columns beside the features, row by row in the same order."""
    labels = None if embeddings.labels is None else embeddings.labels.tolist()
    content = {
        **embeddings.about,
        "classes": None if embeddings.classes is None else list(embeddings.classes),
        "paths": list(embeddings.paths),
        "labels": labels,
    }
    file.write((json.dumps(finite(content), ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode())


def _write_safetensors(file: BinaryIO, embeddings: Embeddings) -> None:
    """Tensors `features` and, with labels, `labels`; the metadata are texts of JSON."""
    import torch
    from safetensors.torch import save

    tensors = {"features": embeddings.features.contiguous()}
    if embeddings.labels is not None:
        tensors["labels"] = torch.from_numpy(embeddings.labels)
    described = {**embeddings.about, "paths": list(embeddings.paths)}
    if embeddings.classes is not None:
        described["classes"] = list(embeddings.classes)
    file.write(save(tensors, metadata={key: _text(value) for key, value in described.items()}))


def _write_parquet(file: BinaryIO, embeddings: Embeddings) -> None:
    """Columns `path`, `label`, `class` (the last two with labels only) and `feature`, a list of D floats."""
    import pyarrow
    import pyarrow.parquet

    fields = [pyarrow.field("path", pyarrow.string())]
    if embeddings.labels is not None:
        fields.append(pyarrow.field("label", pyarrow.int64()))
    if embeddings.names is not None:
        fields.append(pyarrow.field("class", pyarrow.string()))
    fields.append(pyarrow.field("feature", pyarrow.list_(pyarrow.float32(), embeddings.features.shape[1])))
    metadata = {key: _text(value) for key, value in embeddings.about.items()}
    schema = pyarrow.schema(fields, metadata=metadata)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, len(embeddings.paths), ROWS_PER_GROUP):
            rows = slice(start, start + ROWS_PER_GROUP)
            writer.write_table(pyarrow.Table.from_arrays(_columns(embeddings, rows, schema), schema=schema))


def _columns(embeddings: Embeddings, rows: slice, schema: Any) -> list[Any]:
    """Arrays of pyarrow, in the order of the schema."""
    import pyarrow

    flat = pyarrow.array(embeddings.features[rows].numpy().reshape(-1))
    columns: dict[str, Any] = {
        "path": pyarrow.array(list(embeddings.paths[rows]), type=pyarrow.string()),
        "feature": pyarrow.FixedSizeListArray.from_arrays(flat, embeddings.features.shape[1]),
    }
    if embeddings.labels is not None:
        columns["label"] = pyarrow.array(embeddings.labels[rows])
    if embeddings.names is not None:
        columns["class"] = pyarrow.array(embeddings.names[rows], type=pyarrow.string())
    return [columns[name] for name in schema.names]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(finite(value), ensure_ascii=False)


_Writer = Callable[[BinaryIO, Embeddings], None]
_WRITERS: Mapping[str, Sequence[_Writer]] = {
    ".npy": (_write_npy, _write_json),
    ".safetensors": (_write_safetensors,),
    ".parquet": (_write_parquet,),
}
