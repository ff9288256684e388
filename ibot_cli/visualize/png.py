"""A single picture that a command is asked to write."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from ibot_cli.evaluate.output_file import write_output


def write_png(path: Path, image: Image.Image) -> None:
    """Write it, whole or not at all.

    Raises:
        DataError: It cannot be written.
    """
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_output(path, content.getvalue())
