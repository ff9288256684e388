"""Who may import whom: read from the syntax trees, imports inside functions and under TYPE_CHECKING included."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ibot_cli"
# Bottom first; a part may import itself and what stands in a lower row.
ROWS = (
    ("errors", "distributed", "durable"),
    ("cache_folder",),
    ("console", "lock", "options"),
    ("quantities",),
    ("progress",),
    ("config", "core"),
    ("data",),
    ("runs",),
    ("weights",),
    ("evaluate",),
    ("train",),
    ("visualize",),
    (
        "bench_view",
        "data_view",
        "plan_view",
        "compare_view",
        "export_view",
        "finetune_view",
        "inspect_view",
        "pack_view",
        "retrieve_view",
    ),
    ("commands",),
    ("cli",),
    ("__main__",),
)
RANK = {part: rank for rank, row in enumerate(ROWS) for part in row}
FORBIDDEN = {"core": {"config", "distributed", "console"}, "config": {"distributed", "console"}}
HEAVY = {"torch", "torchvision", "timm", "sklearn", "faiss", "numpy", "PIL"}
FILES = sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    """The row entry that a file belongs to: its package, or its own name at the top."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(node: ast.AST) -> list[str]:
    """Dotted names that an import statement brings in; `from a import b` counts as `a.b`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def own_parts(path: Path) -> set[str]:
    names = [name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for name in imported(node)]
    parts = {name.split(".")[1] for name in names if name.startswith("ibot_cli.")}
    return {part for part in parts if part in RANK}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        assert own_parts(path) == set()
        return
    assert part in RANK, f"{part} has no place in the order of the packages"
    above = {other for other in own_parts(path) if other != part and RANK[other] >= RANK[part]}
    assert above == set()
    assert own_parts(path) & FORBIDDEN.get(part, set()) == set()


@pytest.mark.parametrize("path", sorted((ROOT / "commands").glob("*.py")), ids=lambda path: path.stem)
def test_commands_never_import_each_other(path: Path) -> None:
    assert "commands" not in own_parts(path)


def top_level(path: Path) -> set[str]:
    """Packages that importing the file imports, TYPE_CHECKING blocks left out."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {name.split(".")[0] for node in body for name in imported(node)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_command_line_and_the_configuration_import_nothing_heavy(path: Path) -> None:
    part = part_of(path)
    if part in ("commands", "cli", "console", "errors", "__main__", "__init__"):
        assert top_level(path) & {*HEAVY, "yaml", "rich"} == set()
    if part == "config":
        everything = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for name in imported(node)
        }
        assert everything - set(sys.stdlib_module_names) <= {"ibot_cli", "yaml"}


def test_there_are_no_drawers_for_odds_and_ends() -> None:
    assert {path.stem for path in FILES} & {"utils", "helpers", "common", "misc"} == set()
