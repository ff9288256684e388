import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

from ibot_cli.durable import finite
from ibot_cli.errors import UsageError
from ibot_cli.visualize.patterns import files
from ibot_cli.visualize.patterns.files import check_pattern_folder, default_folder, pattern_numbers, write_patterns
from tests.visualize.patterns.paintings import COMPARISON, RAGGED, UNLABELLED, find, other


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written(tmp_path: Path) -> None:
    found = find()
    seen: list[tuple[str, int, int]] = []
    made = write_patterns(
        tmp_path / "out", RAGGED, found, beside=other(found), progress=lambda *step: seen.append(step)
    )
    assert [path.name for path in made.sheets] == [
        f"pattern_0{rank}_prototype_{number}.png" for rank, number in enumerate((3, 0, 2, 1), start=1)
    ]
    assert [path.name for path in made.random_sheets] == [
        f"random_0{rank}_prototype_{number}.png" for rank, number in enumerate((1, 2, 0), start=1)
    ]
    everything = {made.overview, made.page, made.numbers, *made.sheets, *made.random_sheets}
    assert set(made.folder.iterdir()) == everything
    for path in (made.overview, *made.sheets, *made.random_sheets):
        with Image.open(path) as image:
            assert image.format == "PNG" and image.mode == "RGB" and min(image.size) > 100
    assert seen == [("figures", done, 9) for done in range(1, 10)]


def test_the_numbers_say_everything(tmp_path: Path) -> None:
    found = replace(find(), purity=COMPARISON)
    settings = {"weights": "w", "split": "auto", "heads": None}
    made = write_patterns(tmp_path / "out", RAGGED, found, beside=other(found), settings=settings)
    read = json.loads(made.numbers.read_text())
    assert read == pattern_numbers(found, other(found), settings)
    assert read["made_by"] == "ibot visualize-patterns" and read["settings"] == settings
    assert read["files"] == ["overview.png", "index.html", *(path.name for path in (*made.sheets, *made.random_sheets))]
    for block, patterns in ((read, found), (read["random"], other(found))):
        written = [dict(pattern) for pattern in block["patterns"]]
        assert all(pattern.pop("file").endswith(f"_{pattern['prototype']}.png") for pattern in written)
        plain = finite(asdict(patterns))
        assert written == plain.pop("patterns")
        assert {name: block[name] for name in plain} == plain
    assert read["purity"]["random"][1]["members"] == 0.6
    assert read["patterns"][0]["members"][0]["path"] == "painting 1"


def test_what_is_not_finite_is_null() -> None:
    found = find(UNLABELLED)
    numbers = pattern_numbers(replace(found, patterns=(replace(found.patterns[0], probability=float("nan")),)))
    assert numbers["patterns"][0]["probability"] is None and numbers["random"] is None
    assert numbers["classes"] is None and numbers["patterns"][0]["purity"] is None


def test_file_names_keep_their_order(tmp_path: Path) -> None:
    found = find()
    many = replace(found, num_prototypes=8192, patterns=found.patterns[:1] * 3)
    names = [path.name for path in write_patterns(tmp_path / "out", RAGGED, many).sheets]
    assert names == [f"pattern_0{rank}_prototype_0003.png" for rank in (1, 2, 3)]


@pytest.mark.parametrize("stop", ["pattern_sheet", "overview_sheet", "patterns_page", "write_atomically"])
def test_an_interruption_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    found, calls, original = find(), list[str](), getattr(files, stop)

    def interrupted(*args: object, **options: object) -> object:
        calls.append(stop)
        if len(calls) == (2 if stop in ("pattern_sheet", "write_atomically") else 1):
            raise KeyboardInterrupt
        return original(*args, **options)

    write_patterns(tmp_path / "old", RAGGED, found)
    before = content(tmp_path)
    monkeypatch.setattr(files, stop, interrupted)
    for folder in ("old", "new"):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            write_patterns(tmp_path / folder, RAGGED, replace(found, data="others"))
        assert content(tmp_path) == before and sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def test_a_second_call_replaces_the_figures_of_the_first(tmp_path: Path) -> None:
    found = find()
    write_patterns(tmp_path / "out", RAGGED, found, beside=other(found))
    again = write_patterns(tmp_path / "out", RAGGED, replace(found, patterns=found.patterns[:1]))
    assert {path.name for path in again.folder.iterdir()} == {
        "overview.png", "index.html", "patterns.json", "pattern_01_prototype_3.png"
    }  # fmt: skip


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    for call in (lambda: check_pattern_folder(tmp_path), lambda: write_patterns(tmp_path, RAGGED, find())):
        with pytest.raises(
            UsageError, match=r"is not empty: it holds thesis\.txt, which is not of `ibot visualize-patt"
        ):
            call()
    assert content(tmp_path) == {"thesis.txt": b""}


def test_where_figures_go_by_default(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("")
    (run / "checkpoints" / "step-00000001.pt").write_text("")
    assert default_folder(str(run), "patch") == run / "figures" / "patterns"
    assert default_folder(str(run / "checkpoints" / "step-00000001.pt"), "cls") == run / "figures" / "patterns-cls"
    assert default_folder("timm:vit_tiny", "patch") == Path("patterns")
