"""The forms in which weights leave, by the names of `--to`."""

from __future__ import annotations

from collections.abc import Mapping

from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.hf_form import HF
from ibot_cli.weights.export.official_form import OFFICIAL
from ibot_cli.weights.export.onnx_form import ONNX
from ibot_cli.weights.export.safetensors_form import SAFETENSORS
from ibot_cli.weights.export.timm_form import TIMM
from ibot_cli.weights.export.torch_export_form import TORCH_EXPORT

__all__ = ["FORMS", "ExportOptions", "Form"]

FORMS: Mapping[str, Form] = {
    "hf": HF,
    "onnx": ONNX,
    "safetensors": SAFETENSORS,
    "timm": TIMM,
    "torch-export": TORCH_EXPORT,
    "official": OFFICIAL,
}
