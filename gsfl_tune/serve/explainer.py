"""What the server shows beside an answer: a map of the evidence, and near training images."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.bundles.reading import read_description, read_network
from gsfl_tune.evidence.blend import COLOURS, blend
from gsfl_tune.evidence.gradcam import NoMaps, activation_maps, class_score, enlarged
from gsfl_tune.experiment.errors import first_line
from gsfl_tune.export import Bundle, BundleError
from gsfl_tune.export.runtimes import TorchRuntime
from gsfl_tune.export.seen import network_input, seen_part
from gsfl_tune.models import Network
from gsfl_tune.serve.images import FORMATS, check_image, damaged, decode
from gsfl_tune.serve.problems import Problem

_QUALITY = 85


class Explainer:
    """Draws maps and finds near training images, one image per call.

    Made before `Model.quicken`: maps need the layers that the fast form of a backbone has fused.
    Where another engine answers, the network is not kept, see `release`.

    Args:
        bundle: The bundle.
        max_pixels: Largest width times height of an image.

    Attributes:
        no_maps: Why there are no maps; None if there are.
        no_neighbours: Why there are no training images; None if there are.
    """

    def __init__(self, bundle: Bundle, max_pixels: int) -> None:
        self._bundle = bundle
        self._plain: Bundle | None = bundle
        self._max_pixels = max_pixels
        self._network: Network | None = None
        self.no_maps: str | None = None
        self.no_neighbours: str | None = None
        try:
            network = bundle.network
            # The parts are the same modules; `quicken` exchanges the backbone of the other one.
            self._network = network.having(network.head).eval()
            side = bundle.preprocessing.side
            self._heat(np.zeros((side, side, 3), dtype=np.uint8), 0)
        except (BundleError, NoMaps) as error:
            self._network, self.no_maps = None, str(error)
        except Exception as error:
            # Maps are an extra: whatever a package's pooling does, images are still answered.
            self._network, self.no_maps = None, f"{type(error).__name__}: {first_line(error)}"
        if bundle.has_neighbours:
            # Read now: a damaged file should not wait for the first request.
            _ = bundle.training_images
        else:
            self.no_neighbours = "the bundle was exported without --with-neighbours"

    def release(self, bundle: Bundle) -> None:
        """Lets go of PyTorch's network; the first map, or neighbours, read it again.

        Args:
            bundle: The same bundle with another runtime, which answers from now on.
        """
        self._bundle = bundle
        self._plain = self._network = None
        # The weights of later are those of now, or reading them is refused.
        self._description = read_description(bundle.path)

    def _with_network(self) -> Bundle:
        if self._plain is None:
            architecture = Architecture.from_json(self._description["architecture"])
            network = read_network(self._bundle.path, self._description, architecture)
            runtime = TorchRuntime(network, self._bundle.preprocessing)
            self._plain = replace(self._bundle, runtime=runtime)
        return self._plain

    def explain(self, data: bytes, name: str | None) -> dict[str, Any]:
        """Draws the evidence for a class over an image.

        Args:
            data: Content of an image file.
            name: The class; default: the most probable one.

        Returns:
            ``class``, its ``probability``, ``picture`` (a JPEG file as a ``data:`` URL), and
            ``colours``, the name of the colour map.

        Raises:
            Problem: If there are no maps or no such class, or the image cannot be read.
        """
        bundle = self._bundle
        if self.no_maps is not None:
            raise Problem(404, "no_maps", f"there are no maps: {self.no_maps}")
        if name is not None and name not in bundle.classes:
            raise Problem(400, "bad_parameter", f"class is {name[:80]!r}, which is not a class")
        square = decode(data, bundle.preprocessing, self._max_pixels)
        (found,) = bundle.predict([square], top=len(bundle.classes))
        chosen = name or found.classes[0]
        heat = self._heat(square, bundle.classes.index(chosen))
        canvas = self._canvas(data)
        picture = blend(np.asarray(canvas), enlarged(heat, canvas.width)[0])
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=_QUALITY)
        return {
            "class": chosen,
            "probability": found.probabilities[found.classes.index(chosen)],
            "picture": _url(stream.getvalue()),
            "colours": COLOURS,
        }

    def neighbours(self, data: bytes, count: int) -> dict[str, Any]:
        """Finds the nearest training images.

        Args:
            data: Content of an image file.
            count: Number of training images.

        Returns:
            ``neighbours``, the nearest first: ``name``, ``class``, ``similarity`` and ``picture``.

        Raises:
            Problem: If the bundle holds none, or the image cannot be read.
        """
        if self.no_neighbours is not None:
            reason = f"there are no training images: {self.no_neighbours}"
            raise Problem(404, "no_neighbours", reason)
        square = decode(data, self._bundle.preprocessing, self._max_pixels)
        (found,) = self._with_network().neighbours([square], count=count)
        return {
            "neighbours": [
                {
                    "name": each.name,
                    "class": each.label,
                    "similarity": each.similarity,
                    "picture": _url(each.picture),
                }
                for each in found
            ]
        }

    def _heat(self, square: np.ndarray, label: int) -> torch.Tensor:
        if self._network is None:
            self._network = self._with_network().network
        images = network_input(square, self._bundle.preprocessing, self._bundle.device)
        score = class_score(torch.tensor([label], device=images.device))
        return activation_maps(self._network, images, [score])[0]

    def _canvas(self, data: bytes) -> Image.Image:
        check_image(data, self._max_pixels)
        how = self._bundle.preprocessing
        try:
            return seen_part(data, how, formats=FORMATS, max_pixels=self._max_pixels)
        except MemoryError:
            raise
        except Exception as error:
            raise damaged(error) from error


def _url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
