"""How well an exported file does what the network did, on a data set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The network before and after the export, on the same images.

    Attributes:
        data: As typed.
        num_images: Judged.
        cosine_mean: Of the `cls` features before and after, averaged over the images.
        cosine_least: Of the image with the lowest.
        method: What predicts the classes: `k-NN`, `classifier`, or None where nothing does.
        num_train: Images that vote; None without k-NN.
        k: Neighbours; None without k-NN.
        before: Top-1 accuracy of the network, 0..1; None without labels that it can be compared with.
        after: Of the exported file.
        same: Share of the images whose predicted class is the same; None where no classes are predicted.
        notes: What the reader should know.
    """

    data: str
    num_images: int
    cosine_mean: float
    cosine_least: float
    method: str | None = None
    num_train: int | None = None
    k: int | None = None
    before: float | None = None
    after: float | None = None
    same: float | None = None
    notes: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """For people: accuracy where there is one, then how alike predictions and features are."""
        voters = "" if self.num_train is None else f", {self.num_train:,} training images, k = {self.k}"
        parts = [f"On {self.num_images:,} images of {self.data}{voters}:"]
        if self.before is not None and self.after is not None:
            change = 100 * (self.after - self.before)
            parts.append(
                f"{self.method} accuracy {100 * self.before:.2f} % before, {100 * self.after:.2f} % after "
                f"({change:+.2f} points);"
            )
        if self.same is not None:
            parts.append(f"the same class for {100 * self.same:.2f} %;")
        parts.append(f"cosine of the features {self.cosine_mean:.6f} on average, {self.cosine_least:.6f} at least.")
        return [" ".join(parts), *self.notes]


def cosines(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Mean and least cosine between the rows of two `[B, D]`."""
    found = functional.cosine_similarity(before.double(), after.double(), dim=1)
    return float(found.mean()), float(found.min())
