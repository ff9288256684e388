"""What sheets, pages and tables say about patterns."""

from __future__ import annotations

from ibot_cli.quantities import counted
from ibot_cli.visualize.patterns.result import Kind, Pattern, Patterns

ORDERS = {
    "population": "those with the most {items} first",
    "confidence": "those of the highest mean probability first",
    "purity": "those with the purest labels first",
    "chosen": "as they were asked for",
}


def item(kind: Kind) -> str:
    """What a prototype is given: a patch or an image."""
    return "patch" if kind == "patch" else "image"


def items(kind: Kind, number: int | None = None) -> str:
    """`patches`, or `1,234 patches`; images for kind `cls`."""
    plural = "patches" if kind == "patch" else "images"
    return plural if number is None else counted(number, item(kind), plural)


def measured(found: Patterns) -> str:
    """`12 images, 768 patches`, or the images alone where they are what is counted."""
    images = counted(found.num_images, "image")
    return images if found.kind == "cls" else f"{images}, {items(found.kind, found.num_patches)}"


def probable(probability: float) -> str:
    """Two decimals, or one digit that counts where these are zero: with many prototypes all are small."""
    return f"{probability:.2f}" if probability >= 0.005 else f"{probability:.1g}"


def headline(found: Patterns) -> str:
    """What a figure of several patterns shows."""
    return f"Patterns of {found.data}"


def explanation(found: Patterns) -> str:
    """How to read it, in two or three sentences."""
    many = f"{len(found.patterns)} of the {found.used:,} prototypes in use ({found.num_prototypes:,} in all)"
    order = ORDERS[found.order].format(items=items(found.kind))
    best = "The images" if found.kind == "cls" else "The patches, outlined, at most one per image,"
    around = ""
    if found.kind == "patch" and found.window > 1:
        around = f" Each is shown within the {found.window} x {found.window} patches around it."
    return f"{many}, {order}. {best} with the highest scores come first.{around}"


def about_pattern(pattern: Pattern, found: Patterns) -> str:
    """A pattern in a line: prototype, population, mean probability, and with labels its purity."""
    count = items(found.kind, pattern.count)
    text = f"Prototype {pattern.prototype:,}: {count} ({pattern.share:.1%}), "
    text += f"mean probability {probable(pattern.probability)}"
    purity = purity_text(pattern, found)
    if purity is None:
        return text
    return f"{text}{',' if other_class(pattern, found) is None else ';'} {purity}"


def purity_text(pattern: Pattern, found: Patterns) -> str | None:
    """`64% of class roof`, of the members and of all patches where their classes differ; None without labels."""
    if pattern.purity is None or pattern.label is None or found.classes is None:
        return None
    everything = f"{pattern.purity:.0%} of class {found.classes[pattern.label]}"
    other = other_class(pattern, found)
    if other is None:
        return everything
    return f"members: {pattern.members_purity:.0%} of class {other}; all {items(found.kind)}: {everything}"


def purity_lines(pattern: Pattern, found: Patterns) -> tuple[str, ...]:
    """The same as short lines: one, or where the classes differ two, or none without labels."""
    text, other = purity_text(pattern, found), other_class(pattern, found)
    if text is None or other is None or found.classes is None or pattern.label is None:
        return () if text is None else (text,)
    return (
        f"members: {pattern.members_purity:.0%} {other}",
        f"all: {pattern.purity:.0%} {found.classes[pattern.label]}",
    )


def class_name(label: int | None, found: Patterns) -> str | None:
    """Of a label; None without labels."""
    return None if label is None or found.classes is None else found.classes[label]


def other_class(pattern: Pattern, found: Patterns) -> str | None:
    """The most common class of the members where it is another than that of all patches."""
    return None if pattern.members_label == pattern.label else class_name(pattern.members_label, found)


def beside_title(beside: Patterns) -> str:
    """What stands above the patterns of random weights, with their seed."""
    return beside.weights[:1].upper() + beside.weights[1:]


def mean_purity(found: Patterns) -> tuple[float, float] | None:
    """Mean over the patterns of the purity of their members and of all their patches; None without labels."""
    members = [pattern.members_purity for pattern in found.patterns if pattern.members_purity is not None]
    everything = [pattern.purity for pattern in found.patterns if pattern.purity is not None]
    if not members or not everything:
        return None
    return sum(members) / len(members), sum(everything) / len(everything)


def agreement(found: Patterns) -> str:
    """How pure the patterns are on average, or without labels how many prototypes are in use."""
    means = mean_purity(found)
    if means is None:
        return f"{found.used:,} of {found.num_prototypes:,} prototypes in use"
    return f"mean purity: {means[0]:.0%} of the members shown, {means[1]:.0%} of all {items(found.kind)}"
