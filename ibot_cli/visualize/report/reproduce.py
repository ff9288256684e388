"""The section with the commands that repeat the run and its evaluations."""

from __future__ import annotations

import shlex

from ibot_cli.train.interrupt import resume_command
from ibot_cli.visualize.report.command_line import again, began, evaluations
from ibot_cli.visualize.report.record import RunRecord
from ibot_cli.visualize.report.section import Section


def reproduce_section(run: RunRecord) -> Section:
    """Versions to install, training again, going on, measuring again."""
    line = began(run)
    packages = {name: version for name, version in (run.environment.get("packages") or {}).items() if version}
    return Section(
        id="reproduce",
        title="Reproduce",
        template="report/reproduce.html",
        values={
            "version": run.environment.get("ibot"),
            "install": shlex.join(["pip", "install", *(f"{name}=={version}" for name, version in packages.items())])
            if packages
            else "",
            "began": "" if line is None else line.text,
            "again": again(run),
            "resume": "" if run.finished else resume_command(run.path, run.task),
            "evaluations": evaluations(run),
            "seed": None if run.config is None else run.config.train.seed,
            "device": None if run.config is None else run.config.runtime.device,
        },
    )
