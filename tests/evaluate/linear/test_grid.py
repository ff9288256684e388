import pytest

from ibot_cli.errors import UsageError
from ibot_cli.evaluate.linear.grid import PUBLISHED_RATES, HeadSpec, head_grid, parse_rates


def test_published_rates() -> None:
    assert len(PUBLISHED_RATES) == len(set(PUBLISHED_RATES)) == 45
    assert PUBLISHED_RATES[0] == 1e-4 and PUBLISHED_RATES[-1] == 9.0 and 0.03 in PUBLISHED_RATES
    assert list(PUBLISHED_RATES) == sorted(PUBLISHED_RATES)


def test_grids() -> None:
    assert head_grid([0.1, 1.0]) == (HeadSpec(lr=0.1), HeadSpec(lr=1.0))
    every = head_grid(all_optimizers=True)
    assert len(every) == len(set(every)) == 180
    assert {(spec.optimizer, spec.weight_decay) for spec in every} == {
        ("sgd", 0.0),
        ("sgd", 1e-6),
        ("lars", 0.0),
        ("lars", 1e-6),
    }


def test_rates_as_text() -> None:
    assert parse_rates("published") == PUBLISHED_RATES
    assert parse_rates(" 1, 0.1,1e-2,1") == (0.01, 0.1, 1.0)


@pytest.mark.parametrize(
    ("text", "part"), [("0.1,x", "x"), ("0", "0"), ("-1", "-1"), ("", ""), ("nan", "nan"), ("inf", "inf")]
)
def test_bad_rates(text: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rates(text)
    assert caught.value.message == f"--lrs {text}: {part!r} is not a positive number."
    assert caught.value.hint == "Write for example --lrs 0.01,0.1,1."
