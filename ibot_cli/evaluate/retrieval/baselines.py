"""What a retrieval must beat: the same network with random weights, and raw pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ibot_cli.evaluate.baselines import MAX_TEST, MAX_TRAIN, SEEDS, cached_value, random_weights, raw_pixels
from ibot_cli.evaluate.retrieval.average_precision import KS
from ibot_cli.evaluate.retrieval.gallery import Gallery
from ibot_cli.evaluate.retrieval.lookup import FeatureOptions, StageProgress, look_up
from ibot_cli.weights.load import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class RetrievalBaselines:
    """The figures of a `RetrievalResult`, for features without any learning.

    Attributes:
        random_map: Mean average precision with random weights, mean over seeds.
        random_map_per_seed: Its values.
        random_precision_at: k -> precision with random weights, mean over seeds.
        pixels_map: Of the pixels at 32 x 32.
        pixels_precision_at: k -> precision of the pixels.
        num_gallery: Images of the gallery, at most 10,000.
        num_queries: Queries, at most 2,000, or the gallery's.
    """

    random_map: float
    random_map_per_seed: tuple[float, ...]
    random_precision_at: Mapping[int, float]
    pixels_map: float
    pixels_precision_at: Mapping[int, float]
    num_gallery: int
    num_queries: int


def measure_retrieval_baselines(
    loaded: LoadedBackbone, gallery: Gallery, options: FeatureOptions, *, progress: StageProgress | None = None
) -> RetrievalBaselines | None:
    """Both baselines on the same seeded choice of images; cached per network, images and options.

    Args:
        loaded: The network whose fresh copies and image preparation are used.
        gallery: Images with labels.
        options: How to compute.
        progress: Called with the stage, the images done and their total.

    Returns:
        None where no query of the choice has another image of its class.
    """

    def measure() -> dict[str, Any]:
        networks = {f"random weights, seed {seed}": random_weights(loaded, seed) for seed in SEEDS}
        scores = [_scores(network, gallery, options, name, progress) for name, network in networks.items()]
        pixels = _scores(raw_pixels(loaded), gallery, replace(options, pooling="cls"), "raw pixels", progress)
        return {"random": [score["scores"] for score in scores], "pixels": pixels["scores"], "sizes": pixels["sizes"]}

    if not options.cache:
        return _result(measure())
    key = f"{loaded.architecture} {loaded.preparation_key} {gallery.fingerprint} {options.pooling} {options.precision}"
    return _result(cached_value("retrieval", key, measure))


def _scores(
    network: LoadedBackbone, gallery: Gallery, options: FeatureOptions, name: str, progress: StageProgress | None
) -> dict[str, Any]:
    """mAP and the precision at each of `KS` as one list, and the numbers of images."""
    most = (MAX_TRAIN, MAX_TEST)
    found = look_up(
        network, gallery, replace(options, cache=False), most=most, progress=progress, stages=(name, f"{name}, queries")
    )
    ranked = found.rank()
    mean, precision = ranked.means() if ranked.counted.any() else (0.0, dict.fromkeys(KS, 0.0))
    sizes = [len(found.found), len(found.asked), int(ranked.counted.sum())]
    return {"scores": [mean, *(precision[k] for k in KS)], "sizes": sizes}


def _result(stored: Mapping[str, Any]) -> RetrievalBaselines | None:
    if int(stored["sizes"][2]) == 0:
        return None
    random = [[float(value) for value in scores] for scores in stored["random"]]
    mean = [sum(values) / len(values) for values in zip(*random, strict=True)]
    pixels = [float(value) for value in stored["pixels"]]
    return RetrievalBaselines(
        random_map=mean[0],
        random_map_per_seed=tuple(scores[0] for scores in random),
        random_precision_at=dict(zip(KS, mean[1:], strict=True)),
        pixels_map=pixels[0],
        pixels_precision_at=dict(zip(KS, pixels[1:], strict=True)),
        num_gallery=int(stored["sizes"][0]),
        num_queries=int(stored["sizes"][1]),
    )
