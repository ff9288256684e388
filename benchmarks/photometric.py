"""Photometric changes of views, operation by operation: ours, torchvision's and kornia's on tensors, and Pillow's.

    python benchmarks/photometric.py [--size 224] [--batch 32] [--rounds 7] [--device cpu] [--json]

Round by round every library changes the same views with the same parameters, a different one for each view: ours and
kornia's for the whole batch, torchvision's and Pillow's view by view, which is all that they offer. `ms` is the median
time per view from a crop's uint8 `[H, W, 3]` to float32 `[3, H, W]` of 0..1; the row `nothing` is only that. `largest`
and `mean` are distances from the exact operation (torchvision's on float64, SciPy's Gaussian) in levels of 0..255,
`ratio` the time over ours in the same round. The row `published` is the whole recipe. The last line of the
output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchvision.transforms import functional as on_images
from torchvision.transforms.v2 import functional as on_tensors

from ibot_cli.config.schema import DataConfig, ViewsConfig
from ibot_cli.data.changes import BRIGHTNESS, CONTRAST, HUE, SATURATION, Changes, draw_changes, pack_changes
from ibot_cli.data.photometric import finish_views
from ibot_cli.data.transform import ViewRecipe

STILL = Changes(False, (), False, 0.0, False)
THRESHOLD = 128
RECIPE = ViewRecipe.from_config(ViewsConfig(), DataConfig())
Work = Callable[[], Any]


def main() -> None:
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--size", type=int, default=224, help="side of the views in pixels")
    found.add_argument("--batch", type=int, default=32, help="views")
    found.add_argument("--rounds", type=int, default=7)
    found.add_argument("--device", default="cpu", help="of ours, torchvision's and kornia's")
    found.add_argument("--json", action="store_true", help="only the JSON line")
    options = found.parse_args()
    images = photographs(options.batch, options.size)
    rows = {name: compared(images, name, changes, options) for name, changes in cases(options.batch).items()}
    if not options.json:
        print("\n".join(table(rows)))
    wanted = {"size": options.size, "batch": options.batch, "device": options.device, "operations": rows}
    print(json.dumps(wanted | {"torch": torch.__version__, "half_distance": half_distance(images)}))


def photographs(count: int, size: int) -> list[Image.Image]:
    """Parts of the two photographs that come with scikit-learn."""
    from sklearn.datasets import load_sample_image

    sources = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)
    images = []
    for index in range(count):
        image = sources[index % 2]
        side = int(rng.integers(100, min(image.size)))
        left, top = (int(rng.integers(length - side)) for length in image.size)
        box = (left, top, left + side, top + side)
        images.append(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return images


def cases(count: int) -> dict[str, list[Changes]]:
    """Changes of each view, by operation; `published` takes the recipes of all views of an image in turn."""
    rng = np.random.default_rng(1)

    def jitter(operation: int, spread: float) -> list[Changes]:
        factors = (operation != HUE) + spread * (2 * rng.random(count) - 1)
        return [STILL._replace(jitter=((operation, float(factor)),)) for factor in factors]

    radii = rng.uniform(*RECIPE.blur_radius, count)
    kinds = (RECIPE.strengths[0], RECIPE.strengths[1], *RECIPE.strengths[2:])
    return {
        "nothing": [STILL] * count,
        "flip": [STILL._replace(flip=True)] * count,
        "brightness": jitter(BRIGHTNESS, RECIPE.brightness),
        "contrast": jitter(CONTRAST, RECIPE.contrast),
        "saturation": jitter(SATURATION, RECIPE.saturation),
        "hue": jitter(HUE, RECIPE.hue),
        "grey": [STILL._replace(gray=True)] * count,
        "blur": [STILL._replace(blur_radius=float(radius)) for radius in radii],
        "solarise": [STILL._replace(solarize=True)] * count,
        "published": [draw_changes(kinds[i % len(kinds)], rng.random(14).tolist()) for i in range(count)],
    }


def compared(
    images: Sequence[Image.Image], name: str, changes: Sequence[Changes], options: argparse.Namespace
) -> dict[str, Any]:
    """Milliseconds per view and distances of every library that has the operation."""
    levels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(options.device)
    packed = pack_changes(changes)
    work: dict[str, Work] = {
        "ours": lambda: finish_views(levels, packed, threshold=THRESHOLD, mean=(0.0,) * 3, std=(1.0,) * 3),
        "pillow": lambda: [with_pillow(image, change) for image, change in zip(images, changes, strict=True)],
        "torchvision": lambda: [with_torchvision(view, change) for view, change in zip(levels, changes, strict=True)],
    }
    if (kornia := with_kornia(levels, name, changes)) is not None:
        work["kornia"] = kornia
    exact = np.stack([exactly(image, change) for image, change in zip(images, changes, strict=True)])
    distances = {library: distance(as_levels(run()), exact) for library, run in work.items()}
    seconds: dict[str, list[float]] = {library: [] for library in work}
    for _ in range(options.rounds):
        for library, run in work.items():
            seconds[library].append(timed(run, options.device))
    found = {}
    for library, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["ours"], strict=True))
        found[library] = {"ms": 1e3 * statistics.median(times) / len(images), "ratio": ratio, **distances[library]}
    return found


def timed(run: Work, device: str) -> float:
    began = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def with_pillow(image: Image.Image, change: Changes) -> Tensor:
    """torchvision's operations on Pillow images, as published code uses them."""
    if change.flip:
        image = ImageOps.mirror(image)
    for op, factor in change.jitter:
        names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
        image = getattr(on_images, names[op])(image, factor)
    if change.gray:
        image = on_images.rgb_to_grayscale(image, 3)
    if change.blur_radius:
        image = image.filter(ImageFilter.GaussianBlur(change.blur_radius))
    if change.solarize:
        image = ImageOps.solarize(image, THRESHOLD)
    found: Tensor = on_images.to_tensor(image)
    return found


