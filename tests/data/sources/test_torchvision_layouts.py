"""Folders as torchvision's classes lay them out: read as torchvision reads them, or named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torchvision.datasets
from scipy.io import savemat

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import count_classes, create_source, detect_source
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, picture, save

PARTS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}


def make_dtd(root: Path) -> None:
    base, number = root / "dtd" / "dtd", 0
    (base / "labels").mkdir(parents=True)
    (base / "imdb").mkdir()
    (base / "imdb" / "imdb.mat").write_bytes(b"lists again")
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        for division in (1, 2):
            lines = []
            for texture in ("banded", "blotchy", "zigzagged"):
                for index in range(count):
                    number += division == 1
                    name = f"{texture}/{texture}_{part}{division}_{index:04d}.jpg"
                    if division == 1:
                        save(base / "images" / name, number)
                    lines.append(name)
            (base / "labels" / f"{part}{division}.txt").write_text("\n".join(lines) + "\n")
    (base / "labels" / "labels_joint_anno.txt").write_text("banded/x.jpg banded zigzagged\n")


def make_gtsrb(root: Path, training: str = "Training") -> None:
    base, number = root / "gtsrb", 0
    for sign in ("00000", "00001", "00002"):
        for track in range(5):
            for frame in range(3):
                number += 1
                file = base / "GTSRB" / training / sign / f"{track:05d}_{frame:05d}.ppm"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture(number).save(file)
        (file.parent / f"GT-{sign}.csv").write_text("Filename;Width;Height;ClassId\n")
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for index in range(6):
        name = f"{index:05d}.ppm"
        (base / "GTSRB" / "Final_Test" / "Images").mkdir(parents=True, exist_ok=True)
        picture(500 + index).save(base / "GTSRB" / "Final_Test" / "Images" / name)
        lines.append(f"{name};20;16;2;2;14;12;{index % 3}")
    (base / "GT-final_test.csv").write_text("\n".join(lines) + "\n")


MAKERS = {"dtd": make_dtd, "gtsrb": make_gtsrb}


def listed(source) -> list[tuple[str, str, str | None]]:
    return sorted((each.path, source.classes[each.label], each.part) for each in source.samples)


def theirs(dataset, part: str, samples: str = "_samples") -> list[tuple[str, int, str]]:
    return [(str(path), label, part) for path, label in getattr(dataset, samples)]


def test_dtd_is_read_as_torchvision_reads_it(tmp_path, cache):
    make_dtd(tmp_path)
    for folder in (tmp_path, tmp_path / "dtd", tmp_path / "dtd" / "dtd"):
        assert detect_source(str(folder)) == "dtd"
        source = create_source(configure("auto", folder), cache)
        expected = []
        for split in ("train", "val", "test"):
            data = torchvision.datasets.DTD(tmp_path, split)
            expected += [
                (str(path), data.classes[label], PARTS[split])
                for path, label in zip(data._image_files, data._labels, strict=True)
            ]
        assert listed(source) == sorted(expected)
    counts = prepare(configure("dtd", tmp_path), cache_dir=cache).summary()["counts"]
    assert counts == {"train": 12, "validation": 6, "test": 9}
    assert count_classes(configure("auto", tmp_path)) == 47
    with pytest.raises(UserError, match=r"the layout of DTD .*; set data\.source: dtd"):
        prepare(configure("folder", tmp_path / "dtd" / "dtd"), cache_dir=cache)
    (tmp_path / "dtd" / "dtd" / "labels" / "val1.txt").write_text("nonsense\n")
    with pytest.raises(UserError, match=r"val1\.txt:1: 'nonsense': expected CLASS/IMAGE"):
        create_source(configure("dtd", tmp_path), cache)
    (tmp_path / "dtd" / "dtd" / "labels" / "val1.txt").write_bytes(b"a/b.jpg\n\xe9t\xe9/c.jpg\n")
    with pytest.raises(UserError, match=r"val1\.txt:2: found bytes that are not UTF-8, allowed"):
        create_source(configure("dtd", tmp_path), cache)
    (tmp_path / "dtd" / "dtd" / "labels" / "val1.txt").unlink()
    with pytest.raises(UserError, match=r"has no labels/val1\.txt\. Set data\.download: true"):
        create_source(configure("dtd", tmp_path), cache)


@pytest.mark.parametrize("training", ["Training", "Final_Training/Images"])
def test_traffic_signs_are_read_as_torchvision_reads_them(tmp_path, cache, training):
    make_gtsrb(tmp_path, training)
    source = create_source(configure("auto", tmp_path), cache)
    assert source.notices[0].endswith("is read as gtsrb")
    assert source.left_out == {".csv": 3}
    if training == "Training":
        expected = [
            (path, f"{label:05d}", part)
            for part in ("train", "test")
            for path, label, _ in theirs(torchvision.datasets.GTSRB(tmp_path, part), part)
        ]
        assert listed(source) == sorted(expected)
    assert detect_source(str(tmp_path / "gtsrb")) == "gtsrb"
    assert count_classes(configure("auto", tmp_path)) == 43
    # The frames of one sign are never divided.
    dataset = prepare(configure("gtsrb", tmp_path), cache_dir=cache)
    assert dataset.summary()["counts"] == {"train": 36, "validation": 9, "test": 6}
    held = {dataset.pool.paths[i].rpartition("_")[0] for i in dataset.validation_index}
    trained = {dataset.pool.paths[i].rpartition("_")[0] for i in dataset.train_index}
    assert (len(held), held & trained) == (3, set())
    assert any("images of one group are held out together" in line for line in dataset.notices)


def test_lists_of_traffic_signs_that_do_not_fit(tmp_path, cache):
    make_gtsrb(tmp_path)
    file = tmp_path / "gtsrb" / "GT-final_test.csv"
    file.write_text(file.read_text() + "00000.ppm;20;16;2;2;14;12;7\n")
    with pytest.raises(UserError, match=r"classes that .*Training does not have: 00007"):
        prepare(configure("gtsrb", tmp_path), cache_dir=cache)
    file.write_text("Filename,ClassId\n")
    file.write_text("Filename,ClassId\n00000.ppm,1\n")
    with pytest.raises(UserError, match="expected the columns Filename and ClassId, separated by"):
        create_source(configure("gtsrb", tmp_path), cache)
    file.unlink()
    with pytest.raises(UserError, match=r"has no GT-final_test\.csv"):
        create_source(configure("gtsrb", tmp_path), cache)


@pytest.mark.parametrize("source", ["dtd", "gtsrb"])
def test_torchvision_downloads_them(tmp_path, cache, monkeypatch, source):
    """Only the network is left out: what torchvision would fetch appears, archive by archive."""
    fetched = []

    def fetch(url, download_root, md5):
        fetched.append(url.rpartition("/")[2])
        if source == "dtd" or "Final_Test_GT" in url:
            MAKERS[source](tmp_path / "new")
        elif "Training" in url:
            (tmp_path / "new" / "gtsrb" / "GTSRB" / "Training" / "00000").mkdir(parents=True)
            picture(1).save(tmp_path / "new/gtsrb/GTSRB/Training/00000/00000_00000.ppm")

    module = getattr(torchvision.datasets, source)
    monkeypatch.setattr(module, "download_and_extract_archive", fetch)
    text = f"name: x\ndata: {{source: {source}, path: {tmp_path / 'new'}, download: true}}\n"
    config = Experiment.parse(text, file="x.yaml").defaults().data
    assert create_source(config, cache).samples
    assert fetched[-1] == {"dtd": "dtd-r1.0.1.tar.gz", "gtsrb": "GTSRB_Final_Test_GT.zip"}[source]


def test_the_first_form_of_cars(tmp_path, cache):
    import numpy as np

    base = tmp_path / "stanford_cars"
    kinds = [("relative_im_path", "O"), *((f"bbox_{c}", "O") for c in ("x1", "y1", "x2", "y2"))]
    rows = np.zeros(12, dtype=[*kinds, ("class", "O"), ("test", "O")])
    for index in range(12):
        name = f"car_ims/{index + 1:06d}.jpg"
        save(base / name, index)
        rows[index] = (name, 1, 3, 8, 12, index % 2 + 1, int(index >= 8))
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    savemat(base / "cars_annos.mat", {"annotations": rows, "class_names": names})
    dataset = prepare(configure("auto", tmp_path), cache_dir=cache)
    assert dataset.classes == list(names)
    assert dataset.summary()["counts"] == {"train": 6, "validation": 2, "test": 4}
    source = create_source(configure("cars", base, crop="box"), cache)
    assert {sample.box for sample in source.samples} == {(0.0, 2.0, 8.0, 12.0)}


@pytest.mark.parametrize(
    ("name", "folder", "parts"),
    [
        ("Country211", "country211", ("train", "valid", "test")),
        ("RenderedSST2", "rendered-sst2", ("train", "val", "test")),
        ("Imagenette", "imagenette2", ("train", "val")),
        ("EuroSAT", "eurosat/2750", ("",)),
        ("Caltech256", "caltech256/256_ObjectCategories", ("",)),
        ("ImageFolder", "imagenet", ("train", "val")),
    ],
)
def test_class_folders_of_torchvision_are_read_as_they_are(tmp_path, cache, name, folder, parts):
    classes = {
        "RenderedSST2": ("negative", "positive"),
        "Imagenette": ("n01440764", "n02102040"),
        "Caltech256": ("001.ak47", "257.clutter"),
        "EuroSAT": ("AnnualCrop", "SeaLake"),
    }.get(name, ("AD", "ZW"))
    suffix = {"RenderedSST2": "png", "Imagenette": "JPEG", "EuroSAT": "jpg"}.get(name, "jpg")
    for number, part in enumerate(parts):
        inside = part.replace("val", "valid") if name == "RenderedSST2" else part
        for label, kind in enumerate(classes):
            for index in range(1, 6):
                file = f"001_{index:04d}" if label == 0 else f"257_{index:04d}"
                place = tmp_path / folder / inside / kind / f"{file}.{suffix}"
                save(place, 100 * number + 10 * label + index)
    dataset = prepare(configure("auto", tmp_path / folder), cache_dir=cache)
    assert dataset.classes == sorted(classes)
    assert dataset.given_test == ("test" in parts)
    source = create_source(configure("auto", tmp_path / folder), cache)
    for part in parts:
        if name == "ImageFolder":
            data = torchvision.datasets.ImageFolder(str(tmp_path / folder / part))
        elif name in ("EuroSAT", "Caltech256"):
            data = getattr(torchvision.datasets, name)(str(tmp_path))
        else:
            data = getattr(torchvision.datasets, name)(tmp_path, split=part)
        labels = data.y if name == "Caltech256" else [label for _, label in _samples(data)]
        ours = [each.label for each in source.samples if each.part == PARTS.get(part)]
        assert sorted(ours) == sorted(labels)


def _samples(data) -> list[tuple[str, int]]:
    return data.samples if hasattr(data, "samples") else data._samples


def test_caltech_101_without_its_clutter(tmp_path, cache):
    root = tmp_path / "caltech101"
    fill(root / "101_ObjectCategories", {"BACKGROUND_Google": 5, "ant": 5, "bass": 5})
    (root / "Annotations" / "ant").mkdir(parents=True)
    (root / "Annotations" / "ant" / "annotation_0001.mat").write_bytes(b"outline")
    for source in ("auto", "folder"):
        with pytest.raises(UserError, match=r"Caltech-101; set data\.path: .*/101_Obj.*, and move"):
            prepare(configure(source, root), cache_dir=cache)
    inner = root / "101_ObjectCategories"
    dataset = prepare(configure("auto", inner), cache_dir=cache)
    assert any("BACKGROUND_Google is taken for a class" in line for line in dataset.notices)
    (inner / "BACKGROUND_Google").rename(tmp_path / "clutter")
    ours = prepare(configure("auto", inner), cache_dir=cache)
    (inner / "BACKGROUND_Google").mkdir()
    assert ours.classes == torchvision.datasets.Caltech101(str(tmp_path)).categories
    assert not any("BACKGROUND" in line for line in ours.notices)


def test_scenes_below_letters(tmp_path, cache):
    scenes = ("a/abbey", "a/apartment_building/outdoor", "b/badlands")
    for number, scene in enumerate(scenes):
        for index in range(5):
            save(tmp_path / "SUN397" / scene / f"sun_{index}.jpg", 10 * number + index)
    lines = "".join(f"/{scene}\n" for scene in scenes)
    (tmp_path / "SUN397" / "ClassName.txt").write_text(lines)
    told = r"SUN397; set data\.path: .*/SUN397, data\.source: folder and data\.classes: path"
    for path in (tmp_path, tmp_path / "SUN397"):
        with pytest.raises(UserError, match=told):
            detect_source(str(path))
    with pytest.raises(UserError, match=told):
        prepare(configure("folder", tmp_path / "SUN397"), cache_dir=cache)
    source = create_source(configure("folder", tmp_path / "SUN397", classes="path"), cache)
    data = torchvision.datasets.SUN397(tmp_path)
    expected = [
        (str(path), data.classes[label])
        for path, label in zip(data._image_files, data._labels, strict=True)
    ]
    # Their names are without the letter.
    assert [(path, name[2:]) for path, name, _ in listed(source)] == sorted(expected)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["caltech256/256_ObjectCategories/001.ak47/1.jpg"], "data.path: {}/caltech256/256_Object"),
        (["eurosat/2750/AnnualCrop/1.jpg"], "set data.path: {}/eurosat/2750"),
        (
            ["categories_places365.txt", "data_256_standard/a/airfield/1.jpg", "val_256/1.jpg"],
            "Places365; set data.path: {}/data_256_standard",
        ),
        (
            [
                "omniglot-py/images_background/Greek/character01/1.png",
                "omniglot-py/images.zip",
            ],
            "Omniglot; set data.path: {}/omniglot-py/images_background, data.source: folder",
        ),
        (
            ["lfw-py/lfw-names.txt", "lfw-py/lfw_funneled/Ann/1.jpg", "lfw-py/lfw/Ann/1.jpg"],
            "such as {}/lfw-py/lfw_funneled",
        ),
        (["celeba/list_attr_celeba.txt", "celeba/img_align_celeba/1.jpg"], "forty attributes"),
        (
            [
                "VOCdevkit/VOC2012/JPEGImages/1.jpg",
                "VOCdevkit/VOC2012/Annotations/1.xml",
                "VOCdevkit/VOC2012/ImageSets/Main/train.txt",
                "VOCdevkit/VOC2012/SegmentationClass/1.png",
            ],
            "Pascal VOC; its images hold several objects",
        ),
        (["cifar-10-batches-py/data_batch_1"], "CIFAR-10; its images are numbers"),
        (["cifar-100-python/train"], "CIFAR-100; its images are numbers"),
        (["MNIST/raw/train-images-idx3-ubyte.gz"], "MNIST; its images are numbers"),
        (["QMNIST/raw/qmnist-train-images-idx3-ubyte"], "QMNIST; its images are numbers"),
        (["QMNIST/raw/xnist-images-idx3-ubyte"], "QMNIST; its images are numbers"),
        (["EMNIST/raw/emnist-letters-train-images-idx3-ubyte"], "EMNIST; its images are numbers"),
        (["train_32x32.mat", "test_32x32.mat"], "SVHN; its images are numbers"),
        (["stl10_binary/train_X.bin"], "STL-10; its images are numbers"),
        (
            ["pcam/camelyonpatch_level_2_split_train_x.h5"],
            "PCAM; its images are numbers in few files; a copy in Parquet is read",
        ),
        (["fer2013/fer2013.csv"], "FER2013; its images are numbers"),
        (["fer2013/icml_face_data.csv"], "FER2013; its images are numbers"),
        (["fer2013/train.csv", "fer2013/test.csv"], "FER2013; its images are numbers"),
        (["semeion.data"], "SEMEION; its images are numbers"),
        (["usps.bz2", "usps.t.bz2"], "USPS; its images are numbers"),
        (
            ["tower_train_lmdb/data.mdb", "test_lmdb/data.mdb"],
            "LSUN; its images are in LMDB databases: write them into a folder for each class",
        ),
        (
            ["2017/Fungi/Amanita muscaria/1.jpg", "2017/Plantae/Abies alba/1.jpg"],
            "iNaturalist 2017; set data.path: {}/2017, data.source: folder and data.classes: leaf",
        ),
        (
            ["train_val2018/Fungi/0/1.jpg", "train_val2018/Plantae/1/1.jpg"],
            "iNaturalist 2018; set data.path: {}/train_val2018, data.source: folder",
        ),
        (
            ["2019/Fungi/0/1.jpg", "2019/Plants/1/1.jpg", "2018/Fungi/0/1.jpg"],
            "iNaturalist 2019; set data.path: {}/2019, data.source: folder",
        ),
    ],
)
def test_layouts_that_are_named_with_what_to_do(tmp_path, cache, files, told):
    for number, name in enumerate(files):
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".jpg", ".png"):
            save(file, number)
        else:
            file.write_bytes(b"something")
    for source in ("auto", "folder"):
        with pytest.raises(UserError) as error:
            prepare(configure(source, tmp_path / "root"), cache_dir=cache)
        assert told.format(tmp_path / "root") in str(error.value)


@pytest.mark.parametrize("version", ["2017", "2018", "2019"])
def test_inaturalist_of_earlier_years_is_read_as_torchvision_reads_it(tmp_path, cache, version):
    """With what the refusal of the folder around it says."""
    plants = "Plants" if version == "2019" else "Plantae"
    species = {"Fungi": ["0", "2"], plants: ["1", "3"]}
    if version == "2017":  # which has names
        species = {"Fungi": ["Amanita muscaria", "Boletus edulis"], plants: ["Abies alba", "Acer"]}
    names = [f"{version}/{top}/{each}" for top, all_of in species.items() for each in all_of]
    fill(tmp_path, dict.fromkeys(names, 3))
    with pytest.raises(UserError, match=f"iNaturalist {version}; set data.path: .*/{version}, "):
        detect_source(str(tmp_path))
    source = create_source(configure("folder", tmp_path / version, classes="leaf"), cache)
    data = torchvision.datasets.INaturalist(tmp_path, version)
    expected = []
    for label, name in data.index:
        top, leaf = data.all_categories[label].split("/")
        expected.append((str(tmp_path / version / top / leaf / name), leaf, top))
    groups = dict(zip(source.classes, source.known_groups, strict=True))
    found = [(path, leaf, groups[leaf]) for path, leaf, _ in listed(source)]
    assert sorted(found) == sorted(expected)
    # The groups are classes by default, which is said.
    source = create_source(configure("auto", tmp_path / version), cache)
    assert source.classes == ["Fungi", plants]
    assert any(
        line.startswith("the layout of iNaturalist 2017 to 2019: 2 classes, the uppermost")
        for line in source.notices
    )


def test_a_list_beside_the_folder_is_read(tmp_path, cache):
    """The lists of the competition have parts and names, which folders lack."""
    files = ["2018/Fungi/0/a.jpg", "2018/Fungi/0/b.jpg", "2018/Plantae/1/c.jpg"]
    for number, name in enumerate(files):
        save(tmp_path / name, number)
    images = [{"id": n, "file_name": name} for n, name in enumerate(files)]
    labels = [{"id": n, "image_id": n, "category_id": int(n > 1)} for n in range(3)]
    names = [{"id": 0, "name": "mushroom"}, {"id": 1, "name": "tree"}]
    content = {"images": images, "annotations": labels, "categories": names}
    (tmp_path / "train2018.json").write_text(json.dumps(content))
    assert detect_source(str(tmp_path)) == "coco"
    source = create_source(configure("auto", tmp_path), cache)
    assert [(name, part) for _, name, part in listed(source)] == [
        ("mushroom", "train"),
        ("mushroom", "train"),
        ("tree", "train"),
    ]


def test_one_folder_around_the_class_folders_is_pointed_out(tmp_path, cache):
    fill(tmp_path / "root", {"photographs/a": 3, "photographs/b": 3})
    with pytest.raises(
        UserError, match=r"its only folder of images, photographs/, holds 2 folders"
    ):
        prepare(configure("auto", tmp_path / "root"), cache_dir=cache)
