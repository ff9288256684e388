from __future__ import annotations

import pytest
import torch

from ibot_cli.core.batch import Batch
from tests.core import tiny


def test_index_and_weights_follow_the_mask() -> None:
    mask = torch.tensor([[[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], [[1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1]]]).bool()
    batch = Batch.make(torch.zeros(2, 3, 1, 4, 4), torch.zeros(0, 3, 1, 2, 2), mask)
    assert batch.mask_index.tolist() == [1, 2, 8, 12, 13, 14, 15, 19, 21, 23]
    sixth = 1 / 6
    expected = [sixth / 2, sixth / 2, sixth, *[sixth / 4] * 4, sixth, sixth / 2, sixth / 2]
    torch.testing.assert_close(batch.mask_weights, torch.tensor(expected))
    assert batch.num_images == 3


def test_no_mask_gives_empty_index() -> None:
    batch = Batch.make(torch.zeros(2, 3, 1, 4, 4), torch.zeros(0, 3, 1, 2, 2), torch.zeros(2, 3, 4, dtype=torch.bool))
    assert batch.mask_index.shape == batch.mask_weights.shape == (0,)
    assert batch.mask_index.dtype == torch.int64 and batch.mask_weights.dtype == torch.float32


def test_drop_path_is_exchanged_and_nothing_else() -> None:
    batch, factors = tiny.batch(), torch.ones(2, 2, 4, 3)
    with_factors = batch.with_drop_path(factors)
    assert batch.drop_path is None and with_factors.drop_path is factors
    assert with_factors.global_views is batch.global_views and with_factors.mask_index is batch.mask_index


def test_to_moves_every_tensor() -> None:
    batch = tiny.batch(drop_path=torch.ones(2, 2, 4, 3))
    moved = batch.to(torch.device("meta"))
    assert {value.device.type for value in vars(moved).values()} == {"meta"}
    late = moved.with_drop_path(torch.ones(2, 2, 4, 3)).to(torch.device("meta"))
    assert late.drop_path is not None and late.drop_path.device.type == "meta"
    assert tiny.batch().to(torch.device("meta")).drop_path is None


def test_padding_points_to_the_first_patch_and_weighs_nothing() -> None:
    batch = tiny.batch()
    number = len(batch.mask_index)
    padded = batch.padded(number + 3)
    assert torch.equal(padded.mask_index[:number], batch.mask_index) and padded.mask_index[number:].tolist() == [0] * 3
    assert torch.equal(padded.mask_weights[:number], batch.mask_weights)
    assert padded.mask_weights[number:].tolist() == [0.0] * 3 and (batch.mask_weights > 0).all()
    assert padded.mask_index.dtype == torch.int64 and padded.mask is batch.mask
    assert batch.padded(number) is batch
    with pytest.raises(ValueError, match=f"{number} masked patches are more than {number - 1}"):
        batch.padded(number - 1)
