"""A bundle reads the files that its run read: damaged ones and very large ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.data.image_file import PLAIN, Reading
from gsfl_tune.export import ImageError, bundle_from_network, load_bundle
from tests.export.conftest import CLASSES, GROUPS, SIDE


@pytest.fixture
def made(tmp_path, config, network):
    def make(reading: Reading) -> Path:
        return bundle_from_network(
            tmp_path / "bundle", network, config, classes=CLASSES, groups=GROUPS, side=SIDE,
            metrics={}, reading=reading,
        )  # fmt: skip

    return make


@pytest.fixture
def cut(tmp_path) -> Path:
    """A JPEG file whose end is missing."""
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    file = tmp_path / "cut.jpg"
    Image.fromarray(pixels).save(file)
    file.write_bytes(file.read_bytes()[:-400])
    return file


def test_a_run_that_accepted_files_without_an_end(made, cut):
    with pytest.raises(ImageError, match=r"cut\.jpg"):
        load_bundle(made(PLAIN)).predict([cut])
    (found,) = load_bundle(made(Reading(truncated=True))).predict([cut])
    assert found.classes


def test_the_limit_of_pixels_is_that_of_the_run(made, images):
    assert load_bundle(made(PLAIN)).predict(images[:1])
    with pytest.raises(ImageError, match=r"more than data\.max_pixels, 100\b"):
        load_bundle(made(Reading(max_pixels=100))).predict(images[:1])


def test_earlier_versions_read_a_bundle_of_the_defaults(made):
    how = json.loads((made(PLAIN) / "config.json").read_text())["preprocessing"]
    assert not {"truncated", "max_pixels"} & how.keys()
