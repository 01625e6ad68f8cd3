"""A bundle's backbone in its fastest form, while many images are answered on a CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import device as Device

from gsfl_tune.data import cache_directory
from gsfl_tune.export.engine import Engine, examples, refuse_others
from gsfl_tune.models import Backbone, Network
from gsfl_tune.models.frozen import frozen_forward
from gsfl_tune.models.frozen_forward import EngineRefused, FrozenForward, Precision
from gsfl_tune.models.onnxruntime_forward import OnnxruntimeForward, onnxruntime_forward
from gsfl_tune.models.openvino_forward import OpenvinoForward, openvino_forward
from gsfl_tune.training.caches.engines import enough_images, fast_backbone, gives_maps

_Other = OpenvinoForward | OnnxruntimeForward
_OTHERS = (OpenvinoForward, OnnxruntimeForward)
# What is asked for by name, also for few images.
_MAKERS: dict[str, Callable[[Backbone, tuple[int, int, int], Precision], _Other]] = {
    "openvino": lambda backbone, size, p: openvino_forward(backbone, size, precision=p),
    "onnxruntime": lambda backbone, size, p: onnxruntime_forward(backbone, size),
}

_log = logging.getLogger(__name__)


@contextmanager
def quickened(
    networks: Sequence[Network],
    image_size: int,
    images: int | None,
    device: Device,
    cache_dir: Path | None = None,
    engine: Engine | None = None,
) -> Iterator[None]:
    """Runs backbones as frozen features are computed; answers differ only by rounding.

    Networks with regions or parts in front of their model's own head stay as they are, and so do
    those with classifiers behind several blocks.
    Afterwards the networks are as they were. On a GPU nothing changes, and for few images only
    what the engine asks for.

    Args:
        networks: Networks in evaluation mode; members of an ensemble may share a backbone.
        image_size: Side of the images in pixels.
        images: How many images will be seen; None if unknown.
        device: Device of the networks.
        cache_dir: Root of the node's caches.
        engine: Who computes; default: whoever is faster.
    """
    engine = engine or Engine()
    few = not enough_images(images)
    asked = engine.name in _MAKERS or engine.precision != "fp32"
    if device.type != "cpu" or (few and not asked):
        yield
        return
    networks = [network for network in networks if gives_maps(network)]
    plain = [network.backbone for network in networks]
    size = (3, image_size, image_size)

    def ours(backbone: Backbone) -> FrozenForward:
        return frozen_forward(backbone, size, precision=engine.precision)

    def made(backbone: Backbone) -> FrozenForward:
        if engine.name == "torch" or (engine.name == "auto" and few):
            return ours(backbone)
        if engine.name in _MAKERS:
            try:
                return _MAKERS[engine.name](backbone, size, engine.precision)
            except EngineRefused as error:
                _log.warning("%s: %s is not used: %s", backbone.name, engine.title, error)
                return ours(backbone)
        return fast_backbone(
            backbone,
            image_size,
            precision=engine.precision,
            images=images or 0,
            device=device,
            cache_dir=cache_dir or cache_directory(),
        )

    forms = {id(each): made(each) for each in {id(each): each for each in plain}.values()}
    try:
        for network in networks:
            form = forms[id(network.backbone)]
            if isinstance(form, _OTHERS):
                form = _agreeing(network, form, image_size, engine) or ours(network.backbone)
            network.backbone = cast(Backbone, form)
        yield
    finally:
        for network, backbone in zip(networks, plain, strict=True):
            network.backbone = backbone


def _agreeing(network: Network, form: _Other, image_size: int, engine: Engine) -> _Other | None:
    """Compares a network's probabilities with those over another form of its backbone, once.

    Returns:
        The form; None if they differ.
    """
    pixels = torch.from_numpy(examples(image_size)).permute(0, 3, 1, 2).float() / 255
    plain = network.backbone
    with torch.inference_mode():
        images = (2 * pixels - 1).contiguous(memory_format=torch.channels_last)
        expected = network.infer(images)
        try:
            network.backbone = cast(Backbone, form)
            refuse_others(network.infer(images), expected, engine.precision)
        except EngineRefused as error:
            _log.warning("%s: %s is not used: %s", plain.name, engine.title, error)
            return None
        finally:
            network.backbone = plain
    return form
