"""The embedded data set: rendered text in the typefaces of matplotlib."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

from gsfl_tune.data.sources._base import Part, Reader, Sample, Source
from gsfl_tune.experiment.data_config import TypefacesConfig
from gsfl_tune.experiment.errors import UserError

# Part of the digests; change it when the rendered pixels change.
RENDER_VERSION = 1

# (class, family, file), in the order of the labels.
FACES: tuple[tuple[str, str, str], ...] = (
    ("DejaVu Sans", "DejaVu Sans", "DejaVuSans.ttf"),
    ("DejaVu Sans Bold", "DejaVu Sans", "DejaVuSans-Bold.ttf"),
    ("DejaVu Sans Oblique", "DejaVu Sans", "DejaVuSans-Oblique.ttf"),
    ("DejaVu Sans Bold Oblique", "DejaVu Sans", "DejaVuSans-BoldOblique.ttf"),
    ("DejaVu Sans Mono", "DejaVu Sans Mono", "DejaVuSansMono.ttf"),
    ("DejaVu Sans Mono Bold", "DejaVu Sans Mono", "DejaVuSansMono-Bold.ttf"),
    ("DejaVu Sans Mono Oblique", "DejaVu Sans Mono", "DejaVuSansMono-Oblique.ttf"),
    ("DejaVu Sans Mono Bold Oblique", "DejaVu Sans Mono", "DejaVuSansMono-BoldOblique.ttf"),
    ("DejaVu Serif", "DejaVu Serif", "DejaVuSerif.ttf"),
    ("DejaVu Serif Bold", "DejaVu Serif", "DejaVuSerif-Bold.ttf"),
    ("DejaVu Serif Italic", "DejaVu Serif", "DejaVuSerif-Italic.ttf"),
    ("DejaVu Serif Bold Italic", "DejaVu Serif", "DejaVuSerif-BoldItalic.ttf"),
    ("STIX", "STIX", "STIXGeneral.ttf"),
    ("STIX Bold", "STIX", "STIXGeneralBol.ttf"),
    ("STIX Italic", "STIX", "STIXGeneralItalic.ttf"),
    ("STIX Bold Italic", "STIX", "STIXGeneralBolIta.ttf"),
    ("Computer Modern Bold", "Computer Modern", "cmb10.ttf"),
    ("Computer Modern Roman", "Computer Modern", "cmr10.ttf"),
    ("Computer Modern Sans", "Computer Modern", "cmss10.ttf"),
    ("Computer Modern Italic", "Computer Modern", "cmti10.ttf"),
    ("Computer Modern Typewriter", "Computer Modern", "cmtt10.ttf"),
)
_PARTS: tuple[Part, Part] = ("train", "test")
_VOWELS = "aeiou"
_CONSONANTS = "bcdfghjklmnpqrstvwxyz"


class TypefacesSource(Source):
    """Renders images on demand; equal for equal configurations, in any order.

    Args:
        config: Number of images, their size, and the seed.
    """

    def __init__(self, config: TypefacesConfig) -> None:
        super().__init__()
        self.classes = [name for name, _, _ in FACES]
        self.known_groups = [family for _, family, _ in FACES]
        self.revision = f"numpy {np.__version__}, freetype {features.version('freetype2')}"
        self._config = config
        self._items: list[tuple[int, int, int]] = []
        for part_number, (part, count) in enumerate(
            zip(_PARTS, (config.train, config.test), strict=True)
        ):
            for label, name in enumerate(self.classes):
                for index in range(count):
                    self._items.append((part_number, label, index))
                    self.samples.append(
                        Sample(label, part, f"typefaces/{part}/{name}/{index:04d}", None)
                    )

    def known_digests(self) -> list[bytes]:
        """Returns digests of the values that an image is rendered from."""
        config = self._config
        return [
            hashlib.blake2b(
                f"typefaces {RENDER_VERSION} {config.size} {config.seed} {item}".encode(),
                digest_size=16,
            ).digest()
            for item in self._items
        ]

    def readers(self, positions: Sequence[int]) -> Iterator[tuple[int, Reader]]:
        """Yields renderers."""
        config = self._config
        for position in positions:
            part_number, label, index = self._items[int(position)]
            yield (
                int(position),
                functools.partial(
                    render,
                    label,
                    size=config.size,
                    seed=(config.seed, part_number, label, index),
                ),
            )


# With the ranges below a linear classifier on frozen EfficientNet-Lite0 features (96 px, 40 images
# per class) reaches about 30 %. The task is hard, and a search can improve it.


def render(label: int, *, size: int, seed: Sequence[int]) -> Image.Image:
    """Renders one crop of text with random words, colours, rotation, blur and noise.

    Args:
        label: Position in `FACES`.
        size: Side of the image in pixels.
        seed: Non-negative integers that decide all random numbers.

    Returns:
        RGB image of (size, size).
    """
    random = np.random.default_rng(list(seed))
    background, ink = _colors(random)
    # Large enough to cover all corners after any rotation: cos 15 + sin 15 is 1.22.
    canvas = int(size * 1.25)
    image = Image.new("RGB", (canvas, canvas), background)
    draw = ImageDraw.Draw(image)
    height = size * random.uniform(0.2, 0.3)
    font = _font(label, max(6, round(height)))
    line = height * random.uniform(1.1, 1.5)
    y = -line * random.uniform(0.0, 1.0)
    while y < canvas:
        x = -height * random.uniform(0.0, 3.0)
        while x < canvas:
            # Word by word with one space width for all faces, which would otherwise identify a
            # face.
            word = _word(random)
            draw.text((x, y), word, font=font, fill=ink)
            x += font.getlength(word) + 0.35 * height
        y += line
    image = image.rotate(random.uniform(-15, 15), Image.Resampling.BICUBIC, fillcolor=background)
    corner = (canvas - size) // 2
    image = image.crop((corner, corner, corner + size, corner + size))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.0, 0.005) * size))
    pixels = np.asarray(image, dtype=np.float32)
    noise = random.standard_normal(pixels.shape, dtype=np.float32) * random.uniform(2.0, 10.0)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def _word(random: np.random.Generator) -> str:
    """Returns a pronounceable word, or sometimes a number."""
    if random.random() < 0.1:
        return str(random.integers(10, 10000))
    letters: list[str] = []
    for _ in range(int(random.integers(1, 4))):
        letters.append(_CONSONANTS[random.integers(len(_CONSONANTS))])
        letters.append(_VOWELS[random.integers(len(_VOWELS))])
        if random.random() < 0.4:
            letters.append(_CONSONANTS[random.integers(len(_CONSONANTS))])
    word = "".join(letters)
    case = random.random()
    return word.capitalize() if case < 0.3 else word.upper() if case < 0.4 else word


def _colors(random: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Returns background and ink colours that differ enough in brightness to be read."""
    while True:
        background, ink = random.integers(0, 256, (2, 3))
        if abs(_luma(background) - _luma(ink)) > 70:
            return _triple(background), _triple(ink)


def _luma(color: np.ndarray) -> float:
    return float(color @ np.array([0.299, 0.587, 0.114]))


def _triple(color: np.ndarray) -> tuple[int, int, int]:
    return int(color[0]), int(color[1]), int(color[2])


@functools.lru_cache(maxsize=1024)
def _font_bytes(label: int) -> bytes:
    # Only the library's files are needed; importing it would take longer than reading fonts.
    origin = getattr(find_spec("matplotlib"), "origin", None)
    if origin is None:
        raise UserError(
            "data.source: typefaces needs the fonts of matplotlib: pip install matplotlib"
        )
    folder = Path(origin).parent / "mpl-data" / "fonts" / "ttf"
    return (folder / FACES[label][2]).read_bytes()


def _font(label: int, height: int) -> ImageFont.FreeTypeFont:
    import io

    # Threads must not share a font object. The basic layout engine is in every Pillow.
    return ImageFont.truetype(
        io.BytesIO(_font_bytes(label)), height, layout_engine=ImageFont.Layout.BASIC
    )
