import logging
import socket
from typing import NoReturn

import pytest
import timm
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from ibot_cli.errors import WeightsError
from ibot_cli.weights import timm_names
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.timm_names import load_timm


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(timm_names, "getproxies", dict)


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def create(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(timm, "create_model", create)


def hint(name: str, match: str) -> str:
    with pytest.raises(WeightsError, match=match) as caught:
        load_timm(name)
    return caught.value.hint or ""


def test_unknown_name_with_suggestion() -> None:
    with pytest.raises(WeightsError, match="timm has no model 'vit_smal_patch16_224'") as caught:
        load_weights("timm:vit_smal_patch16_224")
    assert caught.value.hint is not None and "vit_small_patch16_224" in caught.value.hint


def test_unknown_tag_with_those_that_there_are() -> None:
    found = hint("vit_small_patch16_224.dini", r"timm has no weights 'dini' of vit_small_patch16_224")
    assert "vit_small_patch16_224.dino" in found
    assert hint("vit_giant_patch14_224.in1k", "timm has no weights 'in1k'") == (
        "It has no weights of vit_giant_patch14_224 at all."
    )


def test_no_network_and_no_cached_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, LocalEntryNotFoundError("offline"))
    found = hint("vit_small_patch16_224.dino", "weights of timm:vit_small_patch16_224.dino are not in the cache, and")
    assert "save_for_hf(timm.create_model('vit_small_patch16_224.dino', pretrained=True), 'FOLDER')" in found


def test_the_hub_is_not_asked_and_says_nothing_where_it_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[bool] = []

    def create(*_: object, **__: object) -> NoReturn:
        seen.append(constants.is_offline_mode())
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        logging.getLogger("timm.models._hub").error("no file")
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    level = logging.getLogger("huggingface_hub").level
    hint("vit_tiny_patch16_224", "cannot be reached")
    assert seen == [True] and not constants.is_offline_mode()
    assert logging.getLogger("huggingface_hub").level == level
    assert capsys.readouterr().err == ""


def test_behind_a_proxy_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def create(*_: object, **__: object) -> NoReturn:
        seen.append(constants.is_offline_mode())
        raise OSError("503 Service Unavailable")

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm_names, "getproxies", lambda: {"https": "http://proxy:3128"})
    assert "network" in hint("vit_tiny_patch16_224", "timm cannot load 'vit_tiny_patch16_224': 503")
    assert seen == [False]


def test_a_repository_of_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyError("architecture"))
    found = hint("hf-hub:facebook/dinov2-small", "facebook/dinov2-small is no model of timm")
    assert "hf download facebook/dinov2-small --local-dir FOLDER" in found
