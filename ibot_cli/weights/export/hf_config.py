"""Which model of Hugging Face's transformers library an exported network is, and its config files."""

from __future__ import annotations

import math
from typing import Any

from ibot_cli.core import swin
from ibot_cli.weights.description import KEY
from ibot_cli.weights.export.subject import Subject, vit_sizes
from ibot_cli.weights.norm_epsilon import LIBRARIES, OURS

_BICUBIC = 3  # of PIL
_MLP_RATIO = 4


def model_class(subject: Subject) -> str:
    """The class that computes the same; a mean-pooled ViT with registers has none, see `hf_form.check`.

    Of the classes with layer scale, BEiT's classifies the mean of the patches.
    """
    classes = subject.classifier is not None
    if subject.kind == "swin":
        return "SwinForImageClassification" if classes else "SwinModel"
    if subject.shape is not None and subject.shape.registers:
        return "Dinov2WithRegistersForImageClassification" if classes else "Dinov2WithRegistersModel"
    if subject.classifier is not None and subject.classifier.fc_norm is not None:
        return "BeitForImageClassification"
    if subject.shape is not None and subject.shape.layer_scale:
        return "Dinov2ForImageClassification" if classes else "Dinov2Model"
    return "ViTForImageClassification" if classes else "ViTModel"


def model_config(subject: Subject) -> dict[str, Any]:
    """The content of config.json, in fields that versions 4 and 5 of the library read."""
    content: dict[str, Any] = {
        "architectures": [model_class(subject)],
        "image_size": subject.image_size,
        "num_channels": subject.channels,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "drop_path_rate": 0.0,
        "torch_dtype": "float32",
        **_sizes(subject),
    }
    if subject.classes is not None:
        content["id2label"] = {str(number): name for number, name in enumerate(subject.classes)}
        content["label2id"] = {name: number for number, name in enumerate(subject.classes)}
    return {**content, KEY: subject.describe()}


def image_processor_config(subject: Subject) -> dict[str, Any]:
    """The content of preprocessor_config.json: the shorter side is resized, then the centre is cropped.

    Of the library's image processors, `BitImageProcessor` does so in version 4 as well as in 5.
    """
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": subject.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": math.floor(subject.image_size / subject.crop_ratio)},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": subject.image_size, "width": subject.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / (2**subject.bits - 1),
        "do_normalize": True,
        "image_mean": list(subject.mean),
        "image_std": list(subject.std),
    }


def _sizes(subject: Subject) -> dict[str, Any]:
    shape = subject.shape
    assert shape is not None, "the form's check refuses other networks"
    if subject.kind == "swin":
        size = swin.SIZES[shape.arch]
        return {
            "model_type": "swin",
            "patch_size": swin.PATCH_SIZE,
            "embed_dim": size.width,
            "depths": list(size.depths),
            "num_heads": list(size.heads),
            "window_size": shape.window_size,
            "mlp_ratio": float(_MLP_RATIO),
            "layer_norm_eps": LIBRARIES,  # two kinds of its norms have no other
        }
    width, depth, heads = vit_sizes(shape)
    sizes = {
        "patch_size": shape.patch_size,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "layer_norm_eps": OURS,
    }
    if model_class(subject).startswith("Dinov2"):
        registers = {"num_register_tokens": shape.registers} if shape.registers else {}
        return sizes | {
            "model_type": "dinov2_with_registers" if registers else "dinov2",
            "mlp_ratio": _MLP_RATIO,
            **registers,
            "layerscale_value": 1.0,
        }
    sizes["intermediate_size"] = _MLP_RATIO * width
    if model_class(subject) == "BeitForImageClassification":
        return sizes | {
            "model_type": "beit",
            "use_mean_pooling": True,
            "use_absolute_position_embeddings": True,
            "use_relative_position_bias": False,
            "use_shared_relative_position_bias": False,
            "use_mask_token": False,
            "layer_scale_init_value": shape.layer_scale,
        }
    return sizes | {"model_type": "vit", "pooler_act": "linear"}
