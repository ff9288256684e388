"""Random numbers as a function of (seed, sample, visit, name), never of global state.

Crops and masks therefore do not depend on the number of workers or processes, and a resumed run draws what the
uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence

WORD = 2**64 - 1
HALF = 2**32


class _Words(ISeedSequence):
    """Hands ready words to a bit generator; the usual `SeedSequence` would cost more than the draws themselves."""

    __slots__ = ("words",)

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """The words as they are; Philox asks for two of 64 bits."""
        return self.words


@lru_cache(maxsize=256)
def _stream_word(seed: int, name: str) -> int:
    """64 bits of SHA-256 over seed and name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")


def stream(seed: int, sample: int, visit: int, name: str) -> np.random.Generator:
    """The generator of one purpose in one visit of one sample.

    Args:
        seed: Seed of the run.
        sample: Index of the image, below 2**32.
        visit: How often the image was seen before (the epoch), below 2**32.
        name: Purpose: `crops`, `mask`, `replacement`, ...

    Returns:
        Philox with the key (hash of seed and name, sample and visit): different arguments have different keys, and
        streams of a counter-based generator are independent for any set of keys. Takes about 4 us.

    Source:
        Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011).
    """
    if not (0 <= sample < HALF and 0 <= visit < HALF):
        raise ValueError(f"sample and visit must be in 0..2**32-1, not {sample} and {visit}")
    words = np.array((_stream_word(seed, name), sample << 32 | visit), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(_Words(words)))  # type: ignore[arg-type]  # NumPy's stub is too narrow


def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """The order of the images in one epoch, an int64 permutation of `num_images`."""
    return stream(seed, 0, epoch, "order").permutation(num_images).astype(np.int64, copy=False)


def step_generator(seed: int, step: int, name: str) -> torch.Generator:
    """A CPU torch generator for one purpose in one step, for example drop path."""
    digest = hashlib.sha256(f"{seed}:{step}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
