from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from gsfl_tune.data import load_square, prepare, square
from gsfl_tune.data.sources import create_source, detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, picture, save


def make_aircraft(root):
    data = root / "fgvc-aircraft-2013b" / "data"
    variants = ["707-320", "Boeing 717"]
    number = 1000
    for part in ("train", "val", "test"):
        lines = []
        for variant in variants:
            for _ in range(3):
                number += 1
                save(data / "images" / f"{number:07d}.jpg", number)
                lines.append(f"{number:07d} {variant}\n")
        (data / f"images_variant_{part}.txt").write_text("".join(lines))
    (data / "variants.txt").write_text("\n".join(variants) + "\n")


def make_flowers(root):
    base = root / "flowers-102"
    labels = np.tile(np.arange(1, 103), 4)
    ids = np.arange(1, len(labels) + 1).reshape(4, 102)
    for number in ids.reshape(-1):
        save(base / "jpg" / f"image_{number:05d}.jpg", int(number), (4, 4))
    savemat(base / "imagelabels.mat", {"labels": labels[None]})
    savemat(
        base / "setid.mat",
        {"trnid": ids[:2].reshape(1, -1), "valid": ids[2][None], "tstid": ids[3][None]},
    )


def make_pets(root):
    base = root / "oxford-iiit-pet"
    breeds = ["Abyssinian", "american_bulldog"]
    number = 0
    for part, count in (("trainval", 5), ("test", 3)):
        lines = []
        for label, breed in enumerate(breeds, start=1):
            for _ in range(count):
                number += 1
                save(base / "images" / f"{breed}_{number}.jpg", number)
                lines.append(f"{breed}_{number} {label} {label} 1\n")
        (base / "annotations").mkdir(exist_ok=True)
        (base / "annotations" / f"{part}.txt").write_text("".join(lines))


def make_cars(root):
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    lists = (
        ("cars_train", base / "devkit" / "cars_train_annos.mat", 8),
        ("cars_test", base / "cars_test_annos_withlabels.mat", 4),
    )
    number = 0
    for folder, file, count in lists:
        corners = [(f"bbox_{side}", "O") for side in ("x1", "y1", "x2", "y2")]
        rows = np.zeros(count, dtype=[*corners, ("class", "O"), ("fname", "O")])
        for index in range(count):
            number += 1
            save(base / folder / f"{number:05d}.jpg", number)
            rows[index] = (1, 3, 8, 12, index % 2 + 1, f"{number:05d}.jpg")
        savemat(file, {"annotations": rows})


MAKERS = {
    "aircraft": make_aircraft,
    "flowers102": make_flowers,
    "pets": make_pets,
    "cars": make_cars,
}


@pytest.mark.parametrize(
    ("source", "counts", "given_validation"),
    [
        ("aircraft", {"train": 6, "validation": 6, "test": 6}, True),
        ("flowers102", {"train": 204, "validation": 102, "test": 102}, True),
        ("pets", {"train": 8, "validation": 2, "test": 6}, False),
        ("cars", {"train": 6, "validation": 2, "test": 4}, False),
    ],
)
def test_existing_folders(tmp_path, cache, source, counts, given_validation):
    MAKERS[source](tmp_path)
    dataset = prepare(configure(source, tmp_path), cache_dir=cache)
    assert dataset.summary()["counts"] == counts
    assert dataset.given_validation is given_validation
    assert dataset.given_test
    inner = next(child for child in tmp_path.iterdir() if child != cache)
    again = prepare(configure(source, inner), cache_dir=cache)
    assert again.digest == dataset.digest


def test_the_boxes_of_cars(tmp_path, cache):
    """Two corners, whose pixels MATLAB counts from 1."""
    make_cars(tmp_path)
    config = configure("cars", tmp_path, crop="box", crop_margin=0.0)
    dataset = prepare(config, cache_dir=cache)
    with Image.open(dataset.pool.paths[0]) as image:
        expected = square(image.crop((0, 2, 8, 12)), dataset.pool.side)
    np.testing.assert_array_equal(dataset.pool.gather(np.array([0]))[0], expected)


@pytest.mark.parametrize("source", ["aircraft", "pets"])
def test_benchmarks_without_boxes(tmp_path, cache, source):
    MAKERS[source](tmp_path)
    with pytest.raises(UserError, match=r"data\.crop: found box, but .* has no boxes"):
        prepare(configure(source, tmp_path, crop="box"), cache_dir=cache)


def test_the_photographers_line_of_aircraft_is_cut(tmp_path, cache):
    make_aircraft(tmp_path)
    for file in (tmp_path / "fgvc-aircraft-2013b" / "data" / "images").iterdir():
        photograph = picture(int(file.stem), (60, 80))
        photograph.paste((255, 0, 255), (0, 60, 60, 80))
        photograph.save(file.with_suffix(".png"), "PNG")
        file.with_suffix(".png").rename(file)
    dataset = prepare(configure("aircraft", tmp_path), cache_dir=cache)
    assert set(map(tuple, dataset.pool.sizes.tolist())) == {(60, 60)}
    photograph = picture(int(Path(dataset.pool.paths[0]).stem), (60, 80)).crop((0, 0, 60, 60))
    expected = load_square(photograph, dataset.pool.side)[0]
    np.testing.assert_array_equal(dataset.pool.gather(np.array([0]))[0], expected)
    # Squares of before, with the line, are not taken out of the cache.
    assert dataset.reading.key != dataclasses.replace(dataset.reading, cut_bottom=0).key


