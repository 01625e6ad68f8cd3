"""Stanford Dogs, Food-101 and iNaturalist, in small, compared with what torchvision reads."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torchvision.datasets
from scipy.io import savemat

from gsfl_tune.data import prepare
from gsfl_tune.data.labelled_images import open_for_evaluation
from gsfl_tune.data.sources import count_classes, create_source, detect_source
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, save

BREEDS = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel")
DISHES = ("apple_pie", "baby_back_ribs")
SPECIES = (
    "00000_Animalia_Arthropoda_Insecta_Coleoptera_Cleridae_Trichodes_apiarius",
    "00001_Animalia_Arthropoda_Insecta_Coleoptera_Cleridae_Trichodes_alvearius",
    "00002_Plantae_Tracheophyta_Magnoliopsida_Asterales_Asteraceae_Bellis_perennis",
)


def make_dogs(root, *, lists="lists"):
    base = root / "stanford_dogs"
    (base / lists).mkdir(parents=True)
    number = 0
    for name, count in (("train", 6), ("test", 3)):
        files = []
        for breed in BREEDS:
            for _ in range(count):
                number += 1
                file = f"{breed}/{breed[:9]}_{number}.jpg"
                save(base / "Images" / file, number)
                files.append(file)
        labels = np.repeat([[1], [2]], count, axis=0)
        cells = np.array([[file] for file in files], dtype=object)
        # The official files have three variables, each a column.
        savemat(
            base / lists / f"{name}_list.mat",
            {"file_list": cells, "annotation_list": cells, "labels": labels.astype(np.uint8)},
        )


def make_food(root):
    base = root / "food-101"
    (base / "meta").mkdir(parents=True)
    number = 1000
    for part, count in (("train", 6), ("test", 3)):
        listed = {}
        for dish in DISHES:
            listed[dish] = []
            for _ in range(count):
                number += 1
                save(base / "images" / dish / f"{number}.jpg", number)
                listed[dish].append(f"{dish}/{number}")
        lines = [line for dish in DISHES for line in listed[dish]]
        (base / "meta" / f"{part}.txt").write_text("\n".join(lines) + "\n")
        (base / "meta" / f"{part}.json").write_text(json.dumps(listed))
    (base / "meta" / "classes.txt").write_text("\n".join(DISHES) + "\n")


def make_inaturalist(root, parts=("2021_train", "2021_valid")):
    number = 2000
    for part, count in zip(parts, (6, 3), strict=False):
        for species in SPECIES:
            for _ in range(count):
                number += 1
                save(root / part / species / f"{number}.jpg", number)


MAKERS = {"dogs": make_dogs, "food101": make_food, "inaturalist": make_inaturalist}
CLASSES = {
    "dogs": ["Chihuahua", "Japanese spaniel"],
    "food101": ["apple pie", "baby back ribs"],
    "inaturalist": ["Trichodes apiarius", "Trichodes alvearius", "Bellis perennis"],
}
COUNTS = {
    "dogs": {"train": 10, "validation": 2, "test": 6},
    "food101": {"train": 10, "validation": 2, "test": 6},
    "inaturalist": {"train": 15, "validation": 9, "test": 3},
}


@pytest.mark.parametrize("source", list(MAKERS))
def test_existing_folders(tmp_path, cache, source):
    root = tmp_path / "sets"
    MAKERS[source](root)
    dataset = prepare(configure(source, root), cache_dir=cache)
    assert dataset.classes == CLASSES[source]
    assert dataset.summary()["counts"] == COUNTS[source]
    assert detect_source(str(root)) == source
    auto = prepare(configure("auto", root), cache_dir=cache)
    assert auto.digest == dataset.digest
    assert auto.notices[0] == f"data.source: auto: {root} is read as {source}"
    with pytest.raises(UserError, match=rf"set data\.source: {source}"):
        prepare(configure("folder", root), cache_dir=cache)


@pytest.mark.parametrize(("source", "count"), [("dogs", 120), ("food101", 101), ("inaturalist", 3)])
def test_how_many_classes(tmp_path, source, count):
    MAKERS[source](tmp_path)
    assert count_classes(configure("auto", tmp_path)) == count


@pytest.mark.parametrize("source", list(MAKERS))
def test_an_evaluation_takes_them(tmp_path, cache, source):
    root = tmp_path / "sets"
    MAKERS[source](root)
    found = open_for_evaluation(root, 16, "crop", cache)
    assert found.classes == CLASSES[source]
    part, count = ("all", 27) if source == "inaturalist" else ("test", 6)
    assert (found.part, len(found.images)) == (part, count)


def test_food_is_listed_as_torchvision_reads_it(tmp_path, cache):
    make_food(tmp_path)
    listed = create_source(configure("food101", tmp_path), cache)
    theirs = []
    for split in ("train", "test"):
        data = torchvision.datasets.Food101(tmp_path, split=split)
        theirs += [
            (str(path), data.classes[label].replace("_", " "), split)
            for path, label in zip(data._image_files, data._labels, strict=True)
        ]
    assert sorted(theirs) == sorted(
        (each.path, listed.classes[each.label], each.part) for each in listed.samples
    )


def test_inaturalist_is_listed_as_torchvision_reads_it(tmp_path, cache):
    make_inaturalist(tmp_path)
    listed = create_source(configure("inaturalist", tmp_path), cache)
    assert listed.known_groups == ["Cleridae", "Cleridae", "Asteraceae"]
    theirs = []
    for version, part in (("2021_train", "train"), ("2021_valid", "validation")):
        data = torchvision.datasets.INaturalist(tmp_path, version, ["full", "family"])
        for (label, name), (_, family) in zip(
            data.index, [(0, data.categories_map[i]["family"]) for i, _ in data.index], strict=True
        ):
            path = tmp_path / version / data.all_categories[label] / name
            theirs.append((str(path), label, data.category_name("family", family), part))
    assert sorted(theirs) == sorted(
        (each.path, each.label, listed.known_groups[each.label], each.part)
        for each in listed.samples
    )


def test_inaturalist_in_other_folders(tmp_path, cache):
    # As the archives unpack; and the small training part beside the whole one.
    make_inaturalist(tmp_path / "own", ("train", "val"))
    dataset = prepare(configure("auto", tmp_path / "own"), cache_dir=cache)
    assert dataset.given_validation
    make_inaturalist(tmp_path / "own", ("train_mini",))
    (tmp_path / "own" / "public_test").mkdir()
    source = create_source(configure("auto", tmp_path / "own"), cache)
    assert len(source.samples) == 27
    told = " ".join(source.told())
    assert "train_mini: left out, a part of train/" in told
    assert "folders of no part that has labels: public_test" in told
    # One part by itself has no split.
    alone = prepare(configure("auto", tmp_path / "own" / "train"), cache_dir=cache)
    assert not alone.given_validation
    assert alone.classes == CLASSES["inaturalist"]
    # What validation has more than training is refused, and no problem where nothing is trained.
    more = SPECIES[2].replace("00002", "00003").replace("perennis", "annua")
    save(tmp_path / "own" / "val" / more / "1.jpg", 9000)
    with pytest.raises(UserError, match=r"species without training images: 00003_"):
        prepare(configure("inaturalist", tmp_path / "own"), cache_dir=cache)
    assert len(open_for_evaluation(tmp_path / "own", 16, "crop", cache).classes) == 4


def test_species_of_one_name_are_told_apart(tmp_path, cache):
    twin = "00003_Plantae_Tracheophyta_Magnoliopsida_Asterales_Campanulaceae_Bellis_perennis"
    make_inaturalist(tmp_path)
    for number in range(6):
        save(tmp_path / "2021_train" / twin / f"{number}.jpg", 5000 + number)
    (tmp_path / "2021_train" / "strange").mkdir()
    source = create_source(configure("inaturalist", tmp_path), cache)
    assert source.classes[2:] == ["Bellis perennis (Asteraceae)", "Bellis perennis (Campanulaceae)"]
    assert "folders that are not species" in source.problems[0]
    assert source.problems[0].endswith("strange")


def test_dogs_with_lists_in_the_root(tmp_path, cache):
    make_dogs(tmp_path, lists=".")
    assert detect_source(str(tmp_path / "stanford_dogs")) == "dogs"
    dataset = prepare(configure("dogs", tmp_path / "stanford_dogs"), cache_dir=cache)
    assert dataset.summary()["counts"] == COUNTS["dogs"]


def test_lists_that_do_not_fit(tmp_path, cache):
    make_dogs(tmp_path)
    file = tmp_path / "stanford_dogs" / "lists" / "test_list.mat"
    files = np.array([[f"{BREEDS[0]}/x.jpg"], [f"{BREEDS[1]}/y.jpg"]], dtype=object)
    savemat(file, {"file_list": files, "labels": np.array([[2], [1]])})
    with pytest.raises(UserError, match="2 images have the label of another folder"):
        prepare(configure("dogs", tmp_path), cache_dir=cache)
    file.write_bytes(b"junk")
    with pytest.raises(UserError, match=r"test_list\.mat: cannot be read as a MATLAB file"):
        create_source(configure("dogs", tmp_path), cache)
    file.unlink()
    with pytest.raises(UserError, match=r"has no lists/test_list\.mat.*Unpack images\.tar"):
        create_source(configure("dogs", tmp_path), cache)
    make_food(tmp_path)
    train = tmp_path / "food-101" / "meta" / "train.txt"
    train.write_text(train.read_text() + "waffles/1\n")
    with pytest.raises(UserError, match=r"train\.txt: classes that classes\.txt does not have: wa"):
        prepare(configure("food101", tmp_path), cache_dir=cache)
    train.write_text("nonsense\n")
    with pytest.raises(UserError, match=r"train\.txt:1: 'nonsense': expected CLASS/IMAGE"):
        create_source(configure("food101", tmp_path), cache)


@pytest.mark.parametrize("source", list(MAKERS))
def test_a_missing_folder_says_what_is_expected(tmp_path, cache, source):
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        create_source(configure(source, tmp_path), cache)
    word = {"dogs": "ImageNetDogs", "food101": "data.download: true", "inaturalist": "2021_train"}
    assert word[source] in str(error.value)


def test_food_is_downloaded_by_torchvision(tmp_path, cache, monkeypatch):
    """Only the network is left out: what torchvision would fetch appears."""

    def fetch(url, download_root, md5):
        assert url.endswith("food-101.tar.gz")
        make_food(tmp_path / "new")

    monkeypatch.setattr(torchvision.datasets.food101, "download_and_extract_archive", fetch)
    config = configure("food101", tmp_path / "new", download=True)
    assert len(create_source(config, cache).samples) == 18


@pytest.mark.parametrize("source", ["inaturalist", "nabirds"])
def test_known_groups_can_be_the_taxonomy(tmp_path, source):
    text = f"name: x\ndata: {{source: {source}, path: {tmp_path}}}\n"
    method = "model: {groups: {method: taxonomy}}\n"
    Experiment.parse(text + method, file="x.yaml")
    with pytest.raises(UserError, match=r"a source that knows groups .*nabirds, inaturalist"):
        Experiment.parse(text.replace(source, "folder") + method, file="x.yaml")
