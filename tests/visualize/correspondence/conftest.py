import dataclasses
from typing import Any

import pytest

from ibot_cli.data.transform import ViewRecipe
from ibot_cli.visualize.correspondence import views
from ibot_cli.visualize.correspondence.pairs import pair_recipe


@pytest.fixture(autouse=True)
def _plain_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours tell the place in these tests, so they must stay; crops and flips are as they are."""

    def plain(*args: Any) -> ViewRecipe:
        return dataclasses.replace(pair_recipe(*args), jitter_prob=0.0, gray_prob=0.0)

    monkeypatch.setattr(views, "pair_recipe", plain)
