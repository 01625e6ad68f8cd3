"""Small real image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.experiment.data_config import DataConfig
from tests.once import once


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """An RGB image that no other seed gives."""
    random = np.random.default_rng(seed)
    width, height = size
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def save(path: Path, seed: int, size: tuple[int, int] = (20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path)
    return path


def fill(root: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Folders of different images: ``counts`` says how many each gets."""
    for number, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            save(root / folder / f"{index:03d}.png", seed + 1000 * number + index)
    return root


def configure(source: str, path: Path | str | list[str] | None = None, **values) -> DataConfig:
    if isinstance(path, Path):
        path = str(path)
    return DataConfig(**{"source": source, "path": path, "image_size": 16, **values})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that tests with real photographs share, in whichever process they run."""
    return once(tmp_path_factory, "photographs", lambda folder: None)
