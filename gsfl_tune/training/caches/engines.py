"""Who runs a frozen backbone on a CPU: our fast copy in PyTorch, or OpenVINO (extra ``cpu``).

Both give the same numbers up to rounding, so what is cached does not depend on who computed it.
Which one is faster is measured once a node, backbone, image size and precision, where there is
enough to compute, and kept in the node's cache.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from gsfl_tune.activity import activity
from gsfl_tune.cache.building import acquire
from gsfl_tune.cores import processor
from gsfl_tune.models import Backbone, Network
from gsfl_tune.models.frozen import frozen_forward
from gsfl_tune.models.frozen_forward import EngineRefused, FrozenForward, Precision
from gsfl_tune.models.openvino_forward import openvino_forward
from gsfl_tune.models.openvino_requests import is_installed
from gsfl_tune.run import read_json, write_json
from gsfl_tune.training.caches.keys import digest

# Part of the key of every decision; raise it when the measurement or an engine changes.
CODE_VERSION = 1

# Set to 0, OpenVINO is not used though it is installed.
SWITCH_VARIABLE = "GSFL_TUNE_OPENVINO"

# A conversion takes some seconds. With less than this to gain it is not begun.
_LEAST_SECONDS = 5.0
_IMAGES, _ROUNDS = 16, 2
# With fewer images a fast form of a whole backbone is not made, unless it was asked for.
_LEAST_IMAGES = 300
# Enough to tell seconds from minutes.
_FEW = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rehearsal:
    """Holds how fast each engine ran a frozen part on this node.

    Attributes:
        torch: Images a second of our copy.
        openvino: Images a second of OpenVINO; 0 if it was refused.
        refused: Why OpenVINO is not used; empty if it runs.
    """

    torch: float
    openvino: float
    refused: str = ""

    def gain(self, images: int) -> float:
        """Returns the seconds that OpenVINO saves for a number of images, without its start."""
        return images / self.torch - images / self.openvino if self.openvino else 0.0


def fast_forward(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    precision: Precision,
    name: str,
    images: int,
    device: torch.device,
    cache_dir: Path,
) -> FrozenForward:
    """Makes the fastest frozen forward pass for some images: our copy or OpenVINO's.

    OpenVINO runs on CPUs, where it is installed, saves several seconds, and gives the numbers of
    PyTorch; that is checked each time it is made. Otherwise our copy runs, and where OpenVINO was
    refused the log says why.

    Args:
        module: The frozen module, see `gsfl_tune.models.frozen.frozen_forward`.
        input_shape: Shape of one input, without B.
        precision: Precision of the computation.
        name: What the module is, as part of the key of the decision.
        images: How many images it will see.
        device: Where it will run.
        cache_dir: Root of the node's caches.
    """

    def ours() -> FrozenForward:
        return frozen_forward(module, input_shape, precision=precision)

    if device.type != "cpu" or not usable():
        return ours()
    file = _file(cache_dir, name, input_shape, precision)
    copy: FrozenForward | None = None
    if not file.exists():
        copy = ours()
        # Few images are done before a conversion is.
        if images / _rate(copy, input_shape, _FEW) < 2 * _LEAST_SECONDS:
            return copy
    known = _rehearsed(file, module, input_shape, precision, copy, name)
    if known.gain(images) < _LEAST_SECONDS:
        return copy or ours()
    try:
        with activity(f"making OpenVINO's form of {name}"):
            return openvino_forward(module, input_shape, precision=precision)
    except EngineRefused as error:  # other weights than at the rehearsal
        _log.warning("%s: OpenVINO is not used: %s", name, error)
        return copy or ours()


def prefix_maker(
    backbone: str, blocks: int | str, *, images: int, device: torch.device, cache_dir: Path
) -> Callable[..., FrozenForward]:
    """Returns what makes the fastest form of frozen blocks, for `SplitBackbone.frozen_prefix`.

    Args:
        backbone: Name of the whole backbone.
        blocks: Number of its last blocks that are trained.
        images: How many images it will see.
        device: Where it will run.
        cache_dir: Root of the node's caches.
    """
    name = f"{backbone} before its last {blocks} blocks"
    return partial(fast_forward, name=name, images=images, device=device, cache_dir=cache_dir)


def has_fast_form(network: Network, images: int | None, device: torch.device) -> bool:
    """Returns whether a network's backbone is worth a fast form, for some images on a device.

    Regions and parts are found on maps, which the form gives only where the pooling reads them.

    Args:
        network: The network.
        images: How many images it will see; None if unknown.
        device: Where it runs.
    """
    return device.type == "cpu" and enough_images(images) and gives_maps(network)


def enough_images(images: int | None) -> bool:
    """Returns whether a fast form pays for so many images; None: the number is unknown."""
    return images is not None and images >= _LEAST_IMAGES


def gives_maps(network: Network) -> bool:
    """Returns whether a fast form of the backbone gives all that the network reads of it."""
    # What enters blocks is not seen in it.
    return not network.reads_maps and network.granularities is None


def fast_backbone(
    backbone: Backbone,
    image_size: int,
    *,
    precision: Precision,
    images: int,
    device: torch.device,
    cache_dir: Path,
) -> FrozenForward:
    """Makes the fastest forward pass of a whole backbone in evaluation mode, see `fast_forward`.

    Args:
        backbone: The backbone.
        image_size: Side of the images in pixels.
        precision: Precision of the computation.
        images: How many images it will see.
        device: Where it will run.
        cache_dir: Root of the node's caches.
    """
    return fast_forward(
        backbone,
        (3, image_size, image_size),
        precision=precision,
        name=f"{backbone.name}, {backbone.reads}",
        images=images,
        device=device,
        cache_dir=cache_dir,
    )


def usable() -> bool:
    """Returns whether OpenVINO is installed and not switched off."""
    return os.environ.get(SWITCH_VARIABLE) != "0" and is_installed()


def rehearsal(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    precision: Precision,
    name: str,
    cache_dir: Path,
) -> Rehearsal:
    """Returns how fast each engine runs a frozen part here, measured once and kept.

    Args:
        module: The frozen module.
        input_shape: Shape of one input, without B.
        precision: Precision of the computation.
        name: What it is.
        cache_dir: Root of the node's caches.
    """
    file = _file(cache_dir, name, input_shape, precision)
    return _rehearsed(file, module, input_shape, precision, None, name)


def _rehearsed(
    file: Path,
    module: nn.Module,
    input_shape: Sequence[int],
    precision: Precision,
    copy: FrozenForward | None,
    name: str,
) -> Rehearsal:
    def build(path: Path) -> None:
        with activity(f"timing {name} with each engine"):
            own = copy or frozen_forward(module, input_shape, precision=precision)
            write_json(path, asdict(_measure(own, module, input_shape, precision, name)))

    with acquire(file, build, what=f"{name}, {input_shape[-1]} px, {precision}") as path:
        return Rehearsal(**read_json(path))


def _measure(
    own: FrozenForward,
    module: nn.Module,
    input_shape: Sequence[int],
    precision: Precision,
    name: str,
) -> Rehearsal:
    """Times both; they take turns, so that other load slows down both."""
    ways: dict[str, FrozenForward] = {"torch": own}
    refused = "" if usable() else "not installed"
    if not refused:
        try:
            ways["openvino"] = openvino_forward(module, input_shape, precision=precision)
        except EngineRefused as error:
            refused = str(error)
            _log.warning("%s: OpenVINO is not used: %s", name, refused)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_ROUNDS):
        for way, forward in ways.items():
            rates[way].append(_rate(forward, input_shape, _IMAGES))
    best = {way: max(found) for way, found in rates.items()}
    return Rehearsal(best["torch"], best.get("openvino", 0.0), refused)


def _rate(forward: FrozenForward, input_shape: Sequence[int], count: int) -> float:
    """Returns images a second, of a batch of `count`."""
    images: Tensor = torch.zeros((count, *input_shape))
    if images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        # Weights are packed at the first run; a request of OpenVINO has up to 8 images.
        forward(images[: min(count, 8) if count > _FEW else 1])
        started = time.perf_counter()
        forward(images)
    return count / max(time.perf_counter() - started, 1e-6)


def _file(cache_dir: Path, name: str, shape: Sequence[int], precision: Precision) -> Path:
    engine = version("openvino") if usable() else None
    key = digest(
        "engines", CODE_VERSION, torch.__version__, engine, processor(), torch.get_num_threads(),
        name, tuple(shape), precision,
    )  # fmt: skip
    return cache_dir / "engines" / f"{key}.json"