def with_torchvision(view: Tensor, change: Changes) -> Tensor:
    """torchvision's v2 operations on uint8, one set of parameters per call."""
    view = view.movedim(-1, 0).contiguous()
    if change.flip:
        view = on_tensors.horizontal_flip(view)
    for op, factor in change.jitter:
        names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
        view = getattr(on_tensors, names[op])(view, factor)
    if change.gray:
        view = on_tensors.rgb_to_grayscale(view, 3)
    if change.blur_radius:
        view = on_tensors.gaussian_blur(view, taps(change.blur_radius), change.blur_radius)
    if change.solarize:
        view = on_tensors.solarize(view, THRESHOLD)
    return on_tensors.to_dtype(view, torch.float32, scale=True)


def taps(sigma: float) -> int:
    """Pixels of a kernel that is within a level of the complete Gaussian."""
    return 2 * int(np.ceil(3 * sigma)) + 1


def with_kornia(levels: Tensor, name: str, changes: Sequence[Changes]) -> Work | None:
    """kornia's operation on a batch with a parameter per view, or None where it has no such call."""
    try:
        import kornia
    except ImportError:
        return None
    enhance = kornia.enhance
    numbers = torch.tensor([change.jitter[0][1] if change.jitter else 0.0 for change in changes], device=levels.device)
    radii = torch.tensor([[change.blur_radius] * 2 for change in changes], device=levels.device)
    side = taps(float(radii.max()))
    operations: dict[str, Callable[[Tensor], Tensor]] = {
        "nothing": lambda values: values,
        "flip": kornia.geometry.hflip,
        "brightness": lambda values: enhance.adjust_brightness_accumulative(values, numbers),
        "contrast": lambda values: enhance.adjust_contrast_with_mean_subtraction(values, numbers),
        "saturation": lambda values: enhance.adjust_saturation_with_gray_subtraction(values, numbers),
        "hue": lambda values: enhance.adjust_hue(values, numbers * 2 * torch.pi),
        "grey": lambda values: kornia.color.rgb_to_grayscale(values).repeat(1, 3, 1, 1),
        "blur": lambda values: kornia.filters.gaussian_blur2d(values, (side, side), radii, "replicate"),
        "solarise": lambda values: enhance.solarize(values, THRESHOLD / 255),
    }
    if name not in operations:
        return None
    return lambda: operations[name](levels.movedim(-1, 1).contiguous().float().div_(255))


def exactly(image: Image.Image, change: Changes) -> NDArray[np.float64]:
    """The changed levels without rounding, `[H, W, 3]`."""
    values = torch.from_numpy(np.asarray(image).astype(np.float64) / 255).movedim(-1, 0)
    if change.flip:
        values = on_images.hflip(values)
    for op, factor in change.jitter:
        names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
        values = getattr(on_images, names[op])(values, factor)
    if change.gray:
        values = on_images.rgb_to_grayscale(values, 3)
    if change.blur_radius:
        values = torch.from_numpy(
            gaussian_filter(values.numpy(), change.blur_radius, axes=(1, 2), mode="nearest", truncate=20)
        )
    if change.solarize:
        values = on_images.solarize(values, THRESHOLD / 255)
    found: NDArray[np.float64] = values.movedim(0, -1).numpy() * 255
    return found


def as_levels(result: Tensor | list[Tensor]) -> NDArray[np.float64]:
    """Levels `[n, H, W, 3]` of float32 `[n, 3, H, W]` in 0..1."""
    values = torch.stack(result) if isinstance(result, list) else result
    return values.movedim(1, -1).cpu().double().numpy() * 255


def distance(levels: NDArray[np.float64], exact: NDArray[np.float64]) -> dict[str, float]:
    away = np.abs(levels - exact)
    return {"largest": float(away.max()), "mean": float(away.mean())}


def half_distance(images: Sequence[Image.Image]) -> dict[str, float]:
    """How far bfloat16 results, normalised, are from float32 ones, in levels."""
    levels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    packed = pack_changes(cases(len(images))["published"])
    full, half = (
        finish_views(levels, packed, threshold=THRESHOLD, mean=RECIPE.mean, std=RECIPE.std, dtype=dtype).float()
        for dtype in (torch.float32, torch.bfloat16)
    )
    away = (full - half).abs() * 255 * torch.tensor(RECIPE.std).view(3, 1, 1)
    return {"largest": float(away.max()), "mean": float(away.mean())}


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    names = ["ours", "pillow", "torchvision", "kornia"]
    lines = [f"{'ms per view (distance)':22}" + "".join(f"{name:>22}" for name in names)]
    for operation, found in rows.items():
        cells = [
            f"{found[name]['ms']:8.3f} ({found[name]['largest']:6.2f})" if name in found else "-" for name in names
        ]
        lines.append(f"{operation:22}" + "".join(f"{cell:>22}" for cell in cells))
    return lines


if __name__ == "__main__":
    main()
