"""How float32 products are computed, and that it is put back."""

from __future__ import annotations

import pytest
import torch

from ibot_cli.core.arithmetic import float32_products


def settings() -> tuple[str, bool, str, bool]:
    """What torch says of products and of convolutions, in the words of its newer and of its older interface."""
    backends = torch.backends
    newer = backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision == "tf32"
    return (*newer, torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32)


def test_float32_is_float32_unless_tf32_is_asked_for() -> None:
    before = settings()
    with float32_products(tf32=True):
        assert settings() == ("tf32", True, "high", True)
        with float32_products():
            assert settings() == ("ieee", False, "highest", False)
        assert settings() == ("tf32", True, "high", True)
    assert settings()[2:] == before[2:]


def test_it_is_put_back_after_an_error() -> None:
    before = settings()[2:]
    with pytest.raises(ZeroDivisionError), float32_products(tf32=True):
        _ = 1 / 0
    assert settings()[2:] == before
