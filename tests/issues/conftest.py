"""A small data set of drawn shapes with everything wrong with it that there is."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from gsfl_tune.cli import main

SIDE = 96
KINDS = ("circle", "cross", "stripes")
EVIL = "<script>alert('x')</script>"


def shape(kind: str, seed: int) -> Image.Image:
    """A shape of random colours, place and size on a ground with grain."""
    random = np.random.default_rng(seed)
    light, deep = random.integers(150, 256, 3), random.integers(0, 110, 3)
    ground = light + random.normal(0, 10, (SIDE, SIDE, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    colour = tuple(int(each) for each in deep)
    size = int(random.integers(20, 34))
    x, y = (int(each) for each in random.integers(size, SIDE - size, 2))
    if kind == "circle":
        draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)
    elif kind == "cross":
        draw.rectangle((x - size, y - 5, x + size, y + 5), fill=colour)
        draw.rectangle((x - 5, y - size, x + 5, y + size), fill=colour)
    else:
        # Of several widths, or two images would be copies of another tone, or cut ones.
        for line in range(int(random.integers(0, 8)), SIDE, 11 + 4 * (seed % 5)):
            draw.rectangle((0, line, SIDE, line + 5), fill=colour)
    return image


@dataclass(frozen=True)
class Planted:
    """What is wrong with the data set, by relative path.

    Attributes:
        folder: The images.
        wrong: Images in the folder of another class: their true class.
        copies: (original, copy of another size with another label).
        odd: Kind of issue: the image that has it.
    """

    folder: Path
    wrong: dict[str, str]
    copies: tuple[str, str]
    odd: dict[str, str]


def plant(folder: Path) -> Planted:
    """Writes the images."""
    for number, kind in enumerate(KINDS):
        (folder / kind).mkdir(parents=True)
        for index in range(24):
            shape(kind, 100 * number + index).save(folder / kind / f"{index:02d}.png")
    wrong = {"circle/stray.png": "stripes", "stripes/stray.png": "cross"}
    for number, (path, kind) in enumerate(wrong.items()):
        shape(kind, 900 + number).save(folder / path)
    original = shape("cross", 950)
    original.save(folder / "cross" / "first.png")
    original.resize((72, 72)).save(folder / "circle" / "again.jpg", quality=70)
    odd = {
        "dark": "circle/dark.png",
        "bright": "circle/bright.png",
        "blurred": "circle/blurred.png",
        "tiny": "cross/tiny.png",
        "aspect_ratio": "cross/wide.png",
        "broken": "stripes/broken.png",
        "outlier": "cross/noise.png",
    }
    shape("circle", 960).point(lambda value: value // 6).save(folder / odd["dark"])
    shape("circle", 961).point(lambda value: 170 + value // 3).save(folder / odd["bright"])
    soft = shape("circle", 962).filter(ImageFilter.GaussianBlur(4))
    soft.save(folder / odd["blurred"])
    shape("cross", 963).resize((24, 24)).save(folder / odd["tiny"])
    shape("cross", 964).resize((400, SIDE)).save(folder / odd["aspect_ratio"])
    noise = np.random.default_rng(965).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / odd["outlier"])
    (folder / odd["broken"]).write_bytes(b"nothing")
    shutil.copy(folder / "stripes" / "00.png", folder / "stripes" / "twin.png")
    # A class with few images, and with a name that must not become markup.
    rare = folder / EVIL.replace("/", "⁄")
    rare.mkdir()
    for index in range(5):
        shape("circle", 970 + index).rotate(45).filter(ImageFilter.FIND_EDGES).save(
            rare / f"{index}.png"
        )
    return Planted(folder, wrong, ("cross/first.png", "circle/again.jpg"), odd)


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Planted:
    return plant(tmp_path_factory.mktemp("issues") / "shapes")


@dataclass(frozen=True)
class Issues:
    """What the command found.

    Attributes:
        planted: What was planted.
        folder: Of the page and the table.
        answer: Its JSON.
        rows: Rows of the table.
    """

    planted: Planted
    folder: Path
    answer: dict[str, Any]
    rows: list[dict[str, str]]

    def paths(self, kind: str) -> list[str]:
        """Relative paths of the images of one kind, in their order."""
        return [
            str(Path(row["path"]).relative_to(self.planted.folder))
            for row in self.rows
            if row["issue"] == kind
        ]


@pytest.fixture(scope="session")
def issues(planted, tmp_path_factory) -> Issues:
    """What ``gsfl-tune data FOLDER --issues --json`` says and writes."""
    place = tmp_path_factory.mktemp("found")
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text):
        patch.setenv("GSFL_TUNE_CACHE", str(place / "cache"))
        patch.setenv("COLUMNS", "80")
        size = f"data.image_size={SIDE}"
        out = str(place / "out")
        code = main(
            ["data", str(planted.folder), "--issues", "--json", "--out", out, "--set", size]
        )
    assert code == 0
    with (place / "out" / "issues.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Issues(planted, place / "out", json.loads(text.getvalue()), rows)
