"""The authors' recorded checkpoints in every form: opened there, they give the recorded features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ibot_cli.weights.export.forms import FORMS, ExportOptions
from ibot_cli.weights.export.request import open_subject
from ibot_cli.weights.load import load_weights

DATA = Path(__file__).parents[2] / "data" / "golden"


@pytest.mark.parametrize("form", FORMS)
def test_the_recorded_features_come_out(form: str, tmp_path: Path) -> None:
    weights, chosen = str(DATA / "ibot_tiny_checkpoint.pth"), FORMS[form]
    subject, options = open_subject(weights, chosen, ExportOptions(), heads=3)
    chosen.check(subject, options)
    chosen.write(subject, tmp_path, options)
    step = torch.load(DATA / "ibot_tiny.pt", weights_only=True)["steps"][0]
    with torch.no_grad():
        found = chosen.read_back(tmp_path)(step["global_views"].flatten(0, 1))
    tokens = torch.cat([found["cls"].unsqueeze(1), found["patches"]], dim=1)
    torch.testing.assert_close(tokens, step["teacher_features_global"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["safetensors", "official"])
def test_the_recorded_scores_and_small_crops_too(form: str, tmp_path: Path) -> None:
    subject, options = open_subject(
        str(DATA / "ibot_tiny_checkpoint.pth"), FORMS[form], ExportOptions(with_head=True), heads=3
    )
    FORMS[form].write(subject, tmp_path, options)
    loaded = load_weights(str(tmp_path / str(FORMS[form].file)))  # it says its heads itself now
    step = torch.load(DATA / "ibot_tiny.pt", weights_only=True)["steps"][0]
    assert loaded.head is not None
    with torch.no_grad():
        local = loaded.backbone(step["local_views"].flatten(0, 1))
        cls = loaded.backbone(step["global_views"].flatten(0, 1))[:, 0]
        scores = loaded.head.cls_logits(loaded.head.bottleneck(cls))
    torch.testing.assert_close(local, step["teacher_features_local"], atol=1e-5, rtol=0)
    torch.testing.assert_close(scores, step["teacher_cls"], atol=1e-5, rtol=0)
