"""Retrieval: the nearest images of each query, and how often they are of its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from ibot_cli.errors import DataError
from ibot_cli.evaluate.faults import each_left_out
from ibot_cli.evaluate.retrieval.average_precision import KS, Ranked
from ibot_cli.evaluate.retrieval.baselines import RetrievalBaselines, measure_retrieval_baselines
from ibot_cli.evaluate.retrieval.gallery import Gallery
from ibot_cli.evaluate.retrieval.lookup import FeatureOptions, Lookup, StageProgress, look_up
from ibot_cli.evaluate.retrieval.neighbours import QueryNeighbours
from ibot_cli.weights.load import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """How often the nearest images are of the query's class.

    Attributes:
        mean_average_precision: Over each query's whole ranking, mean over the queries that count; None if not measured.
        precision_at: k -> share of the query's class among the k nearest, mean over the same queries; or empty.
        num_queries: Readable queries.
        num_counted: Queries whose class has another image in the gallery; None if not measured.
        num_gallery: Readable images of the gallery.
        num_classes: Classes; None without labels.
        baselines: The same of random weights and raw pixels; None if not measured.
        k: Neighbours that are listed per query.
        pooling: Which tokens make a feature.
        precision: Arithmetic of the feature pass.
        protocol: Which images are looked up among which.
        weights: What was evaluated.
        weights_hash: sha256 of its tensors.
        data: DATA as given.
        fingerprint: sha256 of the data's identity.
        notes: What the reader should know.
    """

    mean_average_precision: float | None
    precision_at: Mapping[int, float]
    num_queries: int
    num_counted: int | None
    num_gallery: int
    num_classes: int | None
    baselines: RetrievalBaselines | None
    k: int
    pooling: str
    precision: str
    protocol: str
    weights: str
    weights_hash: str
    data: str
    fingerprint: str
    notes: tuple[str, ...] = ()


def retrieve(
    loaded: LoadedBackbone,
    gallery: Gallery,
    data: str,
    *,
    k: int = 10,
    baselines: bool = True,
    listed: bool = True,
    options: FeatureOptions | None = None,
    progress: StageProgress | None = None,
) -> tuple[RetrievalResult, tuple[QueryNeighbours, ...]]:
    """Look every query up in the gallery.

    Args:
        loaded: The backbone and how its images are prepared.
        gallery: From `open_gallery`, which is scored where it has labels, or from `open_search`.
        data: DATA as given.
        k: Neighbours to list per query; cut to what the gallery has.
        baselines: Whether to score random weights and raw pixels too (cached per data set).
        listed: Whether to list neighbours.
        options: How to compute features.
        progress: Called with the stage, what is done and its total.

    Returns:
        The figures, and the neighbours of each readable query (none unless `listed`).

    Raises:
        DataError: Nothing can be read, or the only image of the gallery is the query itself.
        WeightsError: Features are not finite.
    """
    options = options or FeatureOptions()
    found = look_up(loaded, gallery, options, progress=progress)
    if found.others < 1:
        raise DataError(f"{data} has one readable image only, which has no neighbour.", "Add images to the gallery.")
    ranked = found.rank(None if progress is None else partial(progress, "rankings")) if gallery.measured else None
    counted = 0 if ranked is None else int(ranked.counted.sum())
    baseline = None
    if baselines and counted:
        baseline = measure_retrieval_baselines(loaded, gallery, options, progress=progress)
    mean, precision = ranked.means() if ranked is not None and counted else (None, {})
    result = RetrievalResult(
        mean_average_precision=mean,
        precision_at=precision,
        num_queries=len(found.asked),
        num_counted=None if ranked is None else counted,
        num_gallery=len(found.found),
        num_classes=None if gallery.classes is None else len(gallery.classes),
        baselines=baseline,
        k=min(k, found.others),
        pooling=options.pooling,
        precision=options.precision,
        protocol=gallery.sentence,
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        data=data,
        fingerprint=gallery.fingerprint,
        notes=(*loaded.notes, *_notes(found, k, ranked, baseline)),
    )
    return result, found.neighbours(k) if listed else ()


def _notes(found: Lookup, k: int, ranked: Ranked | None, baseline: RetrievalBaselines | None) -> list[str]:
    notes = list(dict.fromkeys([*found.gallery.notes, *found.found.notes, *found.asked.notes]))
    notes += each_left_out(found.bad)
    if k > found.others:
        notes.append(f"k = {k} was cut to the {found.others:,} images that a query can find.")
    if ranked is None:
        return notes
    lonely = len(ranked.counted) - int(ranked.counted.sum())
    if lonely == len(ranked.counted):
        notes.append("No query has another image of its class in the gallery, so mAP and precision are left out.")
    elif lonely:
        left_out, their = ("1 query is", "its") if lonely == 1 else (f"{lonely:,} queries are", "their")
        other = "other image" if found.alone else "image"
        notes.append(f"{left_out} left out, because no {other} of the gallery is of {their} class.")
    if max(KS) > found.others:
        notes.append(f"The gallery has {found.others:,} other images; precision at more is that of all of them.")
    if baseline is not None and (baseline.num_gallery, baseline.num_queries) != (len(found.found), len(found.asked)):
        notes.append(
            f"The baselines look {baseline.num_queries:,} queries up among {baseline.num_gallery:,} images only, "
            "where fewer right ones are near."
        )
    return notes
