"""Super-resolution networks that make degraded images large again.

Source: spandrel (https://github.com/chaiNNer-org/spandrel), which tells the architecture of a
network from the names and shapes of its tensors: Real-ESRGAN, SwinIR, HAT, SPAN and others.
"""

from __future__ import annotations

import copy
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from gsfl_tune.experiment.errors import UserError, first_line

SUFFIXES = (".safetensors", ".pth", ".pt")
_ALLOWED = "allowed a super-resolution network that spandrel knows, of RGB images, or null"


class Restorer:
    """Enlarges images by a super-resolution network, one at a time, in float32.

    What an image becomes depends on its pixels alone. On a GPU it may differ by the rounding of
    convolutions there.

    Args:
        path: File of the network's tensors (`SUFFIXES`); pickled code in it is never run.

    Attributes:
        scale: How many times longer a side becomes.
        parameters: Number of its parameters.

    Raises:
        UserError: If spandrel is missing, or the file is not that of such a network.
    """

    def __init__(self, path: str) -> None:
        if problem := restorer_problem(path):
            raise UserError(f"data.augment.restorer: {problem}")
        try:
            status = os.stat(path)
            network = _loaded(path, status.st_mtime_ns, status.st_size)
        except (OSError, EOFError, SafetensorError, UnpicklingError, RuntimeError) as error:
            raise UserError(
                f"data.augment.restorer: {path} cannot be read as weights "
                f"({type(error).__name__}: {first_line(error)}); {_ALLOWED}"
            ) from error
        self.scale = int(network.scale)
        self.parameters = sum(each.numel() for each in network.model.parameters())
        self._copies = {torch.device("cpu"): network}

    def __call__(self, image: np.ndarray, device: torch.device) -> np.ndarray:
        """Returns the image (h, w, 3) uint8 enlarged: (scale h, scale w, 3) uint8.

        Args:
            image: The image.
            device: Where the network computes.
        """
        if device not in self._copies:
            self._copies[device] = copy.deepcopy(self._copies[torch.device("cpu")]).to(device)
        pixels = torch.from_numpy(image.copy()).to(device).permute(2, 0, 1)[None].float() / 255
        large = self._copies[device](pixels)[0]
        whole: np.ndarray = (large * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        return whole


def restorer_parameters(path: str) -> int:
    """Counts the parameters of a network, for prices; 0 where it cannot be read."""
    try:
        return Restorer(path).parameters
    except UserError:  # said elsewhere
        return 0


def restorer_problem(path: str | None) -> str | None:
    """Says what keeps a file from being used, as far as its name and this machine tell, or None."""
    if path is None:
        return None
    if Path(path).suffix.lower() not in SUFFIXES:
        return f"found {path}, allowed a file of weights ({', '.join(SUFFIXES)}), or null"
    if find_spec("spandrel") is None:
        return (
            f"found {path}, but spandrel is not installed: run  pip install "
            "'gsfl-tune[super-resolution]', or set it to null (Lanczos)"
        )
    return None


@lru_cache(maxsize=2)
def _loaded(path: str, changed: int, size: int) -> Any:
    """Loads a network; time and size of the file tell whether it is still the same."""
    if path.lower().endswith(".safetensors"):
        tensors: Any = load_file(path)
    else:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    # It takes a second to import.
    import spandrel

    try:
        # A network is made with random weights first: numbers that a training would miss.
        with torch.random.fork_rng(devices=[]):
            found: Any = spandrel.ModelLoader().load_from_state_dict(
                spandrel.canonicalize_state_dict(tensors)
            )
    except Exception as error:  # what is no network of its own fails it anywhere
        raise UserError(
            f"data.augment.restorer: {path} is no network that spandrel {spandrel.__version__} "
            f"knows ({type(error).__name__}: {first_line(error)}); {_ALLOWED}"
        ) from error
    channels = found.input_channels, getattr(found, "output_channels", 0)
    if found.purpose != "SR" or found.scale < 2 or channels != (3, 3):
        raise UserError(
            f"data.augment.restorer: {path} is a network for {found.purpose} "
            f"({found.architecture.name}) that enlarges {channels[0]} channels to {channels[1]}, "
            f"{found.scale} times; {_ALLOWED}"
        )
    found.model.requires_grad_(False)
    return found.float().eval()
