"""A bundle with everything that the page shows: maps, a threshold, training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gsfl_tune.experiment.config import Config
from gsfl_tune.export import bundle_from_network, export_run
from gsfl_tune.run import RunDirectory
from tests.export.conftest import GROUPS, METRICS, make_config, make_network
from tests.export.test_calibrated import CALIBRATION

# Class names come from anybody's folders.
EVIL = 'fox <img src=x onerror="document.title=1">'
CLASSES = ["ant", "bee", "cat", "dog", "eel", EVIL]


def write_images(root: Path) -> None:
    """Writes ``ROOT/PART/CLASS/N.png``, a colour for each class."""
    generator = np.random.default_rng(1)
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        for number, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for place in range(count):
                pixels = generator.integers(0, 90, (12, 12, 3)) + 25 * np.array([number, 3, 6])
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.resize((120, 120)).save(folder / f"{place}.png")


def whole_bundle(folder: Path) -> Path:
    """Exports a bundle of an untrained network at 96 pixels: at 32 a map has one position."""
    write_images(folder / "images")
    content = make_config(head="gsfl", backbone="test_efficientnet").model_dump(mode="json")
    content["data"] |= {"image_size": 96, "source": "folder", "path": str(folder / "images")}
    config = Config.model_validate(content)
    run = RunDirectory(folder / "run")
    run.path.mkdir()
    bundle_from_network(
        run.best,
        make_network(config),
        config,
        classes=CLASSES,
        groups=GROUPS,
        side=111,
        metrics=METRICS,
        calibration=CALIBRATION,
    )
    return export_run(run.path, folder / "bundle", neighbours=3, cache_dir=folder / "cache")
