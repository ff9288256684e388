"""A linear probe as tables for people, on stderr."""

from __future__ import annotations

from ibot_cli import console
from ibot_cli.evaluate.linear.result import BestOnTest, HeadResult, LinearResult

SHOWN = 10


def show(result: LinearResult) -> None:
    """The chosen head beside the baselines, the ten best heads, how it compares with published figures, the notes."""
    logistic = result.chosen.solver == "lbfgs"
    console.note(f"{'Logistic regression' if logistic else 'Linear probe'} on {result.data}: {result.weights}")
    rows = [("this network", f"{result.top1:.2%}", f"{result.top5:.2%}")]
    beside = (("random weights, seed 0", result.baseline_random), ("raw pixels, 32 x 32", result.baseline_pixels))
    rows += [(name, f"{top1:.2%}", "") for name, top1 in beside if top1 is not None]
    numbers = ["Top-1", "Top-5"]
    console.table(["Features", *numbers], rows, right=numbers, keep=numbers)
    low, high = result.top1_interval
    chosen_by = "held-out training images" if result.num_holdout else "nothing, as it is the only one"
    interval = f"95% interval {low:.1%} to {high:.1%}"
    console.note(f"Top-1: {result.top1:.2%} ({interval}), {_name(result.chosen)}, chosen by {chosen_by}.")
    _show_heads(result)
    when = "" if result.best_on_test.epoch is None else f" after epoch {result.best_on_test.epoch}"
    console.note(
        f"Best on the test images: {result.best_on_test_top1:.2%}, {_name(result.best_on_test)}{when}; optimistic, as "
        "chosen on them. Published figures are of this kind."
    )
    console.note(f"{result.split} {result.num_classes} classes.")
    for text in result.notes:
        console.warn(text)


def _show_heads(result: LinearResult) -> None:
    heads = [head for head in result.heads if not head.diverged]
    if len(result.heads) == 1:
        return
    shown = heads[:SHOWN]
    logistic = result.chosen.solver == "lbfgs"
    decays = len({head.weight_decay for head in result.heads}) > 1
    columns = ["Pooling", *([] if logistic else ["Solver", "Rate"])]
    columns += [*(["Penalty" if logistic else "Decay"] if decays else []), "Held out", "Test"]
    rows = [
        [
            head.pooling,
            *([] if head.lr is None else [head.solver, f"{head.lr:g}"]),
            *([f"{head.weight_decay:.3g}"] if decays else []),
            "-" if head.holdout_top1 is None else f"{head.holdout_top1:.2%}",
            f"{head.test_top1:.2%}",
        ]
        for head in shown
    ]
    diverged = f", {result.num_diverged} diverged" if result.num_diverged else ""
    best = f"The {len(shown)} best of" if len(heads) > SHOWN else "All"
    console.note(f"\n{best} {len(result.heads)} heads{diverged}")
    console.table(columns, rows, right=[name for name in columns if name not in ("Pooling", "Solver")], keep=columns)
    console.note("")


def _name(head: HeadResult | BestOnTest) -> str:
    rate = "" if head.lr is None else f" at rate {head.lr:g}"
    label = "penalty" if head.solver == "lbfgs" else "decay"
    decay = f" with {label} {head.weight_decay:.3g}" if head.weight_decay else ""
    return f"{head.solver} on {head.pooling}{rate}{decay}"
