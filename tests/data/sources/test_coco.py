"""COCO's JSON as COCO itself, iNaturalist, FGVC competitions, Roboflow and Label Studio have it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.data import prepare, square
from gsfl_tune.data.sources import CocoSource, count_classes, create_source, detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, save

LABEL_STUDIO = Path(__file__).parent / "label_studio"


def write(path: Path, **lists) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {"year": 2021}, **lists}))
    return path


def labels(source):
    """(file below the root, class, part) of every sample."""
    return [
        ("/".join(Path(each.path).parts[-2:]), source.classes[each.label], each.part)
        for each in source.samples
    ]


TAXA = [
    ("Insects", "Animalia", "Arthropoda", "Danaus", "plexippus"),
    ("Insects", "Animalia", "Arthropoda", "Danaus", "gilippus"),
    ("Plants", "Plantae", "Tracheophyta", "Quercus", "robur"),
]


def inaturalist(root: Path) -> Path:
    """As iNaturalist 2021: names of all ranks, a train and a val file beside the folders."""
    categories = []
    for number, (group, kingdom, phylum, genus, epithet) in enumerate(TAXA):
        name = f"{genus} {epithet}"
        categories.append(
            {
                "id": number,
                "kingdom": kingdom,
                "phylum": phylum,
                "genus": genus,
                "specific_epithet": epithet,
                "name": name,
                "common_name": "",
                "supercategory": group,
                "image_dir_name": f"{number:05d}_{kingdom}_{phylum}_{genus}_{epithet}",
            }
        )
    number = 0
    for part, each in (("train", 4), ("val", 2)):
        images, annotations = [], []
        for category in categories:
            for _ in range(each):
                name = f"{part}/{category['image_dir_name']}/{number:08x}.jpg"
                save(root / name, number)
                images.append(
                    {"id": number, "width": 20, "height": 16, "file_name": name, "license": 0}
                )
                annotations.append(
                    {"id": number, "image_id": number, "category_id": category["id"]}
                )
                number += 1
        write(root / f"{part}.json", images=images, annotations=annotations, categories=categories)
    return root


def test_inaturalist(tmp_path, cache):
    root = inaturalist(tmp_path / "inat")
    dataset = prepare(configure("coco", root), cache_dir=cache)
    assert dataset.classes == ["Danaus plexippus", "Danaus gilippus", "Quercus robur"]
    assert dataset.known_groups == ["Insects", "Insects", "Plants"]
    assert dataset.given_validation
    counts = dataset.summary()["class_counts"]
    assert counts["Quercus robur"] == {"train": 3, "validation": 2, "test": 1}
    for path, label in zip(dataset.pool.paths, dataset.pool.labels, strict=True):
        assert dataset.classes[label].split()[1] in path
    assert count_classes(configure("coco", root)) == 3
    # The folders are classes too: both readings hold.
    with pytest.raises(UserError, match=r"several ways: coco \(train\.json\), folder .*data\.sour"):
        detect_source(str(root))
    assert detect_source(str(root / "train.json")) == "coco"


def test_two_files_of_one_part_are_not_joined(tmp_path):
    root = inaturalist(tmp_path / "inat")
    shutil.copy(root / "train.json", root / "train_mini.json")
    with pytest.raises(UserError, match=r"several JSON files for the train part, .*train_mini\."):
        CocoSource(str(root))
    source = CocoSource([str(root / "train_mini.json"), str(root / "val.json")])
    assert len(source.samples) == 18


def test_a_competition(tmp_path, cache):
    """Ids as text, no names of categories, a test file without annotations."""
    root = tmp_path / "fgvc"
    images, annotations = [], []
    for number in range(8):
        save(root / "train_images" / f"{number}.jpg", number)
        images.append({"id": f"i{number}", "file_name": f"{number}.jpg"})
        annotations.append({"id": number, "image_id": f"i{number}", "category_id": number % 2})
    categories = [{"id": 0}, {"id": 1}]
    write(root / "train2019.json", images=images, annotations=annotations, categories=categories)
    save(root / "test_images" / "0.jpg", 99)
    write(root / "test2019.json", images=[{"id": "t", "file_name": "0.jpg"}], categories=categories)
    assert detect_source(str(root)) == "coco"
    source = create_source(configure("auto", root), cache)
    assert source.classes == ["0", "1"]
    assert source.known_groups is None
    assert [path for path, _, _ in labels(source)] == [f"train_images/{n}.jpg" for n in range(8)]
    assert source.left_out == {"without a label (test part)": 1}
    assert any("test2019.json has no annotations" in notice for notice in source.notices)
    assert source.told()[-1] == "left out: 1 image: without a label (test part) 1"


def coco(root: Path, annotations: list[dict], images: int = 4, part: str = "train") -> Path:
    """As COCO 2017: `annotations/instances_train2017.json` beside `train2017/`."""
    for number in range(images):
        save(root / f"{part}2017" / f"{number:012d}.jpg", number, (40, 20))
    return write(
        root / "annotations" / f"instances_{part}2017.json",
        images=[
            {"id": n, "file_name": f"{n:012d}.jpg", "width": 40, "height": 20}
            for n in range(images)
        ],
        annotations=[{"id": 100 + n, **each} for n, each in enumerate(annotations)],
        categories=[
            {"id": 7, "name": "cat", "supercategory": "animal"},
            {"id": 9, "name": "car", "supercategory": "vehicle"},
            {"id": 11, "name": "hat", "supercategory": "clothes"},
        ],
    )


def at(image: int, category: int, box: list, crowd: int = 0) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd}


def test_every_box_is_a_sample(tmp_path, cache):
    path = coco(
        tmp_path / "coco",
        [
            at(0, 7, [0, 0, 10.5, 20]),
            at(1, 9, [5, 5, 0, 9]),
            at(0, 9, [0, 0, 40, 20], crowd=1),
            at(0, 9, [20, 0, 20, 20]),
            at(1, 7, []),
            at(1, 9, [1.0, 2.0, 3.0, 4.0]),
        ],
    )
    source = create_source(configure("auto", path, crop="box"), cache)
    assert [
        (Path(each.path).name, source.classes[each.label], each.box) for each in source.samples
    ] == [
        ("000000000000.jpg#100", "cat", (0, 0, 10.5, 20)),
        ("000000000000.jpg#103", "car", (20, 0, 40, 20)),
        ("000000000001.jpg#105", "car", (1, 2, 4, 6)),
    ]
    assert source.left_out == {
        "of a crowd": 1,
        "with a box of less than a pixel": 1,
        "without a box": 1,
    }
    assert "2 images have no annotation and are not used" in source.notices
    assert source.known_groups == ["animal", "vehicle"]
    assert any("1 of 3 classes have no images" in notice for notice in source.notices)


def test_whole_images_need_one_category(tmp_path, cache):
    path = coco(
        tmp_path / "coco",
        [
            at(0, 7, [0, 0, 10, 20]),
            at(0, 7, [20, 0, 20, 20]),
            at(1, 7, [0, 0, 10, 20]),
            at(1, 9, [20, 0, 20, 20]),
            at(2, 9, [1, 2, 3, 4]),
        ],
    )
    source = create_source(configure("coco", path), cache)
    assert labels(source) == [
        ("train2017/000000000000.jpg", "cat", "train"),
        ("train2017/000000000002.jpg", "car", "train"),
    ]
    assert [each.box for each in source.samples] == [None, (1, 2, 4, 6)]
    assert source.left_out == {"of several categories": 1, "without a label (train part)": 1}


def test_the_crops_of_coco(tmp_path, cache):
    boxes = [at(n, 7 + 2 * (n % 2), [4 + n, 2, 10, 8]) for n in range(12)]
    path = coco(tmp_path / "coco", boxes, 12)
    dataset = prepare(configure("coco", path, crop="box", crop_margin=0.0), cache_dir=cache)
    for place, name in enumerate(dataset.pool.paths):
        file, number = name.split("#")
        left = 4 + int(number) - 100
        expected = square(Image.open(file).crop((left, 2, left + 10, 10)), dataset.pool.side)
        np.testing.assert_array_equal(dataset.pool.gather(np.array([place]))[0], expected)


def test_roboflow(tmp_path, cache):
    """A file in the folder of each part, and a category above all that nothing has."""
    root = tmp_path / "roboflow"
    categories = [
        {"id": 0, "name": "birds", "supercategory": "none"},
        {"id": 1, "name": "kite", "supercategory": "birds"},
        {"id": 2, "name": "owl", "supercategory": "birds"},
    ]
    for start, part in enumerate(("train", "valid", "test")):
        images, annotations = [], []
        for number in range(4):
            save(root / part / f"{number}_jpg.rf.1.jpg", 10 * start + number)
            images.append({"id": number, "file_name": f"{number}_jpg.rf.1.jpg"})
            annotations.append({"id": number, **at(number, 1 + number % 2, [0, 0, 5, 5])})
        write(
            root / part / "_annotations.coco.json",
            images=images,
            annotations=annotations,
            categories=categories,
        )
    source = create_source(configure("auto", root, crop="box"), cache)
    assert source.classes == ["kite", "owl"]
    assert source.known_groups is None
    parts = [part for _, _, part in labels(source)]
    assert {part: parts.count(part) for part in parts} == {"train": 4, "validation": 4, "test": 4}
    assert all(each.stamp for each in source.samples)


def test_label_studio(tmp_path, cache):
    """What its own converter writes, whose paths are those of the server."""
    save(tmp_path / "images" / "0a1b2c3d-kite_1.jpg", 1)
    save(tmp_path / "images" / "buzzard_1.jpg", 2)
    shutil.copy(LABEL_STUDIO / "coco.json", tmp_path / "result.json")
    source = create_source(configure("auto", tmp_path / "result.json", crop="box"), cache)
    assert [(Path(each.path).name, source.classes[each.label]) for each in source.samples] == [
        ("0a1b2c3d-kite_1.jpg#0", "kite"),
        ("buzzard_1.jpg#1", "buzzard"),
    ]
    assert [each.box for each in source.samples] == [(2, 2, 12, 10)] * 2
    assert not source.problems


def test_categories_of_one_name(tmp_path, cache):
    root = inaturalist(tmp_path / "inat")
    for name in ("train.json", "val.json"):
        text = (root / name).read_text().replace("Danaus gilippus", "Danaus plexippus")
        (root / name).write_text(text)
    source = create_source(configure("coco", root), cache)
    assert source.classes == ["Danaus plexippus (0)", "Danaus plexippus (1)", "Quercus robur"]
    assert any("told apart by their ids: Danaus plexippus" in line for line in source.notices)


def test_what_is_wrong_is_named(tmp_path, cache):
    path = coco(
        tmp_path / "coco",
        [
            at(0, 7, [0, 0, 10, 20]),
            at(77, 7, [0, 0, 10, 20]),
            at(1, 5, [0, 0, 10, 20]),
            at(1, 7, [0, 0, 10]),
        ],
    )
    content = json.loads(path.read_text())
    content["images"] += [{"id": 0, "file_name": "x.jpg"}, {"id": 50}]
    content["categories"].append({"name": "nobody"})
    path.write_text(json.dumps(content))
    assert create_source(configure("coco", path), cache).problems == [
        f"{path}: images without an id of their own and a file_name: 5 (id 0), 6 (id 50)",
        f"{path}: categories without an id of their own: 4",
        f"{path}: annotations without an image of the list: id 101",
        f"{path}: annotations without a category of the list: id 102",
        f"{path}: annotations whose bbox is not [x, y, width, height]: id 103",
    ]


def test_categories_that_differ_between_files(tmp_path, cache):
    root = inaturalist(tmp_path / "inat")
    text = (root / "val.json").read_text().replace("Quercus robur", "Quercus rubra")
    (root / "val.json").write_text(text)
    assert create_source(configure("coco", root), cache).problems == [
        f"{root}/val.json: categories of other names than in {root}/train.json: "
        "2 (Quercus robur, Quercus rubra)"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n "categories": [}', r"x\.json:2: cannot be read as JSON: "),
        ('{"images": [], "annotations": []}', r"expected lists images, annotations and cat.* in t"),
        ('{"images": {}, "categories": []}', r"expected lists images, annotations and categories"),
    ],
)
def test_files_that_are_no_such(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=message):
        CocoSource(str(tmp_path / "x.json"))


def test_a_folder_without_any(tmp_path):
    fill(tmp_path, {"a": 1})
    (tmp_path / "package.json").write_text("{}")
    with pytest.raises(UserError, match="holds no JSON files in the layout of COCO"):
        CocoSource(str(tmp_path))
