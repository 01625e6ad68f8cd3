"""Explanation maps of a bundle for both parts, drawn over images."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gsfl_tune.data.image_file import load_square
from gsfl_tune.evidence.blend import COLOURS, blend
from gsfl_tune.evidence.faithfulness import Curves, Faithfulness, faithfulness
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
from gsfl_tune.export.seen import network_input, seen_part
from gsfl_tune.export.shared import network_with_shared
from gsfl_tune.models import Network
from gsfl_tune.models.frozen import frozen_forward
from gsfl_tune.run import write_bytes

Part = Literal["discriminative", "shared"]

_CAPTION = 24
_PANEL = 400


@dataclass(frozen=True)
class Explanation:
    """Holds the pictures of one image.

    Attributes:
        path: Path of the image.
        explained: The class that the maps explain.
        prediction: The most probable classes.
        files: The picture of each part.
        faithfulness: Areas below the deletion and insertion curves of the discriminative map,
            and of random maps; None if they were not computed.
    """

    path: str
    explained: str
    prediction: Prediction
    files: dict[Part, str] = field(default_factory=dict)
    faithfulness: dict[str, object] | None = None


def explain(
    bundle: Bundle,
    images: Sequence[str | os.PathLike[str]],
    out: str | Path,
    *,
    explained: str | None = None,
    curves: bool = True,
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
        curves: Whether to draw deletion and insertion curves beside the discriminative map. They
            take 136 passes per image.
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
        explained = bundle.classes[int(bundle.match_classes([explained])[0])]
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
        canvas = seen_part(path, bundle.preprocessing)
        files: dict[Part, str] = {}
        measured = None
        for part, heat in view.maps(path, target).items():
            picture = overlay(canvas, enlarged(heat, canvas.width)[0], f"{part} part: {target}")
            if curves and part == "discriminative":
                measured = view.faithfulness(path, target, heat)
                picture = beside(picture, measured)
            file = out / f"{name}.{part}.jpg"
            _write(file, picture)
            files[part] = str(file)
        told = None if measured is None else measured.to_json()
        explanations.append(Explanation(os.fspath(path), target, found[0], files, told))
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

    def maps(self, path: str | os.PathLike[str], target: str) -> dict[Part, Tensor]:
        """Computes a map (1, h, w) for each part.

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
        return dict(zip(parts, found, strict=False))

    def faithfulness(self, path: str | os.PathLike[str], target: str, heat: Tensor) -> Faithfulness:
        """Measures a map (1, h, w) of a class by deletion and insertion."""
        label = self.bundle.classes.index(target)

        def probability(images: Tensor) -> Tensor:
            with torch.inference_mode():
                return self.fast.infer(images).cpu().double().softmax(dim=1)[:, label]

        return faithfulness(probability, _normalised(self.bundle, path), heat)

    @functools.cached_property
    def fast(self) -> Network:
        """Returns the network with the fast form of its backbone, for many passes."""
        network = self.network
        if self.bundle.device.type != "cpu":
            return network
        if network.reads_maps:
            return network
        size = self.bundle.preprocessing.image_size
        backbone = network.backbone
        made = network.having(network.head).eval()
        fast: Any = frozen_forward(backbone, (3, size, size))
        made.backbone = fast
        return made


def overlay(image: Image.Image, heat: np.ndarray, caption: str) -> Image.Image:
    """Draws a map over a grey image, above a line of text with the scale of colours.

    Args:
        image: RGB, square.
        heat: (side, side) in 0..1; pixels at 0 stay grey.
        caption: The text.
    """
    import matplotlib

    mixed = blend(np.asarray(image), heat)
    picture = Image.new("RGB", (image.width, image.height + _CAPTION), "white")
    picture.paste(Image.fromarray(mixed), (0, 0))
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(file), 14)
    width = image.width // 5
    room = image.width - width - 60
    while caption and font.getlength(caption) > room:
        caption = caption.removesuffix("…")[:-1] + "…"
    draw = ImageDraw.Draw(picture)
    draw.text((4, image.height + 3), caption, "black", font)
    shades = np.tile(np.linspace(0, 1, width), (12, 1))
    bar = (255 * matplotlib.colormaps[COLOURS](shades)[..., :3]).round().astype(np.uint8)
    left = image.width - width - 22
    picture.paste(Image.fromarray(bar), (left, image.height + 6))
    draw.text((left - 14, image.height + 3), "0", "black", font)
    draw.text((left + width + 5, image.height + 3), "1", "black", font)
    return picture


def beside(picture: Image.Image, measured: Faithfulness) -> Image.Image:
    """Puts the curves of a map, and of random maps, to the right of its picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_PANEL / 100, picture.height / 100), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    areas = measured.to_json()
    rows: list[tuple[str, str, Callable[[Curves], np.ndarray]]] = [
        ("deletion", "lower is better", lambda each: each.deletion),
        ("insertion", "higher is better", lambda each: each.insertion),
    ]
    for plot, (name, better, curve) in zip(figure.subplots(2, 1), rows, strict=True):
        own = curve(measured.own)
        shares = np.linspace(0, 100, len(own))
        for number, each in enumerate(measured.random):
            label = f"random maps, {areas[f'random_{name}']:.2f}" if number == 0 else None
            plot.plot(shares, curve(each), "--", color="#8b95a1", linewidth=1, label=label)
        plot.plot(shares, own, color="#d55e00", linewidth=2, label=f"this map, {areas[name]:.2f}")
        plot.set_title(f"{name}: area, {better}", fontsize=9)
        plot.set_ylim(-0.02, 1.02)
        plot.set_xlabel(f"% of pixels {'deleted' if name == 'deletion' else 'shown'}", fontsize=8)
        plot.set_ylabel("probability", fontsize=8)
        plot.tick_params(labelsize=8)
        plot.legend(fontsize=8, loc="best")
    words = "beats random maps" if measured.faithful else "does not beat random maps"
    figure.suptitle(f"The map {words}", fontsize=10)
    canvas.draw()
    panel = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    both = Image.new("RGB", (picture.width + panel.width, picture.height), "white")
    both.paste(picture, (0, 0))
    both.paste(panel, (picture.width, 0))
    return both


def _normalised(bundle: Bundle, path: str | os.PathLike[str]) -> Tensor:
    """Returns the image as the network sees it, (1, 3, size, size)."""
    how = bundle.preprocessing
    square = load_square(path, how.side, how.fit, reading=how.reading)[0]
    return network_input(square, how, bundle.device)


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
