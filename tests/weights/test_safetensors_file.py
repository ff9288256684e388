"""Safetensors files whose first bytes look like something else."""

import json
from pathlib import Path

import pytest
import torch

from ibot_cli.weights.files import read_weights_file

# a pickle, a gzip archive, a text in JSON
LENGTHS = [0x80, 0x8B1F, 0x227B]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_length_of_the_header_is_no_magic_number(length: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).ljust(length).encode()
    path.write_bytes(length.to_bytes(8, "little") + header + torch.tensor([1.0, 2.0]).numpy().tobytes())
    assert read_weights_file(path)["state_dict"]["a"].tolist() == [1.0, 2.0]
