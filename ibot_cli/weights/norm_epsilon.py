"""Networks whose LayerNorms have another epsilon, made exactly equal to ours by their weights alone.

Our Swin follows the authors' iBOT code: epsilon 1e-6 everywhere. timm's and Hugging Face's Swin have 1e-5, and no
argument changes all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

OURS = 1e-6
LIBRARIES = 1e-5
TOLD = (
    "LayerNorm has an epsilon of 1e-5 in that library's Swin and 1e-6 here: the layers that lead into the residual "
    "stream were multiplied by 3.162 (the root of 10), with which every feature is the same."
)
_INTO_RESIDUAL = re.compile(r"(patch_embed\.(proj|norm)|attn\.proj|mlp\.fc2|downsample\.reduction)\.(weight|bias)$")


def swin_at_epsilon(tensors: Mapping[str, Tensor], current: float, wanted: float) -> dict[str, Tensor]:
    """A Swin that computes the same features under another epsilon.

    Every norm of a Swin sees the residual stream (or the patch projection), and everything that adds to the stream ends
    in a layer without activation. A stream that is c times as large has a variance c ** 2 times as large, so norms
    with c ** 2 times the epsilon give the same: only those last layers are multiplied by c.

    Args:
        tensors: In timm's names, with or without a prefix.
        current: Epsilon with which they compute the wanted features.
        wanted: Epsilon of the network that they will fill.

    Returns:
        The same names and shapes; tensors that stay as they are are not copied.

    Source:
        Follows from the definition of LayerNorm (arXiv 1607.06450): norm(c * x, c ** 2 * epsilon) = norm(x, epsilon).
    """
    factor = (wanted / current) ** 0.5
    return {
        name: (value.double() * factor).to(value.dtype) if _INTO_RESIDUAL.search(name) else value
        for name, value in tensors.items()
    }
