"""What a form that is a model of another library cannot hold."""

from __future__ import annotations

from ibot_cli.errors import WeightsError
from ibot_cli.weights.export.subject import Subject


def check_plain(subject: Subject, library: str) -> None:
    """Refuse everything but a ViT or Swin of ours, with or without a plain classifier.

    Args:
        subject: What is to be exported.
        library: The name of the other one.

    Raises:
        WeightsError: A network that is not ours, a projection head, or a projection layer.
    """
    if subject.shape is None:
        raise WeightsError(
            f"{subject.loaded.description} has other layers than the ViT and Swin networks that ibot writes for "
            f"{library}.",
            "Export it with --to onnx or --to torch-export.",
        )
    if subject.head is not None:
        raise WeightsError(
            f"The models of {library} have no place for a projection head.",
            "Leave --with-head out, or use --to onnx, torch-export, safetensors or official.",
        )
    if subject.classifier is not None and subject.classifier.projection is not None:
        raise WeightsError(
            f"The classifiers of {library} have no projection layer between feature and head, as keep_projection gave "
            "this one.",
            "Use --to onnx, torch-export or safetensors.",
        )


def window_sides(subject: Subject) -> list[int]:
    """Tokens per side in the stages of a Swin; empty for a ViT."""
    return [subject.image_size // stride for stride in (4, 8, 16, 32)] if subject.kind == "swin" else []
