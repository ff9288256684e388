"""The section on the data: what the images were, and what was wrong with them."""

from __future__ import annotations

from ibot_cli.data.places import is_here
from ibot_cli.quantities import counted
from ibot_cli.visualize.report.record import RunRecord
from ibot_cli.visualize.report.section import Section

_SHOWN, _SHORT = 20, 16


def images_section(run: RunRecord) -> Section:
    """Counts, classes, notes and unreadable files, and whether the images are still there."""
    data = run.data
    classes = data.get("classes")
    facts = [
        ("DATA", data.get("data")),
        ("Source", data.get("name")),
        ("Training images", _count(data.get("num_images"))),
        ("Held-out training images", _count(data.get("num_holdout") or None)),
        ("Test images", _count(data.get("num_test"))),
        ("Classes", "no labels" if classes is None else f"{len(classes):,}"),
        ("Fingerprint", str(data["fingerprint"])[:_SHORT] if data.get("fingerprint") else None),
    ]
    files = sorted(run.bad_files.items())
    return Section(
        id="data",
        title="Data",
        template="report/data.html",
        values={
            "known": bool(data),
            "facts": [(name, str(value)) for name, value in facts if value is not None] if data else [],
            "classes": [] if classes is None else list(map(str, classes)),
            "notes": list(map(str, data.get("notes") or [])),
            "gone": _gone(data.get("data")),
            "num_bad": len(files),
            "bad": [(str(path), str(reason)) for path, reason in files[:_SHOWN]],
            "excluded": _excluded(run),
        },
    )


def _count(value: object) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _gone(data: object) -> str:
    """DATA, where it names a place that is not there any more."""
    if not isinstance(data, str) or is_here(data):
        return ""
    return data


def _excluded(run: RunRecord) -> list[str]:
    """What evaluations tell of images that are in both parts."""
    found = []
    for record in run.evaluations:
        excluded = record["result"].get("excluded")
        if isinstance(excluded, dict) and (number := excluded.get("identical", 0) + excluded.get("near", 0)):
            images = f"{counted(number, 'test image')} of {record.get('data')}"
            found.append(
                f"{images} {'is' if number == 1 else 'are'} in the training part too; one evaluation left them out."
            )
    return list(dict.fromkeys(found))
