from pathlib import Path

from ibot_cli.config.reference import reference_markdown

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_the_reference_page_is_up_to_date() -> None:
    again = "run `python -m ibot_cli.config.reference > docs/reference/configuration.md`"
    assert PAGE.read_text(encoding="utf-8") == reference_markdown(), again