@pytest.mark.parametrize("source", list(MAKERS))
def test_as_class_folders_they_are_refused(tmp_path, cache, source):
    MAKERS[source](tmp_path)
    (folder,) = tmp_path.iterdir()
    for root in (tmp_path, folder):
        with pytest.raises(UserError, match=rf"data\.source: {source}"):
            prepare(configure("folder", root), cache_dir=cache)


@pytest.mark.parametrize("source", list(MAKERS))
def test_auto_knows_them(tmp_path, cache, source):
    MAKERS[source](tmp_path)
    assert detect_source(str(tmp_path)) == source
    dataset = prepare(configure("auto", tmp_path), cache_dir=cache)
    assert dataset.digest == prepare(configure(source, tmp_path), cache_dir=cache).digest
    assert dataset.notices[0] == f"data.source: auto: {tmp_path} is read as {source}"


def torchvision_lists(source, root):
    """(path, class name, part) as torchvision reads them."""
    sets = torchvision.datasets
    if source == "aircraft":
        parts = {"train": "train", "val": "validation", "test": "test"}
        for split, part in parts.items():
            data = sets.FGVCAircraft(root, split=split)
            for path, label in zip(data._image_files, data._labels, strict=True):
                yield str(path), data.classes[label], part
    elif source == "flowers102":
        parts = {"train": "train", "val": "validation", "test": "test"}
        for split, part in parts.items():
            data = sets.Flowers102(root, split=split)
            for path, label in zip(data._image_files, data._labels, strict=True):
                yield str(path), data.classes[label], part
    elif source == "pets":
        for split, part in {"trainval": "train", "test": "test"}.items():
            data = sets.OxfordIIITPet(root, split=split)
            for path, label in zip(data._images, data._labels, strict=True):
                yield str(path), data.classes[label], part
    else:
        for split in ("train", "test"):
            data = sets.StanfordCars(root, split=split)
            for path, label in data._samples:
                yield str(path), data.classes[label], split


@pytest.mark.parametrize("source", list(MAKERS))
def test_the_lists_are_those_that_torchvision_reads(tmp_path, cache, monkeypatch, source):
    MAKERS[source](tmp_path)
    # Ours are not the official lists, whose checksums torchvision knows.
    monkeypatch.setattr(torchvision.datasets.flowers102, "check_integrity", lambda *_: True)
    listed = create_source(configure(source, tmp_path), cache)
    assert not listed.problems
    assert sorted(
        (sample.path, listed.classes[sample.label], sample.part) for sample in listed.samples
    ) == sorted(torchvision_lists(source, tmp_path))


@pytest.mark.parametrize("source", list(MAKERS))
def test_a_missing_folder_says_how_to_get_it(tmp_path, cache, source):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError) as error:
            create_source(configure(source, path), cache)
        text = str(error.value)
        assert str(tmp_path) in text
        if source == "cars":
            assert "official download of Stanford Cars is gone" in text
        else:
            assert "data.download: true" in text
            assert "https://" in text
    with pytest.raises(UserError, match=r"data\.path is missing"):
        create_source(configure(source), cache)


def test_cars_cannot_be_downloaded(tmp_path, cache):
    with pytest.raises(UserError, match="is gone"):
        create_source(configure("cars", tmp_path, download=True), cache)


def test_what_is_complete_is_not_downloaded(tmp_path, cache):
    make_pets(tmp_path)
    assert create_source(configure("pets", tmp_path, download=True), cache).classes == [
        "Abyssinian",
        "American Bulldog",
    ]


@pytest.mark.parametrize(
    ("source", "name"),
    [("aircraft", "FGVCAircraft"), ("flowers102", "Flowers102"), ("pets", "OxfordIIITPet")],
)
def test_torchvision_downloads_what_is_missing(tmp_path, cache, monkeypatch, source, name):
    """Only the network is left out: what torchvision would fetch appears, or it fails."""
    root = tmp_path / "new"

    def fail(_root, download):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(torchvision.datasets, name, fail)
    with pytest.raises(UserError, match=r"could not be downloaded .*no route to host"):
        create_source(configure(source, root, download=True), cache)

    def fetch(where, download):
        assert download
        MAKERS[source](root)
        assert where == str(root)

    # The reader of flowers takes the names from the class, under its module.
    monkeypatch.setattr(torchvision.datasets, name, fetch)
    if source == "flowers102":
        fetch.classes = torchvision.datasets.flowers102.Flowers102.classes
    assert len(create_source(configure(source, root, download=True), cache).samples) > 10


def test_labels_that_the_lists_do_not_know(tmp_path, cache):
    make_aircraft(tmp_path)
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    with (data / "images_variant_test.txt").open("a") as file:
        file.write("0001001 Concorde\n")
    make_cars(tmp_path)
    names = np.array(["one"], dtype=object)
    savemat(tmp_path / "stanford_cars" / "devkit" / "cars_meta.mat", {"class_names": names})
    with pytest.raises(UserError, match=r"variants\.txt does not have: Concorde"):
        prepare(configure("aircraft", tmp_path), cache_dir=cache)
    with pytest.raises(UserError, match="label 2 is outside the 1 classes"):
        prepare(configure("cars", tmp_path), cache_dir=cache)


def test_damaged_lists(tmp_path, cache):
    make_pets(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("nonsense\n")
    with pytest.raises(UserError, match=r"test\.txt:1: 'nonsense'"):
        create_source(configure("pets", tmp_path), cache)
    make_flowers(tmp_path)
    (tmp_path / "flowers-102" / "setid.mat").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"setid\.mat: cannot be read as a MATLAB file"):
        create_source(configure("flowers102", tmp_path), cache)
