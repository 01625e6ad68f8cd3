"""What an adaptation has seen does not judge it: not by bytes, and not by look."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.adaptation.images import open_images
from gsfl_tune.adaptation.judge import open_judge
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import load_bundle


@pytest.fixture(scope="module")
def bundle(stripes_home):
    return load_bundle(stripes_home / "bundle", "cpu")


@pytest.fixture
def seen(bundle, stripes_home, tmp_path):
    return open_images(bundle, [str(stripes_home / "target")], tmp_path / "cache")


def test_other_images_judge(bundle, stripes_home, seen, tmp_path):
    found = open_judge(bundle, str(stripes_home / "judge"), seen, tmp_path / "cache")
    assert (len(found.images), len(found.kept), found.alike) == (80, 80, 0)
    names = [bundle.classes[label] for label in found.labels]
    assert names == [path.split("/")[-2] for path in found.images.paths]


def test_the_same_images_under_other_names_are_refused(bundle, stripes_home, seen, tmp_path):
    shutil.copytree(stripes_home / "judge", tmp_path / "mixed")
    shutil.copy(stripes_home / "target" / "flat" / "3.png", tmp_path / "mixed" / "flat" / "new.png")
    with pytest.raises(UserError, match=r"1 of 81 images .*flat/new\.png.*cannot judge") as error:
        open_judge(bundle, str(tmp_path / "mixed"), seen, tmp_path / "cache")
    assert "--judge" in str(error.value)


def photograph(seed: int) -> Image.Image:
    """Large blots of colour, which differ from picture to picture."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((80, 80), Image.Resampling.BICUBIC)


def test_copies_of_another_size_and_brightness_do_not_judge(bundle, tmp_path):
    for number in range(6):
        (tmp_path / "seen").mkdir(exist_ok=True)
        photograph(number).save(tmp_path / "seen" / f"{number}.png")
    for name, numbers in (("flat", (0, 11)), ("rising", (12, 13))):
        (tmp_path / "judge" / name).mkdir(parents=True)
        for number in numbers:
            picture = photograph(number).resize((60, 60)).point(lambda level: round(0.9 * level))
            picture.save(tmp_path / "judge" / name / f"{number}.jpg", quality=90)
    seen = open_images(bundle, [str(tmp_path / "seen")], tmp_path / "cache")
    found = open_judge(bundle, str(tmp_path / "judge"), seen, tmp_path / "cache")
    assert (len(found.kept), found.alike) == (3, 1)
    assert "0.jpg" not in " ".join(found.images.paths[place] for place in found.kept)
    assert any("1 of 4 images are left out" in line for line in found.notices)
    shutil.rmtree(tmp_path / "judge" / "rising")
    (tmp_path / "judge" / "rising").mkdir()
    photograph(2).save(tmp_path / "judge" / "rising" / "2.jpg", quality=90)
    (tmp_path / "judge" / "flat" / "11.jpg").unlink()
    with pytest.raises(UserError, match="all 2 images"):
        open_judge(bundle, str(tmp_path / "judge"), seen, tmp_path / "cache")


def test_classes_that_the_bundle_does_not_know_are_refused(bundle, stripes_home, seen, tmp_path):
    shutil.copytree(stripes_home / "judge" / "flat", tmp_path / "judge" / "wavy")
    shutil.copytree(stripes_home / "judge" / "rising", tmp_path / "judge" / "rising")
    with pytest.raises(UserError, match="unknown to the bundle: wavy"):
        open_judge(bundle, str(tmp_path / "judge"), seen, tmp_path / "cache")
    with pytest.raises(UserError, match="experiment file"):
        open_judge(bundle, "x.yaml", seen, tmp_path / "cache")
