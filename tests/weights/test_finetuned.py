"""Fine-tuned checkpoints as WEIGHTS."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ibot_cli.errors import WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.weights.load import load_weights, weights_hash
from tests.weights.finetuned_files import write_run

PIXELS = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("pooling", "projection"), [("mean", None), ("cls", None), ("cls", 24)])
def test_a_run_gives_its_classifier(tmp_path: Path, pooling: str, projection: int | None) -> None:
    model = write_run(tmp_path / "run", pooling=pooling, projection=projection)
    loaded = load_weights(str(tmp_path / "run"))
    assert loaded.classes == ("dark", "light", "odd") and loaded.head is None
    assert (loaded.channels, loaded.image_size, loaded.crop_ratio) == (1, 16, 0.9)
    assert (loaded.mean, loaded.std) == ((0.3,), (0.4,))
    assert loaded.description == f"fine-tuned network of {tmp_path}/run/checkpoints/step-00000012.pt, step 12"
    with torch.no_grad():
        assert torch.equal(loaded.classifier(PIXELS), model(PIXELS))
        torch.testing.assert_close(loaded.backbone(PIXELS)[:, 0], model.features(PIXELS))
    fresh = loaded.rebuild()
    assert fresh.state_dict().keys() == loaded.backbone.state_dict().keys()
    with torch.no_grad():
        assert fresh(PIXELS).shape == loaded.backbone(PIXELS).shape
        assert not torch.allclose(fresh(PIXELS), loaded.backbone(PIXELS))


def test_the_hash_covers_the_head(tmp_path: Path) -> None:
    model = write_run(tmp_path / "run")
    loaded = load_weights(str(next((tmp_path / "run/checkpoints").glob("*.pt"))))
    assert loaded.weights_hash == weights_hash(model) != weights_hash(loaded.backbone)
    with torch.no_grad():
        model.head.bias[0] += 1
    assert weights_hash(model) != loaded.weights_hash


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    before = torch.get_rng_state()
    load_weights(str(tmp_path / "run"))
    assert torch.equal(torch.get_rng_state(), before)


def test_tensors_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    path = next((tmp_path / "run/checkpoints").glob("*.pt"))
    state = checkpoint.load(path).state
    state["model"]["head.weight"] = torch.zeros(4, 16)
    del state["model"]["fc_norm.bias"]
    checkpoint.save(path, state, step=12, epoch=3)
    with pytest.raises(WeightsError, match=r"missing: fc_norm\.bias; of another shape: head\.weight is \[4, 16\]"):
        load_weights(str(path))


def test_a_checkpoint_that_does_not_say_its_network(tmp_path: Path) -> None:
    write_run(tmp_path / "run", network={"pooling": "mean"})
    with pytest.raises(WeightsError, match="does not say which network was fine-tuned") as caught:
        load_weights(str(tmp_path / "run"))
    assert caught.value.hint == "Use a checkpoint of `ibot finetune`."
