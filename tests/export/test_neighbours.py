"""Training images in a bundle, and those nearest to an image."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.bundles import files
from gsfl_tune.data import prepare
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import BundleError, Options, export_run, load_bundle
from gsfl_tune.export.neighbour_tensors import inside


@pytest.fixture(scope="module")
def exported(trained_run, cache_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("near") / "bundle"
    return export_run(trained_run.path, out, neighbours=5, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def pool(trained_run, cache_dir):
    """Training and validation images: the model was trained on both."""
    config = Config.model_validate(json.loads(trained_run.experiment_file.read_text()))
    return prepare(config.data, side=40, cache_dir=cache_dir).pool


def test_nearest_are_those_of_a_plain_loop(exported, pool, squares):
    bundle = load_bundle(exported, "cpu")
    stored = bundle.training_images
    assert len(stored) == 5 * len(bundle.classes)
    (found,) = bundle.neighbours([squares[0]], count=4)

    def part(square: np.ndarray) -> np.ndarray:
        how = bundle.preprocessing
        whole = (how.image_size * 115 + 99) // 100
        pixels = torch.from_numpy(square.copy()).permute(2, 0, 1)[None].float()
        size = (whole, whole)
        large = torch.nn.functional.interpolate(
            pixels, size, mode="bicubic", antialias=True, align_corners=False
        )
        start = (whole - how.image_size) // 2
        stop = start + how.image_size
        mean = torch.tensor(how.mean)[:, None, None]
        std = torch.tensor(how.std)[:, None, None]
        seen = (large[..., start:stop, start:stop].round().clamp(0, 255) / 255 - mean) / std
        with torch.no_grad():
            return bundle.network(seen).discriminative[0].double().numpy()

    asked = part(squares[0])
    similar = {}
    for place, name in enumerate(inside(pool.paths)):
        d = part(pool.gather(np.array([place]))[0])
        cosine = float(d @ asked / (np.linalg.norm(d) * np.linalg.norm(asked)))
        similar[name] = (cosine, bundle.classes[pool.labels[place]])
    assert [each.similarity for each in found] == sorted(
        (each.similarity for each in found), reverse=True
    )
    for each in found:
        cosine, label = similar[each.name]
        assert each.label == label
        assert each.similarity == pytest.approx(cosine, abs=0.02)
    # No other stored image is nearer.
    least = found[-1].similarity
    names = {each.name for each in stored.nearest(torch.from_numpy(asked)[None], 10_000)[0]}
    better = [n for n, (cosine, _) in similar.items() if n in names and cosine > least + 0.02]
    assert set(better) <= {each.name for each in found}


def test_one_image_is_a_list_of_one(exported, squares, tmp_path):
    bundle, path = load_bundle(exported, "cpu"), tmp_path / "one.png"
    Image.fromarray(squares[0]).save(path)
    assert bundle.neighbours(str(path), count=2) == bundle.neighbours([squares[0]], count=2)
    assert len(bundle.neighbours(squares[0])) == 1


def test_pictures_are_those_of_their_files(exported, pool):
    bundle = load_bundle(exported, "cpu")
    by_name = {name: place for place, name in enumerate(inside(pool.paths))}
    assert len(by_name) == len(pool)
    everything = pool.gather(np.arange(len(pool))).astype(float)
    square = pool.gather(np.array([7]))[0]
    for each in bundle.neighbours([square], count=3)[0]:
        picture = Image.open(io.BytesIO(each.picture))
        assert picture.format == "JPEG"
        distances = np.abs(everything - np.asarray(picture, float)).mean(axis=(1, 2, 3))
        assert distances.argmin() == by_name[each.name]
        assert each.label == bundle.classes[pool.labels[by_name[each.name]]]


def test_an_image_of_its_own_training_is_its_own_neighbour(trained_run, cache_dir, pool, tmp_path):
    bundle = load_bundle(
        export_run(trained_run.path, tmp_path / "all", neighbours=1000, cache_dir=cache_dir)
    )
    assert len(bundle.training_images) == len(pool)
    (first, *_), *_ = bundle.neighbours([pool.gather(np.array([3]))[0]], count=2)
    assert first.similarity == pytest.approx(1, abs=1e-3)
    assert first.name == inside(pool.paths)[3]


def test_predictions_do_not_change(exported, trained_run, squares):
    plain, whole = load_bundle(trained_run.best, "cpu"), load_bundle(exported, "cpu")
    assert not plain.has_neighbours
    assert plain.predict(squares[:3]) == whole.predict(squares[:3])


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/home/anna/b/gull/1.jpg", "/home/anna/b/tern/1.jpg"], ["gull/1.jpg", "tern/1.jpg"]),
        (["/home/anna/birds/1.jpg", "/home/anna/birds/12.jpg"], ["1.jpg", "12.jpg"]),
        (["/home/anna/1.jpg"], ["1.jpg"]),
        (["s3://a/x.tar#b/1", "typefaces/1"], ["s3://a/x.tar#b/1", "typefaces/1"]),
    ],
)
def test_the_folder_of_the_images_is_not_told(paths, names):
    assert inside(paths) == names


def test_what_is_wrong_is_said(exported, trained_run, tmp_path, squares):
    plain = load_bundle(trained_run.best, "cpu")
    with pytest.raises(BundleError, match="--with-neighbours"):
        plain.neighbours([squares[0]])
    with pytest.raises(ValueError, match="found 0, allowed a whole number from 1 on"):
        load_bundle(exported, "cpu").neighbours([squares[0]], count=0)
    with pytest.raises(UserError, match="--with-neighbours: found with another format"):
        Options(format="onnx").check(neighbours=5)
    with pytest.raises(UserError, match="--neighbours-per-class: found 0"):
        Options().check(neighbours=0)
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in exported.iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    with (changed / files.NEIGHBOURS).open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"x")
    with pytest.raises(BundleError, match="damaged or changed"):
        load_bundle(changed, "cpu").neighbours([squares[0]])
