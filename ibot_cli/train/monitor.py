"""What is measured once per epoch: target health always, clusters and k-NN where labels exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ibot_cli.config.schema import Config
from ibot_cli.data.sources import Source
from ibot_cli.data.splits import holdout
from ibot_cli.data.transform import eval_transform
from ibot_cli.evaluate.batches import Transform
from ibot_cli.evaluate.cluster.agreement import agreement
from ibot_cli.evaluate.knn.protocol import knn_accuracy
from ibot_cli.train.epoch import EpochSums


class OnlineKnn:
    """k-NN on a fixed, seeded, held-out part of the training images; the network never sees their labels.

    Args:
        source: The training images, with labels.
        config: The run's settings.
        device: Where to compute.
    """

    def __init__(self, source: Source, config: Config, device: torch.device) -> None:
        monitor, data = config.monitor, config.data
        chosen = np.arange(len(source))
        if len(source) > monitor.knn_max_images:
            chosen = np.sort(np.random.default_rng(config.train.seed).permutation(chosen)[: monitor.knn_max_images])
        labels = None if source.labels is None else source.labels[chosen]
        test = holdout(len(chosen), labels, seed=config.train.seed, ratio=monitor.knn_holdout)
        self.source, self.device, self.k = source, device, monitor.knn_k
        self.train, self.test = chosen[~test], chosen[test]
        self.transform: Transform = eval_transform(
            config.views.global_size, data.eval_crop_ratio, data.channels, data.mean or (), data.std or ()
        )

    def accuracy(self, backbone: nn.Module) -> float:
        """Top-1 of the held-out part."""
        return knn_accuracy(
            backbone, self.source, self.train, self.test, self.k, self.transform, device=self.device, batch_size=128
        )


def epoch_record(sums: EpochSums) -> dict[str, Any]:
    """Target health of each slot and, with labels, how well the prototypes agree with them."""
    record: dict[str, Any] = {}
    for name, health in sums.health().items():
        if health is not None:
            record[f"target_entropy/{name}"] = health.entropy
            record[f"marginal_entropy/{name}"] = health.marginal_entropy
            record[f"used_prototypes/{name}"] = health.used
    pairs = sums.assigned()
    if pairs is not None:
        found = agreement(pairs[0].numpy(), pairs[1].numpy())
        record |= {f"clusters/{name}": value for name, value in vars(found).items()}
    return record
