"""One form written, read back, compared and described."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ibot_cli.errors import ExportError, UsageError, WeightsError
from ibot_cli.weights.export.compare import comparison_images
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.forms import FORMS
from ibot_cli.weights.export.request import open_subject
from ibot_cli.weights.export.safetensors_form import SAFETENSORS
from ibot_cli.weights.export.write import check_export, export
from tests.weights.export.networks import VIT, subject_of

OPTIONS = ExportOptions()


def off_by(share: float) -> Form:
    """A form whose `patches` are off by this share of the largest value."""

    def read_back(folder: Path) -> Callable[[Tensor], dict[str, Tensor]]:
        network = SAFETENSORS.read_back(folder)

        def shifted(images: Tensor) -> dict[str, Tensor]:
            outputs = network(images)
            patches = outputs["patches"]
            return outputs | {"patches": patches + share * patches.abs().max()}

        return shifted

    return replace(SAFETENSORS, read_back=read_back)


def test_everything_is_told(tmp_path: Path) -> None:
    subject = subject_of(VIT)
    result = export(subject, SAFETENSORS, tmp_path / "out", OPTIONS, comparison_images(subject))
    assert set(result.files) == {"README.md", "model.safetensors"}
    assert result.files["model.safetensors"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert result.differences == {"cls": 0.0, "patches": 0.0} and result.tolerance == 1e-5
    assert (result.image_size, result.other_size, result.num_images) == (32, 48, 8)
    assert result.elsewhere == {"cls": 0.0, "patches": 0.0}
    assert str(tmp_path / "out" / "model.safetensors") in result.usage
    card = (tmp_path / "out" / "README.md").read_text()
    assert "load_weights('model.safetensors')" in card and str(tmp_path) not in card


def test_a_small_difference_passes(tmp_path: Path) -> None:
    subject = subject_of(VIT)
    result = export(subject, off_by(5e-6), tmp_path / "a.safetensors", OPTIONS, comparison_images(subject))
    assert result.differences["patches"] == pytest.approx(5e-6, rel=0.2) and set(result.files) == {
        "a.safetensors", "a.safetensors.md"
    }  # fmt: skip


@pytest.mark.parametrize("share", [2e-5, float("nan")])
@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_a_difference_above_the_tolerance_leaves_nothing(tmp_path: Path, name: str, share: float) -> None:
    subject = subject_of(VIT)
    with pytest.raises(ExportError) as told:
        export(subject, off_by(share), tmp_path / name, OPTIONS, comparison_images(subject))
    figure = "nan" if share != share else "2.0e-05"
    assert f"`patches` differs by {figure} of its largest value on 8 images; the tolerance is 1e-05" in str(told.value)
    assert "Nothing was written" in str(told.value.hint) and not list(tmp_path.iterdir())


def test_a_library_that_does_not_open_it_is_told(tmp_path: Path) -> None:
    def read_back(folder: Path) -> Any:
        raise RuntimeError("Missing key(s): norm.weight\nand more")

    subject = subject_of(VIT)
    with pytest.raises(
        ExportError, match=r"^timm does not open what was written for it: Missing key\(s\): norm"
    ) as told:
        export(
            subject, replace(FORMS["timm"], read_back=read_back), tmp_path / "o", OPTIONS, comparison_images(subject)
        )
    assert "Nothing was written" in str(told.value.hint) and not list(tmp_path.iterdir())


def test_a_form_that_refuses_leaves_nothing(tmp_path: Path) -> None:
    def check(*_: Any) -> None:
        raise WeightsError("not this one")

    subject = subject_of(VIT)
    with pytest.raises(WeightsError, match="not this one"):
        export(subject, replace(SAFETENSORS, check=check), tmp_path / "out", OPTIONS, comparison_images(subject))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "extra"), [("hf", "hf"), ("onnx", "onnx")])
def test_what_is_not_installed_is_told(name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=f"--to {name} needs what is not installed: ") as told:
        check_export(FORMS[name], tmp_path / "out", OPTIONS)
    assert told.value.hint == f"pip install 'ibot-cli[{extra}]'"
    check_export(SAFETENSORS, tmp_path / "out", OPTIONS)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_only_onnx_has_fewer_bits(precision: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--{precision}: the form safetensors has fp32 weights only") as told:
        check_export(SAFETENSORS, tmp_path / "out", ExportOptions(precision=precision))
    assert told.value.hint == "Use --to onnx for it."


def test_both_networks_leave_only_where_they_can_and_nothing_else_is_asked(run: Path) -> None:
    official = FORMS["official"]
    for form, asked, both in (
        (official, {}, True),
        (official, {"which": "teacher"}, False),
        (official, {"image_size": 24}, False),
        (SAFETENSORS, {}, False),
    ):
        subject, options = open_subject(str(run), form, OPTIONS, **asked)  # type: ignore[arg-type]
        assert (options.student is not None) == both and (subject.head is not None) == both
        assert subject.loaded.origin.which == "teacher"


def test_a_file_with_the_student_alone_has_no_teacher(run: Path, tmp_path: Path) -> None:
    subject, _ = open_subject(str(run), SAFETENSORS, OPTIONS, "student")
    export(subject, SAFETENSORS, tmp_path / "s.safetensors", OPTIONS, comparison_images(subject))
    with pytest.raises(UsageError, match=r"--which teacher: .*s\.safetensors holds the student alone") as told:
        open_subject(str(tmp_path / "s.safetensors"), SAFETENSORS, OPTIONS, "teacher")
    assert told.value.hint == "Leave --which out."
