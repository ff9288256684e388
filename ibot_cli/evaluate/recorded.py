"""The figures that a run has recorded about exactly these weights."""

from __future__ import annotations

from ibot_cli.errors import RunError
from ibot_cli.evaluate.measures import figures_of
from ibot_cli.runs.evaluations import read_evaluations
from ibot_cli.weights.export.card import RecordedFigure
from ibot_cli.weights.export.history import data_name
from ibot_cli.weights.loaded import LoadedBackbone


def recorded_figures(loaded: LoadedBackbone) -> tuple[RecordedFigure, ...]:
    """The newest of each measure and data, with its baselines; empty without a run or where none are of these weights.

    Args:
        loaded: Weights; their hash tells which records are theirs.
    """
    if loaded.origin.run is None:
        return ()
    try:
        records = read_evaluations(loaded.origin.run)
    except RunError:  # a damaged line is no reason to keep the weights back
        return ()
    found: dict[tuple[str, str], RecordedFigure] = {}
    for record in records:
        if record["weights_hash"] != loaded.weights_hash:
            continue
        for figure in figures_of(record):
            known = RecordedFigure(
                measure=figure.measure,
                data=data_name(str(record["data"])),
                value=figure.value,
                percent=figure.percent,
                random=figure.random,
                pixels=figure.pixels,
            )
            key = (known.measure, known.data)
            if known.random is None and key in found and found[key].value == known.value:
                continue  # the same again, without its baselines
            found[key] = known
    return tuple(found.values())
