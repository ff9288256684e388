import pytest
import torch
from torch.nn import functional

from ibot_cli.core.heads import Head
from ibot_cli.evaluate.cluster import prototypes
from ibot_cli.evaluate.cluster.prototypes import nearest_prototypes, num_prototypes


@pytest.fixture
def head() -> Head:
    torch.manual_seed(0)
    return Head(6, 11, 5, hidden_size=16, bottleneck_size=4, norm="batch")


def test_raw_scores_of_the_cls_prototypes(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    head.train()
    assigned, scores = nearest_prototypes(head, cls)
    assert head.training
    head.eval()
    with torch.no_grad():
        hidden = functional.normalize(head.mlp(cls), dim=1)
        directions = functional.normalize(head.last_layer.weight_v, dim=1) * head.last_layer.weight_g
        expected = hidden @ directions.T
    assert torch.equal(assigned, expected.argmax(dim=1)) and torch.allclose(scores, expected.max(dim=1).values)
    assert len(set(assigned.tolist())) > 2 and num_prototypes(head) == 11
    monkeypatch.setitem(prototypes._CHUNK_ELEMENTS, "cpu", 50)
    again, close = nearest_prototypes(head, cls)
    assert torch.equal(assigned, again) and torch.allclose(scores, close)
    assert not scores.requires_grad
