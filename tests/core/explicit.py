"""Forward passes written out from a state dict in float64: attention as a full matrix, windows as pairs of tokens.

An oracle for the backbones that shares no layer with them. Shapes: B images, N patches, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from tests import reference

State = Mapping[str, Tensor]


def double(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().double() for name, value in module.state_dict().items()}


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(var + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros((), dtype=x.dtype))


def _mlp(state: State, name: str, x: Tensor) -> Tensor:
    hidden = _linear(state, f"{name}.fc1", x)
    return _linear(state, f"{name}.fc2", hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))


def _attention(state: State, name: str, x: Tensor, heads: int, bias: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Output and post-softmax weights of every token attending to every other, plus `bias`; x `[B, N, D]`."""
    size = x.shape[-1] // heads
    query, key, value = _linear(state, f"{name}.qkv", x).chunk(3, dim=-1)
    outputs, weights = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(size)
        scores = scores + (bias[head] if isinstance(bias, Tensor) else bias)
        weights.append(torch.softmax(scores, dim=-1))
        outputs.append(weights[-1] @ value[..., part])
    return _linear(state, f"{name}.proj", torch.cat(outputs, dim=-1)), torch.stack(weights, dim=1)


def vit(
    state: State,
    images: Tensor,
    *,
    patch: int,
    heads: int,
    mask: Tensor | None = None,
    drop_path: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Tokens after every block, each through the final norm, and the last attention; registers stand behind the
    class token in both."""
    rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    tokens = []
    for y in range(rows):
        for x in range(columns):
            pixels = images[:, :, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch].double()
            token = torch.einsum("bchw,dchw->bd", pixels, weight) + bias
            if mask is not None:
                token = torch.where(mask[:, y * columns + x, None], state["masked_embed"], token)
            tokens.append(token)
    x = torch.stack([state["cls_token"][0, 0].expand_as(tokens[0]), *tokens], dim=1)
    x = x + reference.positions(state["pos_embed"], rows, columns)
    for register in reversed(state["register_tokens"][0] if "register_tokens" in state else []):
        x = torch.stack([torch.cat([image[:1], register[None], image[1:]]) for image in x])
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    outputs, weights = [], torch.zeros(())
    for index in range(depth):
        factors = torch.ones(2, len(x)) if drop_path is None else drop_path[index]
        block = f"blocks.{index}"
        branch, weights = _attention(state, f"{block}.attn", _norm(state, f"{block}.norm1", x), heads)
        x = x + factors[0, :, None, None] * state.get(f"{block}.ls1.gamma", torch.ones(1)) * branch
        branch = _mlp(state, f"{block}.mlp", _norm(state, f"{block}.norm2", x))
        x = x + factors[1, :, None, None] * state.get(f"{block}.ls2.gamma", torch.ones(1)) * branch
        outputs.append(_norm(state, "norm", x))
    return outputs, weights


def _window_bias(table: Tensor, side: int, window: int, shift: int) -> Tensor:
    """`[heads, side * side, side * side]`: relative position bias, minus infinity between tokens that do not meet.

    Two tokens of the padded map meet when, after the cyclic shift, they lie in the same window and neither has been
    wrapped around the border without the other.
    """
    moved = (torch.arange(side) - shift) % side
    window_of = moved // window
    band = torch.zeros(side, dtype=torch.long)
    if shift:
        band[moved >= side - window] = 1
        band[moved >= side - shift] = 2
    meets = (window_of[:, None] == window_of[None]) & (band[:, None] == band[None])
    offset = moved[:, None] - moved[None] + window - 1
    pairs = meets[:, None, :, None] & meets[None, :, None, :]
    index = offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]
    bias = torch.where(pairs[..., None], table[index.clamp(0, len(table) - 1)], -math.inf)
    return bias.reshape(side * side, side * side, -1).permute(2, 0, 1)


def _swin_block(state: State, name: str, x: Tensor, heads: int, window: int, shift: int, factors: Tensor) -> Tensor:
    """One block on `[B, H, W, D]`: the normed map is padded below and right first, then shifted."""
    side = x.shape[1]
    padded = math.ceil(side / window) * window
    table = state[f"{name}.attn.relative_position_bias_table"]
    normed = functional.pad(_norm(state, f"{name}.norm1", x), (0, 0, 0, padded - side, 0, padded - side))
    bias = _window_bias(table, padded, window, shift)
    branch, _ = _attention(state, f"{name}.attn", normed.flatten(1, 2), heads, bias)
    branch = branch.reshape(len(x), padded, padded, -1)[:, :side, :side]
    x = x + factors[0, :, None, None, None] * branch
    return x + factors[1, :, None, None, None] * _mlp(state, f"{name}.mlp", _norm(state, f"{name}.norm2", x))


def _merge(state: State, name: str, x: Tensor) -> Tensor:
    parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return _linear(state, f"{name}.reduction", _norm(state, f"{name}.norm", torch.cat(parts, dim=-1)))


def swin(
    state: State,
    images: Tensor,
    *,
    native: int,
    window: int,
    depths: tuple[int, ...],
    heads: tuple[int, ...],
    mask: Tensor | None = None,
    drop_path: Tensor | None = None,
) -> list[Tensor]:
    """The map `[B, H, W, D]` after every block, and at the end the normed last one; `native` is the image size of
    the network, which decides windows and shifts."""
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    x = functional.conv2d(images.double(), weight, bias, stride=4).permute(0, 2, 3, 1)
    x = _norm(state, "patch_embed.norm", x)
    if mask is not None:
        cells = mask.reshape(len(x), x.shape[1] // 8, x.shape[2] // 8)
        for image, row, column in cells.nonzero().tolist():
            x[image, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = state["masked_embed"][0]
    outputs, number = [], 0
    for stage, depth in enumerate(depths):
        if stage:
            x = _merge(state, f"layers.{stage}.downsample", x)
        resolution = native // 4 // 2**stage
        size = min(window, resolution)
        for index in range(depth):
            shift = window // 2 if index % 2 and resolution > window else 0
            factors = torch.ones(2, len(x)) if drop_path is None else drop_path[number]
            x = _swin_block(state, f"layers.{stage}.blocks.{index}", x, heads[stage], size, shift, factors)
            outputs.append(x)
            number += 1
    return [*outputs, _norm(state, "norm", x)]
