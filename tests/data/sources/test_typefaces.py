from __future__ import annotations

import numpy as np

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import TypefacesSource
from gsfl_tune.data.sources.typefaces import FACES, render
from gsfl_tune.experiment.data_config import TypefacesConfig
from tests.data.conftest import configure

SMALL = {"train": 4, "test": 2, "size": 32}


def test_the_embedded_data_set(cache):
    dataset = prepare(configure("typefaces", typefaces=SMALL), cache_dir=cache)
    assert dataset.class_count == 21
    assert dataset.known_groups is not None
    assert len(dataset.known_groups) == 21
    assert sorted({*dataset.known_groups}) == [
        "Computer Modern",
        "DejaVu Sans",
        "DejaVu Sans Mono",
        "DejaVu Serif",
        "STIX",
    ]
    groups = dict(zip(dataset.classes, dataset.known_groups, strict=True))
    assert groups["STIX Bold Italic"] == "STIX"
    assert np.bincount(dataset.pool.labels).tolist() == [4] * 21
    assert np.bincount(dataset.test.labels).tolist() == [2] * 21
    assert np.bincount(dataset.pool.labels[dataset.validation_index]).tolist() == [1] * 21
    assert not dataset.broken
    assert dataset.pool.paths[0] == "typefaces/train/DejaVu Sans/0000"


def pixels(dataset):
    return dataset.pool.gather(np.arange(len(dataset.pool)))


def test_the_seed_alone_decides(tmp_path):
    def make(name, **values):
        config = configure("typefaces", typefaces={**SMALL, **values})
        return prepare(config, cache_dir=tmp_path / name, parts=("pool",))

    first, again, other = make("a"), make("b"), make("a", seed=1)
    np.testing.assert_array_equal(pixels(first), pixels(again))
    assert first.digest == again.digest != other.digest
    assert not np.array_equal(pixels(first), pixels(other))


def test_an_image_depends_neither_on_the_others_nor_on_how_many_there_are():
    def digests(**values):
        source = TypefacesSource(TypefacesConfig(**{**SMALL, **values}))
        return {
            sample.path: digest
            for sample, digest in zip(source.samples, source.known_digests(), strict=True)
        }

    few, many = digests(), digests(train=6, test=3)
    assert few.items() <= many.items()
    assert len(set(many.values())) == 21 * 9
    assert not few.items() & digests(seed=1).items()
    assert not few.items() & digests(size=33).items()


def test_every_face_renders_text_of_its_own():
    # The same words, place and colours in each face: only the strokes differ.
    images = [np.asarray(render(label, size=64, seed=[3])) for label in range(len(FACES))]
    for label, image in enumerate(images):
        assert image.shape == (64, 64, 3)
        assert image.std() > 10, f"{FACES[label][0]} shows no text"
    flat = np.stack(images).reshape(len(FACES), -1).astype(int)
    differences = np.abs(flat[:, None] - flat[None]).mean(-1)
    assert (differences[~np.eye(len(FACES), dtype=bool)] > 1).all()
