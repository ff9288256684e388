"""Which number format `auto` means on which device."""

from __future__ import annotations

import pytest
import torch

from ibot_cli.config.schema import RuntimeConfig
from ibot_cli.core.arithmetic import AUTOCAST
from ibot_cli.errors import UsageError
from ibot_cli.train.arithmetic import CORE_FLOPS, decide_arithmetic
from ibot_cli.train.choices import Choice

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def decide(device: torch.device, precision: str | None = None) -> tuple[str | None, dict[str, Choice]]:
    made: dict[str, Choice] = {}
    return decide_arithmetic(RuntimeConfig(precision=precision), device, made).precision, made  # type: ignore[arg-type]


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: request.param)


@pytest.mark.parametrize(
    ("capability", "expected", "reason"),
    [
        ((7, 0), "fp16", "the GPU is older than CUDA capability 8.0: no fast bf16 products, but float16 ones"),
        ((7, 5), "fp16", "the GPU is older than CUDA capability 8.0: no fast bf16 products, but float16 ones"),
        ((8, 0), "bf16", "the CUDA has fast bf16 products"),
        ((9, 0), "bf16", "the CUDA has fast bf16 products"),
    ],
    indirect=["capability"],
)
def test_auto_on_a_gpu(capability: None, expected: str, reason: str) -> None:
    precision, made = decide(GPU)
    assert precision == expected and made["runtime.precision"] == (expected, reason)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16")], indirect=["capability"])
def test_gradients_that_float16_cannot_hold_get_more_range(capability: None, expected: str) -> None:
    made: dict[str, Choice] = {}
    assert decide_arithmetic(RuntimeConfig(), GPU, made, steep=True).precision == expected
    assert expected != "fp32" or "first gradients of a masked Swin exceed float16" in made["runtime.precision"][1]


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_cpu_is_never_fp16(monkeypatch: pytest.MonkeyPatch, native: bool, expected: str) -> None:
    monkeypatch.setattr("ibot_cli.train.arithmetic.has_native_bf16", lambda device: native)
    assert decide(CPU)[0] == expected


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], indirect=True)
def test_tf32_where_it_is(capability: None) -> None:
    assert decide(GPU, "tf32")[0] == "tf32"


@pytest.mark.parametrize("capability", [(7, 5)], indirect=True)
@pytest.mark.parametrize("device", [CPU, GPU])
def test_tf32_where_it_is_not(capability: None, device: torch.device) -> None:
    with pytest.raises(UsageError) as caught:
        decide(device, "tf32")
    assert caught.value.message == (
        f"runtime.precision: {device} has no TF32 products; they need a GPU of CUDA capability 8.0 or higher."
    )
    assert caught.value.hint == "Use runtime.precision=fp32, which is exact, or auto."


def test_what_the_user_says_stands_without_a_reason() -> None:
    for precision in ("fp32", "bf16", "fp16"):
        found, made = decide(CPU, precision)
        assert found == precision and "runtime.precision" not in made


def test_every_precision_has_a_type_and_a_rate() -> None:
    assert {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16} == AUTOCAST
    assert CORE_FLOPS.keys() == AUTOCAST.keys()
