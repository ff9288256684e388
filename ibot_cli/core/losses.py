"""The two self-distillation losses. Pure functions, float32, natural logarithm.

Shapes: V global views, L local views, B images, M masked patches, K prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cross_view_loss(target: Tensor, logits: Tensor, temp: float) -> Tensor:
    """Cross-entropy of every student view with every teacher view except its own.

    Args:
        target: Teacher distribution, `[V, B, K]`, rows sum to 1, no gradient.
        logits: Student scores before temperature, `[V + L, B, K]`, global views first.
        temp: Student temperature, > 0; the paper uses 0.1.

    Returns:
        The mean over the `V * (V + L - 1)` pairs and the images, a scalar in nats.

    Raises:
        ValueError: If there is no pair (one view in all).

    Source:
        L_CLS of iBOT (arXiv 2111.07832) with DINO's local crops; all pairs weigh the same, as in the authors' code.
    """
    num_global, num_images = target.shape[:2]
    pairs = num_global * (logits.shape[0] - 1)
    if pairs == 0:
        raise ValueError("the class-token loss needs at least two views")
    scores = logits.float() / temp
    # Each row of the target sums to 1, so its cross-entropy is log-sum-exp minus an inner product: no log-softmax of
    # size [V + L, B, K] is kept, and each student view is normalised once, not once per teacher view.
    normaliser = torch.logsumexp(scores, dim=-1).sum(dim=1)
    partners = torch.full_like(normaliser, num_global)
    partners[:num_global] -= 1
    matched = (target.sum(dim=0) * scores.sum(dim=0)).sum() - (target * scores[:num_global]).sum()
    return ((partners * normaliser).sum() - matched) / (pairs * num_images)


def masked_patch_loss(target: Tensor, logits: Tensor, weights: Tensor, temp: float) -> Tensor:
    """Cross-entropy between teacher and student on the masked patches only.

    Args:
        target: Teacher distribution, `[M, K]`, rows sum to 1, no gradient.
        logits: Student scores before temperature, `[M, K]`.
        weights: `1 / (masked patches of that view * V * B)`, `[M]`, 0 for padding; V * B counts all image views of the
            batch, so a view without masked patches counts 0.
        temp: Student temperature, > 0; the paper uses 0.1.

    Returns:
        Weighted sum, a scalar in nats, float32 under autocast. M = 0 gives 0, with a gradient of 0.

    Source:
        L_MIM of iBOT (arXiv 2111.07832), with the per-image average of the authors' code.
    """
    scores = logits.float() / temp
    entropy = torch.logsumexp(scores, dim=-1) - (target * scores).sum(dim=-1)
    return (weights * entropy).sum()
