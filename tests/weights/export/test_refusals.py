"""What a model of another library cannot hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm

from ibot_cli.errors import WeightsError
from ibot_cli.weights.export.forms import FORMS, ExportOptions
from ibot_cli.weights.export.subject import export_subject
from ibot_cli.weights.timm_models import TimmBackbone
from tests.weights.export.networks import VIT, loaded_backbone, loaded_classifier


@pytest.mark.parametrize("name", ["timm", "hf"])
def test_a_kept_projection_layer(name: str) -> None:
    kept = export_subject(loaded_classifier(VIT, "cls", projection=8))
    with pytest.raises(WeightsError, match="no projection layer between feature and head") as raised:
        FORMS[name].check(kept, ExportOptions())
    assert "--to onnx, torch-export or safetensors" in str(raised.value.hint)


@pytest.mark.parametrize("name", ["timm", "hf"])
def test_a_projection_head(name: str) -> None:
    from ibot_cli.core.heads import Head

    head = Head(32, 8, None, hidden_size=8, bottleneck_size=4, num_layers=2, activation="gelu", norm="none")
    subject = export_subject(replace(loaded_backbone(VIT), head=head), with_head=True)
    with pytest.raises(WeightsError, match="no place for a projection head") as raised:
        FORMS[name].check(subject, ExportOptions(with_head=True))
    assert "Leave --with-head out" in str(raised.value.hint)


@pytest.mark.parametrize("name", ["timm", "hf"])
def test_a_network_that_is_not_ours(name: str) -> None:
    model = TimmBackbone(timm.create_model("test_convnext", num_classes=0)).eval()
    foreign = export_subject(
        replace(loaded_backbone(VIT), backbone=model, shape=None, description="timm:test_convnext")
    )
    with pytest.raises(WeightsError, match="timm:test_convnext has other layers than the ViT and Swin") as raised:
        FORMS[name].check(foreign, ExportOptions())
    assert "--to onnx or --to torch-export" in str(raised.value.hint)
