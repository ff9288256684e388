"""A k-NN result as tables for people, on stderr."""

from __future__ import annotations

from ibot_cli import console
from ibot_cli.evaluate.knn.result import KnnResult


def show(result: KnnResult, *, per_class: bool = False) -> None:
    """The accuracies beside the baselines, then what was asked for besides, then the notes.

    Args:
        result: What was found.
        per_class: Whether to list every class and the pairs that were confused most often.
    """
    console.note(f"k-NN on {result.data}: {result.weights}")
    _show_accuracies(result)
    low, high = result.top1_interval
    console.note(
        f"Top-1 at {_setting(result.k, result.temperature)}: {result.top1:.2%} (95% interval {low:.1%} to {high:.1%})."
    )
    if result.best.top1 > result.top1:
        best = result.best
        where = _setting(best.k, best.temperature)
        console.note(f"Best: {best.top1:.2%} at {where}; optimistic, as chosen on the test images.")
    if result.curve:
        _show_curve(result)
    if per_class:
        _show_classes(result)
        _show_confused(result)
    if result.curve or per_class:
        console.note("")
    console.note(f"{result.split} {result.num_classes} classes.")
    for text in result.notes:
        console.warn(text)


def _show_accuracies(result: KnnResult) -> None:
    """k by temperature; the baselines stand where they were measured."""
    temperatures = sorted({cell.temperature for cell in result.sweep})
    several = len(temperatures) > 1
    headings = [f"T = {value:g}" if several else "Top-1" for value in temperatures]
    found = {(cell.k, cell.temperature): f"{cell.top1:.2%}" for cell in result.sweep}
    rows = [("this network", str(k), *(found[k, value] for value in temperatures)) for k in result.per_k]
    for name, top1 in _baselines(result):
        cells = [f"{top1:.2%}" if value == result.temperature else "" for value in temperatures]
        rows.append((name, str(result.k), *cells))
    numbers = ["k", *headings]
    console.table(["Features", *numbers], rows, right=numbers, keep=numbers)


def _setting(k: int, temperature: float) -> str:
    return f"k = {k}, T = {temperature:g}"


def _baselines(result: KnnResult) -> list[tuple[str, float]]:
    found = []
    if result.baseline_random is not None and result.baseline_random_per_seed is not None:
        seeds = len(result.baseline_random_per_seed)
        found.append((f"random weights, mean of {seeds} seeds", result.baseline_random))
    if result.baseline_pixels is not None:
        found.append(("raw pixels, 32 x 32", result.baseline_pixels))
    return found


def _show_curve(result: KnnResult) -> None:
    console.note(f"\nTop-1 over the training, T = {result.temperature:g}")
    numbers = ["Step", "Epoch", *(f"k = {k}" for k in result.per_k)]
    rows = [
        (f"{point.step:,}", f"{point.epoch:,}", *(f"{point.per_k[k]:.2%}" for k in result.per_k))
        for point in result.curve
    ]
    console.table(numbers, rows, right=numbers)


def _show_classes(result: KnnResult) -> None:
    """The least recognised classes first."""
    ranked = sorted(result.per_class, key=lambda each: 2.0 if each.accuracy is None else each.accuracy)
    rows = [
        (
            each.name,
            f"{each.num_train:,}",
            f"{each.num_test:,}",
            "-" if each.accuracy is None else f"{each.accuracy:.1%}",
        )
        for each in ranked
    ]
    numbers = ["Train", "Test", "Top-1"]
    console.note(f"\nBy class, k = {result.k}; the mean over the classes is {result.mean_per_class:.2%}")
    console.table(["Class", *numbers], rows, right=numbers, keep=numbers)


def _show_confused(result: KnnResult) -> None:
    if not result.confused:
        console.note("No test image was taken for another class.")
        return
    console.note("\nConfused most often")
    rows = [(each.true, each.predicted, f"{each.count:,}") for each in result.confused]
    console.table(["Class", "Taken for", "Images"], rows, right=["Images"])
