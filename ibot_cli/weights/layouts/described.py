"""What `ibot export` wrote beside the weights, put back where readers say it."""

from __future__ import annotations

import json
from dataclasses import replace

from ibot_cli.weights.description import parse
from ibot_cli.weights.layouts.found import Found, Preparation


def with_description(found: Found, description: object) -> Found:
    """A network with what its export says: method, epoch, configuration, views and preparation.

    Args:
        found: The network.
        description: A JSON text or the object that it holds; None changes nothing.

    Raises:
        WeightsError: It is no description of an export.
    """
    if description is None:
        return found
    described = parse(description if isinstance(description, str) else json.dumps(description))
    images, config = described.preparation, described.config
    origin = replace(
        found.origin,
        layout=f"{found.origin.layout} of ibot export",
        method=described.method,
        networks=() if described.which is None else (described.which,),
        which=described.which,
        epoch=described.epoch,
        step=described.step,
        config=config,
    )
    return replace(
        found,
        origin=origin,
        preparation=Preparation(
            mean=images.mean, std=images.std, image_size=images.image_size, crop_ratio=images.crop_ratio
        ),
        views=None if config is None else config.views,
    )
