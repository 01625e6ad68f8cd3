"""``gsfl-tune explain``."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsfl_tune import explain as explaining
from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.experiment.config import Config
from gsfl_tune.export import bundle_from_network, load_bundle, shared_tensors, write_bundle
from tests.export.conftest import CLASSES, GROUPS, make_config, make_network


@pytest.fixture(scope="session")
def large():
    """Configuration and network at 96 pixels: at 32 a map has one position."""
    content = make_config(head="gsfl").model_dump(mode="json")
    content["data"]["image_size"] = 96
    config = Config.model_validate(content)
    return config, make_network(config)


@pytest.fixture(scope="session")
def half_bundle(tmp_path_factory, large):
    """A bundle as a search leaves it."""
    config, network = large
    folder = tmp_path_factory.mktemp("half") / "bundle"
    return bundle_from_network(
        folder, network, config, classes=CLASSES, groups=GROUPS, side=111, metrics={}
    )


@pytest.fixture(scope="session")
def whole_bundle(tmp_path_factory, large, half_bundle):
    """A bundle with the shared branch."""
    config, network = large
    plain = load_bundle(half_bundle)
    centers = {"centers.centers": network.head.classifier.weight.detach().clone()}
    return write_bundle(
        tmp_path_factory.mktemp("whole") / "bundle",
        network_state=network.inference_state(),
        architecture=Architecture.of(config, network, len(CLASSES)),
        config=config.model_dump(mode="json"),
        classes=CLASSES,
        groups=plain.groups,
        preprocessing=plain.preprocessing,
        metrics={},
        shared={**shared_tensors(network), **centers},
    )


def test_pictures_of_both_parts_of_a_whole_bundle(command, whole_bundle, images, tmp_path):
    out = tmp_path / "maps"
    answer = command("explain", whole_bundle, *images[:2], "-o", out, "--json")
    assert (answer.code, answer.err) == (0, "")
    found = json.loads(answer.out)
    assert [each["path"] for each in found] == [str(image) for image in images[:2]]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{image.stem}.{part}.jpg" for image in images[:2] for part in ("discriminative", "shared")
    )
    pictures = {
        part: np.asarray(Image.open(file), dtype=int) for part, file in found[0]["files"].items()
    }
    height, width = pictures["shared"].shape[:2]
    assert min(height, width) >= 448
    # The curves are beside the discriminative map.
    assert pictures["discriminative"].shape == (height, width + 400, 3)
    assert np.abs(pictures["shared"] - pictures["discriminative"][:, :width]).max() > 20
    areas = found[0]["faithfulness"]
    assert set(areas) == {
        *("faithful", "deletion", "insertion", "random_deletion", "random_insertion")
    }
    assert all(0 <= areas[name] <= 1 for name in set(areas) - {"faithful"})
    predicted = load_bundle(whole_bundle).predict(images[:1])[0].classes[0]
    assert found[0]["explained"] == predicted


def test_areas_are_those_of_the_bundle_s_own_probabilities(command, half_bundle, images, tmp_path):
    """Deletion begins with the image and ends with the mean colour, in the fast form too."""
    answer = command("explain", half_bundle, images[0], "-o", tmp_path / "a")
    assert re.search(r"random maps: deletion 0\.\d\d \(random 0\.\d\d, lower", answer.out)
    bundle = load_bundle(half_bundle, "cpu")
    (predicted,) = bundle.predict([images[0]], top=1)
    view = explaining._View.of(bundle)
    heat = view.maps(images[0], predicted.classes[0])["discriminative"]
    measured = view.faithfulness(images[0], predicted.classes[0], heat)
    assert measured.own.deletion[0] == pytest.approx(predicted.probabilities[0], abs=1e-4)
    assert measured.own.insertion[-1] == pytest.approx(predicted.probabilities[0], abs=1e-4)
    plain = command(
        "explain", half_bundle, images[0], "-o", tmp_path / "b", "--no-curves", "--json"
    )
    (found,) = json.loads(plain.out)
    assert found["faithfulness"] is None
    picture = Image.open(found["files"]["discriminative"])
    assert picture.width == picture.height - 24
    # The map is drawn over grey: at the corner of the least evidence nothing is coloured.
    pixels = np.asarray(picture, dtype=int)[: picture.width]
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    assert spread.min() < 6
    assert spread.max() > 60


def test_says_why_there_is_no_shared_part(command, half_bundle, images, tmp_path):
    answer = command("explain", half_bundle, images[0], "-o", tmp_path / "maps", "--no-curves")
    assert answer.code == 0
    assert "export it again" in answer.err
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [
        f"{images[0].stem}.discriminative.jpg"
    ]


def test_a_chosen_class_may_be_decomposed(command, large, images, tmp_path):
    config, network = large
    # The network answers the first class, which would not be named as a chosen one.
    names = [*CLASSES[:-1], "\u00e9pi"]
    bundle = bundle_from_network(
        tmp_path / "bundle", network, config, classes=names, groups=GROUPS, side=111, metrics={}
    )
    words = ("-o", tmp_path / "maps", "--class", "e\u0301pi", "--no-curves")
    answer = command("explain", bundle, images[0], *words)
    assert answer.code == 0, answer.err
    assert f"explained {names[-1]}" in answer.out


def test_a_class_can_be_chosen(command, half_bundle, images, tmp_path):
    out = tmp_path / "maps"
    (predicted,) = load_bundle(half_bundle).predict(images[:1])
    other = predicted.classes[-1]
    plain = ("explain", half_bundle, images[0], "--no-curves")
    first = command(*plain, "-o", out / "a")
    answer = command(*plain, "-o", out / "b", "--class", other)
    assert (first.code, answer.code) == (0, 0)
    assert f"explained {other}" in answer.out
    a, b = (next((out / name).iterdir()).read_bytes() for name in "ab")
    assert a != b
    answer = command("explain", half_bundle, images[0], "-o", out, "--class", "unicorn")
    assert answer.code == 2
    assert "unicorn" in answer.err


def test_images_of_one_name_do_not_overwrite_each_other(command, half_bundle, images, tmp_path):
    twin = tmp_path / "other" / images[0].name
    twin.parent.mkdir()
    twin.write_bytes(images[1].read_bytes())
    arguments = ["-o", tmp_path / "maps", "--json", "--no-curves"]
    answer = command("explain", half_bundle, images[0], twin, *arguments)
    files = [each["files"]["discriminative"] for each in json.loads(answer.out)]
    assert len(set(files)) == 2
    contents = [Path(file).read_bytes() for file in files]
    assert contents[0] != contents[1]


def test_bad_input(command, half_bundle, images, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    out = tmp_path / "maps"
    answer = command("explain", half_bundle, broken, images[0], "-o", out, "--no-curves")
    assert answer.code == 1
    assert "broken.jpg: cannot be read as an image" in answer.err
    assert len(list(out.iterdir())) == 1
    assert command("explain", half_bundle, tmp_path / "absent.jpg", "-o", out).code == 2
    assert command("explain", tmp_path / "nothing", images[0], "-o", out).code == 2
    answer = command("explain", half_bundle, images[0], "-o", broken)
    assert answer.code == 2
    assert "cannot be made a directory" in answer.err


def test_a_map_of_one_position_is_refused(command, bundle_path, images, tmp_path):
    answer = command("explain", bundle_path, images[0], "-o", tmp_path / "maps")
    assert answer.code == 2
    assert "one position" in answer.err


def test_names_that_are_not_utf_8_are_explained(process, half_bundle, images, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9.png")
    odd.write_bytes(images[1].read_bytes())
    arguments = ["explain", half_bundle, odd, "-o", tmp_path / "maps", "--no-curves"]
    answer = process(*arguments)
    assert answer.code == 0, answer.err
    assert "caf\ufffd.png" in answer.out
    (found,) = json.loads(process(*arguments, "--json").out)
    assert found["path"] == str(tmp_path / "caf\ufffd.png")
