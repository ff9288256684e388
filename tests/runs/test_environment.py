import json
from datetime import UTC, datetime, timedelta

import torch

from ibot_cli import __version__
from ibot_cli.runs.environment import cpu_name, describe


def test_describes_versions_and_command(monkeypatch) -> None:
    monkeypatch.setenv("SOME_SECRET_TOKEN", "do-not-store")
    found = describe(["ibot", "pretrain"])
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert describe([], decoder="pillow")["jpeg_decoder"] == f"pillow {found['packages']['pillow']}"
    assert (found["ibot"], found["command"]) == (__version__, ["ibot", "pretrain"])
    assert found["threads"] == torch.get_num_threads()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(found["time"])) < timedelta(minutes=10)
    assert "do-not-store" not in json.dumps(found)
    assert cpu_name()
