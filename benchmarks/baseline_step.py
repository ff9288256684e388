"""The authors' cost structure as one training step: what `benchmarks/step.py` compares with.

Written from the description of the method, in plain batched PyTorch without mistakes of its own, so that the ratio
measures the structure: separate passes for global and local crops, the head and its prototypes on every token of both,
attention as a materialised softmax, patch targets and losses over all patches with the mask multiplied in, a fresh
log-softmax per pair of views, clipping with a host read per tensor, and the teacher's average tensor by tensor.
It gives the same numbers as the official implementation (tests/benchmarks/test_baseline_step.py).

Shapes: V global views, L local views, B images, N patches, D width, h heads, K prototypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Stochastic depth: zeroes whole samples of a residual branch and scales the others up."""
    if rate == 0:
        return x
    keep = 1 - rate
    drawn = torch.rand(len(x), *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device)
    return x.div(keep) * (drawn + keep).floor()


class Attention(nn.Module):
    """Multi-head attention that returns its probabilities."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, T, D]` to the output `[B, T, D]` and the attention `[B, h, T, T]`."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        attention = (query @ key.transpose(-2, -1) * self.scale).softmax(dim=-1)
        out = (attention @ value).transpose(1, 2).reshape(batch, tokens, width)
        return self.proj(out), attention


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]` to `[..., D]`."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm block with stochastic depth on both branches."""

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), Mlp(width)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, D]` to `[B, T, D]`."""
        branch, _ = self.attn(self.norm1(x))
        x = x + drop_path(branch, self.rate)
        return x + drop_path(self.mlp(self.norm2(x)), self.rate)


class PatchEmbed(nn.Module):
    """A strided convolution."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to `[B, D, rows, columns]`."""
        return self.proj(images)


class Backbone(nn.Module):
    """ViT; the mask replaces patch embeddings by index."""

    def __init__(
        self, *, image_size: int, patch_size: int, width: int, depth: int, heads: int, mask_token: bool, rate: float
    ) -> None:
        super().__init__()
        self.grid = image_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, width))
        if mask_token:
            self.masked_embed = nn.Parameter(torch.zeros(1, width))
        rates = torch.linspace(0, rate, depth).tolist()
        self.blocks = nn.ModuleList(Block(width, heads, r) for r in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.apply(init_linear)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Position embeddings `[1, 1 + rows * columns, D]`; the added 0.1 is part of the published weights."""
        if rows == columns == self.grid:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / self.grid, (columns + 0.1) / self.grid)
        resized = functional.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """`[B, 3, H, W]` and, for masked inputs, bool `[B, rows, columns]` to `[B, 1 + N, D]`."""
        patches = self.patch_embed(images)
        rows, columns = patches.shape[-2:]
        if mask is not None:
            patches.permute(0, 2, 3, 1)[mask] = self.masked_embed.to(patches.dtype)
        patches = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        x = x + self.positions(rows, columns)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Prototypes(nn.Module):
    """Weight-normed linear layer; the weight is recomputed at every call."""

    def __init__(self, bottleneck: int, num: int, trainable_norm: bool) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(nn.Linear(bottleneck, num, bias=False).weight.detach())
        self.weight_g = nn.Parameter(torch.ones(num, 1), requires_grad=trainable_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Unit vectors `[..., d]` to scores `[..., K]`."""
        return functional.linear(x, self.weight_g * functional.normalize(self.weight_v, dim=1))


class Head(nn.Module):
    """Projection head with prototypes shared by CLS and patches; it sees every token."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int, trainable_norm: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.apply(init_linear)
        self.last_layer = Prototypes(bottleneck, prototypes, trainable_norm)
        self.last_layer2 = self.last_layer

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 1 + N, D]` to CLS scores `[B, K]` and patch scores `[B, N, K]`."""
        z = functional.normalize(self.mlp(tokens), dim=-1)
        return self.last_layer(z[:, 0]), self.last_layer2(z[:, 1:])


def init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class Network(nn.Module):
    """Backbone and head."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """CLS scores `[B, K]` and patch scores `[B, N, K]`."""
        return self.head(self.backbone(images, mask))


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The networks' sizes; the defaults are ViT-S/16 with the published head."""

    image_size: int = 224
    patch_size: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 8192
    trainable_norm: bool = True
    drop_path: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Now:
    """The schedules' values at one step, and the constants of the recipe."""

    lr: float
    weight_decay: float
    teacher_temp: float
    teacher_patch_temp: float
    teacher_momentum: float
    clip_grad: float = 3.0
    student_temp: float = 0.1
    center_momentum: float = 0.9
    freeze_prototypes: bool = False


