"""The images of an export are those of its run: by their content, whatever classes are called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.export.images import RunImages
from tests.export.conftest import CLASSES, GROUPS, SIDE


@pytest.fixture
def photos(tmp_path) -> Path:
    """Ten images of each class, as JPEG files."""
    generator = np.random.default_rng(5)
    for name in CLASSES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 256, size=(5, 4, 3), dtype=np.uint8)
            file = tmp_path / "photos" / name / f"{number}.jpg"
            Image.fromarray(pixels).resize((40, 50)).save(file, quality=90)
    return tmp_path / "photos"


@pytest.fixture
def bundle(tmp_path, config, network, photos) -> Path:
    """The bundle of a run that was trained on them."""
    content = config.model_dump(mode="json")
    content["data"] |= {"source": "folder", "path": str(photos)}
    own = Config.model_validate(content)
    dataset = prepare(own.data, side=SIDE, cache_dir=tmp_path / "cache")
    return bundle_from_network(
        tmp_path / "best", network, own, classes=CLASSES, groups=GROUPS, side=SIDE, metrics={},
        trained_on=dataset.trained_on(validation=True),
    )  # fmt: skip


def opened(bundle: Path, path: Path | None, tmp_path: Path) -> RunImages:
    where = None if path is None else str(path)
    return RunImages.open(load_bundle(bundle, "cpu"), where, tmp_path / "cache")


def test_images_that_have_moved_are_those_of_the_run(bundle, photos, tmp_path):
    expected = opened(bundle, None, tmp_path).dataset.test.paths
    moved = shutil.move(photos, tmp_path / "moved")
    found = opened(bundle, moved, tmp_path).dataset.test.paths
    assert [Path(each).name for each in found] == [Path(each).name for each in expected]


def test_a_copy_that_was_compressed_again_is_refused(bundle, photos, tmp_path):
    """It is divided anew: most of its test images would be ones that the run was trained on."""
    copy = shutil.copytree(photos, tmp_path / "smaller")
    for file in copy.rglob("*.jpg"):
        with Image.open(file) as image:
            image.save(file, quality=50)
    with pytest.raises(UserError, match=r"smaller: other test images than those of the run"):
        opened(bundle, copy, tmp_path)


def rename(bundle: Path, names: list[str]) -> None:
    (bundle / "classes.json").write_text(json.dumps(names))
    groups = dict(zip(names, GROUPS, strict=True))
    (bundle / "groups.json").write_text(json.dumps(groups))


def test_classes_may_have_other_names_in_the_bundle(bundle, tmp_path):
    names = ["an ant", "honey bee", *CLASSES[2:]]
    rename(bundle, names)
    assert opened(bundle, None, tmp_path).dataset.classes == CLASSES
    assert load_bundle(bundle).classes == names


def test_classes_in_another_order_are_refused(bundle, photos, tmp_path):
    """A folder that was renamed moves the numbers of all classes behind it."""
    (photos / "ant").rename(photos / "zebra")
    with pytest.raises(UserError, match="other classes than those of the bundle"):
        opened(bundle, None, tmp_path)


def test_without_digests_the_names_decide(config, network, photos, tmp_path):
    """Bundles of earlier versions do not say what they were trained on."""
    content = config.model_dump(mode="json")
    content["data"] |= {"source": "folder", "path": str(photos)}
    arguments = {"groups": GROUPS, "side": SIDE, "metrics": {}}
    old = bundle_from_network(
        tmp_path / "old", network, Config.model_validate(content), classes=CLASSES, **arguments
    )
    assert opened(old, None, tmp_path).dataset.classes == CLASSES
    rename(old, ["an ant", *CLASSES[1:]])
    with pytest.raises(UserError, match="other classes than those of the bundle"):
        opened(old, None, tmp_path)
