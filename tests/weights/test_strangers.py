"""Files and networks of other kinds are refused by what they are; no byte of them is executed."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ibot_cli.errors import WeightsError
from ibot_cli.weights.load import load_weights


def refusal(path: Path) -> tuple[str, str]:
    with pytest.raises(WeightsError) as caught:
        load_weights(str(path))
    assert caught.value.hint is not None
    return caught.value.message.removeprefix(f"{path} "), caught.value.hint


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return buffer.getvalue()


def tarball() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.ones(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("a.onnx", b"\x08\x09\x12\x07pytorch", "is an ONNX graph", "Use the file it was made from."),
        ("a.h5", b"\x89HDF\r\n\x1a\n...", "is an HDF5 file", "PyTorch's format"),
        ("weights.pth", b"\x89HDF\r\n\x1a\n...", "is an HDF5 file", "PyTorch's format"),
        ("saved_model.pb", b"\x08\x01", "is a graph of TensorFlow", "PyTorch's format"),
        ("model.ckpt.index", b"\x00\x01", "is a checkpoint of TensorFlow", "PyTorch's format"),
        ("model.ckpt.data-00000-of-00001", b"\x00\x01", "is a checkpoint of TensorFlow", "PyTorch's format"),
        ("a.pth", b"\x1c\x00\x00\x00TFL3", "is a model of TensorFlow Lite", "PyTorch's format"),
        ("flax_model.msgpack", b"\x81\xa1", "is a checkpoint of Flax", "from_flax"),
        ("a.npz", arrays(), "is an archive of NumPy arrays", "PyTorch's format"),
        ("a.pth", arrays(), "is an archive of NumPy arrays", "PyTorch's format"),
        ("a.pth", b"\x93NUMPY\x01\x00", "is an array of NumPy", "PyTorch's format"),
        ("a.pth", b"GGUF\x03\x00", "is a GGUF file", "PyTorch's format"),
        ("a.pth.gz", b"\x1f\x8b\x08", "is compressed (gzip)", "Unpack it first."),
        ("a.pth", tarball(), "is a tar archive", "Unpack it first."),
        ("a.pt", archive("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"), "is a TorchScript", "torch.jit.load"),
        ("a.pt2", archive("m/archive_format", "m/models/model.json"), "is a program of torch.export", "export.load"),
        ("a.zip", archive("teacher.pth", "README"), "is an archive around a weights file", "name the file inside"),
        ("photo.png", b"\x89PNG\r\n", "is an image (PNG)", "WEIGHTS comes first, then DATA."),
        ("photo.jpg", b"\xff\xd8\xff\xe0", "is an image (JPEG)", "WEIGHTS comes first, then DATA."),
        ("model.safetensors.index.json", b'{"weight_map": {}}', "is a text in JSON", "the folder of both"),
        (
            "a.pkl",
            pickle.dumps({"w": np.ones(2)}),
            "is a pickle that torch.save did not write",
            "save only the tensors",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_other_files(tmp_path: Path, name: str, content: bytes, message: str, hint: str) -> None:
    (tmp_path / name).write_bytes(content)
    said, advice = refusal(tmp_path / name)
    assert said.startswith(message) and hint in advice


@pytest.mark.parametrize("name", ["code", "models", "data"])
def test_the_name_of_a_file_does_not_make_it_a_program(tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.ones(1)}}, tmp_path / f"{name}.pt")
    assert "patch_embed.proj.weight is missing" in refusal(tmp_path / f"{name}.pt")[0]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("conv1.weight", "layer1.0.conv1.weight", "fc.weight"), "a ResNet"),
        (("module.backbone.layer1.0.conv1.weight",), "a ResNet"),
        (
            ("token_embedding.weight", "positional_embedding", "transformer.resblocks.0.ln_1.weight"),
            "a text tower of CLIP",
        ),
        (("text_model.encoder.layers.0.layer_norm1.weight",), "a text tower of CLIP"),
        (("visual.conv1.weight", "token_embedding.weight"), "CLIP in OpenAI's layout"),
        (("stages.0.blocks.0.conv_dw.weight", "stem.0.weight"), "a ConvNeXt"),
        (("downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"), "a ConvNeXt"),
        (("0.module.linear.weight", "0.module.linear.bias"), "a linear classifier without its backbone"),
        (("bert.embeddings.word_embeddings.weight",), "a language model"),
        (("features.0.weight", "classifier.6.weight"), "a convolutional network"),
    ],
)
def test_other_networks(tmp_path: Path, names: tuple[str, ...], kind: str) -> None:
    torch.save({"state_dict": {name: torch.ones(2, 2) for name in names}}, tmp_path / "a.pth")
    message, hint = refusal(tmp_path / "a.pth")
    assert message == (f"holds weights of {kind}, not of a vision transformer: patch_embed.proj.weight is missing.")
    assert hint.startswith("Supported are ViT and Swin backbones")
