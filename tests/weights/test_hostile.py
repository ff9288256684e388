"""Files that someone made to do harm, or that are junk: refused in words, nothing executed, little memory used."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli.errors import WeightsError
from ibot_cli.weights.load import load_weights

TEXT = struct.Struct("<I")


def word(text: str) -> bytes:
    """A string as pickle writes it."""
    return b"X" + TEXT.pack(len(text)) + text.encode()


def called(name: str, argument: bytes) -> bytes:
    """A pickle that calls something, named with its module, with one argument."""
    module, _, function = name.rpartition(".")
    return b"\x80\x02" + f"c{module}\n{function}\n".encode() + argument + b"\x85R."


def saved(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.hub.load", "torch.storage._load_from_bytes"])
def test_code_is_named_and_not_run(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "a.pth", called(name, word(f"touch {tmp_path / 'ran'}")))
    with pytest.raises(WeightsError, match=r"holds Python code \(.+\), which is not executed"):
        load_weights(str(path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("numpy.core.multiarray.scalar", word("x")),
        ("numpy.dtype", word("no type")),
        ("argparse.Namespace", word("x")),
        ("torch.Size", word("x")),
        ("torch._utils._rebuild_tensor_v2", word("x")),
        ("builtins.bytearray", word("x")),
    ],
)
def test_what_is_allowed_with_wrong_arguments(tmp_path: Path, name: str, argument: bytes) -> None:
    path = saved(tmp_path / "a.pth", called(name, argument))
    with pytest.raises(WeightsError, match="cannot be read: it is truncated or not a PyTorch file"):
        load_weights(str(path))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", bytes(1 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match=r"unpacks to 0\.0 GB from .+; it is not opened"):
        load_weights(str(path))


def network(**changes: Any) -> dict[str, Any]:
    state: dict[str, Any] = {
        "patch_embed.proj.weight": torch.zeros(1).expand(384, 3, 16, 16),
        "pos_embed": torch.zeros(1, 5, 384),
        "blocks.0.norm1.weight": torch.zeros(384),
    }
    return state | {name.replace("__", "."): value for name, value in changes.items()}


JUNK: dict[str, tuple[object, str]] = {
    "positions without axes": (network(pos_embed=torch.zeros(4)), r"positions of the weights have shape \[4\]"),
    "no positions": (network(pos_embed=torch.zeros(1, 0, 384)), r"positions of the weights have shape \[1, 0, 384\]"),
    "many blocks": (network(blocks__999999__norm1__weight=torch.zeros(1)), "unexpected: backbone.blocks.999999"),
    "patches of nothing": (network(patch_embed__proj__weight=torch.zeros(384, 3, 0, 0)), "ZeroDivisionError"),
    "registers without axes": (network(register_tokens=torch.zeros(3)), "cannot be understood"),
    "layer scale of another width": (
        network(mask_token=torch.zeros(1, 384), blocks__0__ls1__gamma=torch.zeros(5)) | {
            "blocks.0.attn.proj.weight": torch.zeros(384, 384)
        },
        r"blocks\.0\.ls1\.gamma is \[5\], not \[384\]",
    ),
    "numbers for names": ({"state_dict": {5: torch.zeros(2)}}, "no known layout"),
    "numbers for names of a teacher": ({"teacher": {5: torch.zeros(2)}}, "no known layout"),
    "half of BEiT's biases": (
        network(blocks__0__attn__q_bias=torch.zeros(384), norm__weight=torch.zeros(384)),
        "cannot be understood",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JUNK)
def test_junk_in_a_state_dict(tmp_path: Path, name: str) -> None:
    content, message = JUNK[name]
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message):
        load_weights(str(tmp_path / "a.pth"))


def safetensors(path: Path, metadata: dict[str, str], tensor: str) -> Path:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": metadata, tensor: entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return path


IMAGES = {"channels": 3, "image_size": 32, "mean": [0.0] * 3, "std": [1.0] * 3, "crop_ratio": 1.0}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"arch": "os.system", "image_size": 32}, "there is no network 'os.system'"),
        ({"arch": "vit_small", "image_size": "32"}, "no network has image_size '32'"),
        ({"arch": "vit_small", "image_size": 10**9}, "no network has image_size 1000000000"),
        ({"arch": "vit_small", "image_size": 32, "depth": 10**4}, "no network has 10000 blocks"),
        ({"arch": "vit_small", "image_size": 32, "width": -5}, "no network has width -5"),
        ({"arch": "vit_small", "image_size": 32, "heads": 7}, "7 heads do not divide the width"),
        ({"arch": "vit_small", "image_size": 32, "more": 7}, "unexpected keyword argument 'more'"),
    ],
)
def test_descriptions_of_impossible_networks(tmp_path: Path, shape: dict[str, Any], message: str) -> None:
    text = json.dumps({"version": 1, "preparation": IMAGES, "shape": shape})
    path = safetensors(tmp_path / "a.safetensors", {"ibot": text}, "backbone.x")
    with pytest.raises(WeightsError, match=message):
        load_weights(str(path))


def test_a_model_of_timm_with_more_blocks_than_tensors(tmp_path: Path) -> None:
    text = json.dumps({"name": "vit_small_patch16_224", "kwargs": {"depth": 10**9}})
    path = safetensors(tmp_path / "a.safetensors", {"timm": text}, "x")
    with pytest.raises(WeightsError, match="asks for 1000000000 blocks and holds 1 tensors"):
        load_weights(str(path))


@pytest.mark.parametrize("metadata", [{"ibot": "[" * 100_000}, {"timm": "[" * 100_000}])
def test_deep_json(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = safetensors(tmp_path / "a.safetensors", metadata, "backbone.x")
    with pytest.raises(WeightsError, match=r"cannot be understood: .+ \(RecursionError: "):
        load_weights(str(path))