class BaselineStep:
    """Student, teacher, centres and optimiser; calling it trains for one step."""

    def __init__(self, sizes: Sizes, device: torch.device | str = "cpu", half: torch.dtype | None = None) -> None:
        self.student = build(sizes, student=True).to(device)
        self.teacher = build(sizes, student=False).to(device)
        state = self.student.state_dict()
        self.teacher.load_state_dict({k: v for k, v in state.items() if "masked_embed" not in k})
        self.teacher.requires_grad_(False)
        self.center = torch.zeros(1, sizes.prototypes, device=device)
        self.patch_center = torch.zeros(1, 1, sizes.prototypes, device=device)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.student))
        self.device, self.half = torch.device(device), half
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half == torch.float16)

    def __call__(self, global_views: Tensor, local_views: Tensor, mask: Tensor, now: Now) -> dict[str, float]:
        """One update from `[V, B, 3, H, W]`, `[L, B, 3, h, w]` and bool `[V, B, N]`; returns the losses."""
        for index, group in enumerate(self.optimizer.param_groups):
            group["lr"] = now.lr
            if index == 0:
                group["weight_decay"] = now.weight_decay
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            losses = self.losses(global_views, local_views, mask, now)
        if not math.isfinite(losses["loss"].item()):
            raise FloatingPointError("the loss is not finite")
        self.optimizer.zero_grad()
        self.scaler.scale(losses["loss"]).backward()
        self.scaler.unscale_(self.optimizer)
        clip_each(self.student, now.clip_grad)
        if now.freeze_prototypes:
            for name, parameter in self.student.named_parameters():
                if "last_layer" in name:
                    parameter.grad = None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        follow(self.teacher, self.student, now.teacher_momentum)
        return {name: value.item() for name, value in losses.items()}

    def losses(self, global_views: Tensor, local_views: Tensor, mask: Tensor, now: Now) -> dict[str, Tensor]:
        """Both losses and their sum; moves the centres."""
        num_global, num_local = len(global_views), len(local_views)
        images = global_views.flatten(0, 1)
        with torch.no_grad():
            teacher_cls, teacher_patch = self.teacher(images)
        side = round(mask.shape[-1] ** 0.5)
        student_cls, student_patch = self.student(images, mask.flatten(0, 1).unflatten(1, (side, side)))
        if num_local:
            local_cls, _ = self.student(local_views.flatten(0, 1))
            student_cls = torch.cat([student_cls, local_cls])
        cls_views = (student_cls / now.student_temp).chunk(num_global + num_local)
        patch_views = (student_patch / now.student_temp).chunk(num_global)
        cls_targets = ((teacher_cls - self.center) / now.teacher_temp).softmax(dim=-1).chunk(num_global)
        patch_targets = ((teacher_patch - self.patch_center) / now.teacher_patch_temp).softmax(dim=-1).chunk(num_global)
        cls_loss, patch_loss, pairs = torch.zeros((), device=self.device), torch.zeros((), device=self.device), 0
        for q in range(num_global):
            for v in range(num_global + num_local):
                if v == q:
                    entropy = -(patch_targets[q] * patch_views[v].log_softmax(dim=-1)).sum(dim=-1)
                    weight = mask[v].float()
                    per_image = (entropy * weight).sum(dim=-1) / weight.sum(dim=-1).clamp(min=1.0)
                    patch_loss = patch_loss + per_image.mean()
                else:
                    entropy = -(cls_targets[q] * cls_views[v].log_softmax(dim=-1)).sum(dim=-1)
                    cls_loss = cls_loss + entropy.mean()
                    pairs += 1
        self.move_centers(teacher_cls, teacher_patch, now.center_momentum)
        losses = {"cls": cls_loss / pairs, "patch": patch_loss / num_global}
        return {**losses, "loss": losses["cls"] + losses["patch"]}

    @torch.no_grad()
    def move_centers(self, teacher_cls: Tensor, teacher_patch: Tensor, momentum: float) -> None:
        """Both centres from the scores of all teacher tokens."""
        cls_mean = teacher_cls.float().sum(dim=0, keepdim=True) / len(teacher_cls)
        patch_mean = teacher_patch.float().mean(dim=1, keepdim=True).sum(dim=0, keepdim=True) / len(teacher_patch)
        self.center = self.center * momentum + cls_mean * (1 - momentum)
        self.patch_center = self.patch_center * momentum + patch_mean * (1 - momentum)


def build(sizes: Sizes, *, student: bool) -> Network:
    """One network; only the student drops paths and has a mask token."""
    backbone = Backbone(
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        width=sizes.width,
        depth=sizes.depth,
        heads=sizes.heads,
        mask_token=student,
        rate=sizes.drop_path if student else 0.0,
    )
    head = Head(sizes.width, sizes.hidden, sizes.bottleneck, sizes.prototypes, sizes.trainable_norm)
    return Network(backbone, head)


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Decayed, and not decayed: biases and one-dimensional tensors."""
    decayed, plain = [], []
    for name, value in network.named_parameters():
        if value.requires_grad:
            (plain if name.endswith(".bias") or value.ndim == 1 else decayed).append(value)
    return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]


def clip_each(network: nn.Module, limit: float) -> list[float]:
    """Scales each gradient to a norm of at most `limit`; returns the norms, read one by one."""
    norms = []
    for parameter in network.parameters():
        if parameter.grad is not None:
            norm = parameter.grad.norm(2)
            norms.append(norm.item())
            scale = limit / (norm + 1e-6)
            if scale < 1:
                parameter.grad.mul_(scale)
    return norms


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """The teacher's moving average, tensor by tensor."""
    sources = dict(student.named_parameters())
    for name, target in teacher.named_parameters():
        target.mul_(momentum).add_((1 - momentum) * sources[name].detach())
