"""Explanation maps of a bundle for both parts, drawn over images."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gsfl_tune.data import square_side
from gsfl_tune.data.augment import center_crop
from gsfl_tune.data.image_file import load_square
from gsfl_tune.evidence.gradcam import (
    NoMaps,
    activation_maps,
    class_score,
    enlarged,
    group_directions,
    shared_score,
)
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import Bundle, ImageError, Prediction
from gsfl_tune.export.shared import network_with_shared
from gsfl_tune.models import Network
from gsfl_tune.run import write_bytes

Part = Literal["discriminative", "shared"]

# Small inputs are enlarged: a picture of 96 pixels shows little.
_LEAST_SIDE = 448
_CAPTION = 24
_OPACITY = 0.6


@dataclass(frozen=True)
class Explanation:
    """Holds the pictures of one image.

    Attributes:
        path: Path of the image.
        explained: The class that the maps explain.
        prediction: The most probable classes.
        files: The picture of each part.
    """

    path: str
    explained: str
    prediction: Prediction
    files: dict[Part, str] = field(default_factory=dict)


def explain(
    bundle: Bundle,
    images: Sequence[str | os.PathLike[str]],
    out: str | Path,
    *,
    explained: str | None = None,
    on_error: Callable[[ImageError], None] | None = None,
) -> list[Explanation]:
    """Writes maps over images: the evidence for a class and for its group.

    The map of the discriminative part shows the evidence for the class; it is always written. The
    map of the shared part is written if the bundle has that part (`Bundle.has_shared`). It shows
    what moves the shared part from the mean of all groups' centres towards that of the class's
    group.

    Args:
        bundle: The bundle.
        images: Paths.
        out: Directory of the pictures, ``NAME.discriminative.jpg`` and ``NAME.shared.jpg``;
            created if needed, pictures of the same names are replaced.
        explained: The class to explain; default: the most probable one of each image.
        on_error: Called with the error of an image that cannot be read, which is then left out;
            without it the first such image ends the work.

    Returns:
        One explanation per image that could be read.

    Raises:
        UserError: If the class is unknown, the bundle has no maps, or the directory cannot be
            written.
    """
    view = _View.of(bundle)
    if explained is not None:
        bundle.match_classes([explained])
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made a directory ({error.strerror})") from error
    explanations = []
    for path, name in zip(images, _picture_names(images), strict=True):
        found = bundle.predict([path], on_error=on_error)
        if not found:
            continue
        target = explained or found[0].classes[0]
        canvas = _canvas(bundle, path)
        files: dict[Part, str] = {}
        for part, heat in view.maps(path, target, canvas.width).items():
            file = out / f"{name}.{part}.jpg"
            _write(file, overlay(canvas, heat, f"{part} part: {target}"))
            files[part] = str(file)
        explanations.append(Explanation(os.fspath(path), target, found[0], files))
    return explanations


@dataclass(frozen=True)
class _View:
    """Holds a bundle's network with all of its parts.

    Attributes:
        bundle: The bundle.
        network: The network, with the shared branch if the bundle has it.
        directions: (C, H) direction of each class's group; None without the shared branch.
    """

    bundle: Bundle
    network: Network
    directions: Tensor | None

    @classmethod
    def of(cls, bundle: Bundle) -> _View:
        """Loads the network with its shared branch.

        Raises:
            UserError: If the bundle has no PyTorch network, or its shared branch does not fit.
        """
        network = getattr(bundle, "network", None)
        if not isinstance(network, Network):
            raise UserError(
                f"{bundle.path}: maps need the gradients of the PyTorch network; explain a bundle "
                "in the format safetensors, such as RUN/best"
            )
        if not bundle.has_shared:
            return cls(bundle, network, None)
        state = bundle.shared_state()
        try:
            groups = np.array([bundle.groups[name] for name in bundle.classes])
            table = group_directions(
                state["centers.centers"].numpy(), groups, int(groups.max()) + 1
            )
            directions = torch.from_numpy(table[groups]).to(bundle.device)
            return cls(bundle, network_with_shared(bundle, state), directions)
        except (RuntimeError, KeyError, ValueError) as error:
            raise UserError(f"{bundle.path}: the shared branch does not fit ({error})") from error

    def maps(self, path: str | os.PathLike[str], target: str, side: int) -> dict[Part, np.ndarray]:
        """Computes a map (side, side) in 0..1 for each part.

        Raises:
            UserError: If the network has no maps.
        """
        bundle = self.bundle
        label = torch.tensor([bundle.classes.index(target)], device=bundle.device)
        scores = {"discriminative": class_score(label)}
        if self.directions is not None:
            scores["shared"] = shared_score(self.directions[label])
        try:
            found = activation_maps(self.network, _normalised(bundle, path), list(scores.values()))
        except NoMaps as error:
            raise UserError(f"{bundle.path}: {error}") from error
        parts: tuple[Part, ...] = ("discriminative", "shared")
        return {part: enlarged(heat, side)[0] for part, heat in zip(parts, found, strict=False)}


def overlay(image: Image.Image, heat: np.ndarray, caption: str) -> Image.Image:
    """Draws a map over an image, above a line of text.

    Args:
        image: RGB, square.
        heat: (side, side) in 0..1; pixels at 0 are not changed.
        caption: The text.
    """
    import matplotlib

    colors = matplotlib.colormaps["turbo"](heat)[..., :3]
    pixels = np.asarray(image, dtype=np.float64) / 255
    # A map with only small values leaves the image unchanged.
    weight = _OPACITY * np.sqrt(heat)[..., None]
    mixed = np.rint(255 * ((1 - weight) * pixels + weight * colors)).astype(np.uint8)
    picture = Image.new("RGB", (image.width, image.height + _CAPTION), "white")
    picture.paste(Image.fromarray(mixed), (0, 0))
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(file), 14)
    while caption and font.getlength(caption) > image.width - 8:
        caption = caption.removesuffix("…")[:-1] + "…"
    ImageDraw.Draw(picture).text((4, image.height + 3), caption, "black", font)
    return picture


def _normalised(bundle: Bundle, path: str | os.PathLike[str]) -> Tensor:
    """Returns the image as the network sees it, (1, 3, size, size)."""
    how = bundle.preprocessing
    square = torch.from_numpy(load_square(path, how.side, how.fit, reading=how.reading)[0])[None]
    return center_crop(square.to(bundle.device), how.image_size, how.mean, how.std)


def _canvas(bundle: Bundle, path: str | os.PathLike[str]) -> Image.Image:
    """Returns the part of the image that the network sees, enlarged if it is small."""
    how = bundle.preprocessing
    size = how.image_size * max(1, math.ceil(_LEAST_SIDE / how.image_size))
    side = square_side(size)
    square = load_square(path, side, how.fit, reading=how.reading)[0]
    start = (side - size) // 2
    return Image.fromarray(square[start : start + size, start : start + size])


def _picture_names(images: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Returns names without suffix; a repeated name gets a number."""
    names: dict[str, None] = {}
    for image in images:
        stem = name = Path(image).stem
        number = 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names[name] = None
    return list(names)


def _write(file: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    try:
        write_bytes(file, buffer.getvalue())
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from error
