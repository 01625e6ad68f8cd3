"""A bundle's backbone in its fastest form, while many images are answered on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from torch import device as Device

from gsfl_tune.data import cache_directory
from gsfl_tune.models import Backbone, Network
from gsfl_tune.training.caches.engines import fast_forward

# With fewer images a fast form is not made.
_LEAST_IMAGES = 300


@contextmanager
def quickened(
    networks: Sequence[Network],
    image_size: int,
    images: int | None,
    device: Device,
    cache_dir: Path | None = None,
) -> Iterator[None]:
    """Runs backbones as frozen features are computed; answers differ only by rounding.

    Networks with recurrent attention in front of their model's own head stay as they are.
    Afterwards the networks are as they were. On a GPU, and for few images, nothing changes.

    Args:
        networks: Networks in evaluation mode; members of an ensemble may share a backbone.
        image_size: Side of the images in pixels.
        images: How many images will be seen; None if unknown.
        device: Device of the networks.
        cache_dir: Root of the node's caches.
    """
    if device.type != "cpu" or images is None or images < _LEAST_IMAGES:
        yield
        return
    # Regions are proposed from maps, which the fast form gives only where the pooling reads them.
    networks = [
        network
        for network in networks
        if network.recurrent is None or network.pooling.reads == "map"
    ]
    plain = [network.backbone for network in networks]
    made = {
        id(backbone): fast_forward(
            backbone,
            (3, image_size, image_size),
            precision="fp32",
            name=f"{backbone.name}, {backbone.reads}",
            images=images,
            device=device,
            cache_dir=cache_dir or cache_directory(),
        )
        for backbone in {id(each): each for each in plain}.values()
    }
    try:
        for network in networks:
            network.backbone = cast(Backbone, made[id(network.backbone)])
        yield
    finally:
        for network, backbone in zip(networks, plain, strict=True):
            network.backbone = backbone
