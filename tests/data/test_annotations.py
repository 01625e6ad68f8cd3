"""Boxes, part points, attributes and descriptions: read where people have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import CocoSource, CubSource, DogsSource, create_source
from gsfl_tune.experiment.errors import UserError
from tests.commands import gsfl_tune
from tests.data.conftest import configure, fill, save

NAN = np.nan


def dotted(path: Path, size: tuple[int, int], x: float, y: float, turned: int = 1) -> None:
    """A grey image with a white dot about a point of the upright image."""
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    near = (np.abs(columns + 0.5 - x) < 6) & (np.abs(rows + 0.5 - y) < 6)
    image = Image.fromarray(np.where(near, 255, 60).astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    if turned == 6:  # shown after a quarter turn to the right
        image = image.transpose(Image.Transpose.ROTATE_90)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95, exif=exif)


def table(root: Path, header: str, rows: list[str]) -> Path:
    file = root / "images.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


@pytest.fixture
def birds(tmp_path):
    """Images of several shapes, each with a beak where a column says."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(24):
        width, height = random.integers(90, 400, 2).tolist()
        x, y = random.uniform(0.35, 0.65, 2) * (width, height)
        turned = 6 if number % 3 == 0 else 1
        dotted(tmp_path / f"{number}.jpg", (width, height), x, y, turned)
        box = [0.2 * width, 0.25 * height, 0.9 * width, 0.8 * height]
        cells = [f"{value:.2f}" for value in (x, y, *box)]
        rows.append(f"{number}.jpg,{'ab'[number % 2]},{','.join(cells)},{number % 4 == 0}")
    return table(tmp_path, "file,label,beak_x,beak_y,xmin,ymin,xmax,ymax,crest", rows)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("crop", ["none", "box"])
def test_points_are_where_the_pixels_are(birds, cache, fit, crop):
    config = configure(
        "csv", birds, fit=fit, crop=crop, point_columns=["beak"], attribute_columns=["crest"]
    ).model_copy(update={"image_size": 64})
    dataset = prepare(config, cache_dir=cache)
    seen = 0
    for part in ("pool", "test"):
        images = dataset.pool if part == "pool" else dataset.test
        found = dataset.annotations(part)
        assert found.part_names == ["beak"]
        assert len(found) == len(images)
        for row, (x, y) in enumerate(found.points[:, 0].tolist()):
            assert 0 < x < images.side
            assert 0 < y < images.side
            bright = images.gather(np.array([row]))[0][:, :, 0] > 180
            rows, columns = np.nonzero(bright)
            centre = columns.mean() + 0.5, rows.mean() + 0.5
            assert centre == pytest.approx((x, y), abs=1.5)
            seen += 1
    assert seen == 24


def test_boxes_are_where_they_were_cut_out(birds, cache):
    config = configure("csv", birds, fit="squash", crop="box", crop_margin=0.0)
    boxes = prepare(config, cache_dir=cache).annotations("pool").boxes
    side = prepare(config, cache_dir=cache).pool.side
    assert boxes == pytest.approx(np.tile([0, 0, side, side], (len(boxes), 1)), abs=1.0)
    wider = prepare(config.model_copy(update={"crop_margin": 0.1}), cache_dir=cache)
    share = (wider.annotations("pool").boxes / side).mean(0)
    # A tenth at each end is a twelfth of what is seen.
    assert share == pytest.approx([1 / 12, 1 / 12, 11 / 12, 11 / 12], abs=0.01)


def test_attributes_of_a_table(tmp_path, cache):
    fill(tmp_path, {"images": 12})
    cells = ["true", "false", "", "0.25", "1", "no"]
    rows = [f"images/{n:03d}.png,{'ab'[n % 2]},{cells[n % 6]},7" for n in range(12)]
    file = table(tmp_path, "file,label,red,legs", rows)
    config = configure("csv", file, attribute_columns=["red", "legs"])
    source = create_source(config, cache)
    found = source.annotations()
    assert found.attribute_names == ["red", "legs"]
    assert found.attributes[:6, 0] == pytest.approx([1, 0, NAN, 0.25, 1, 0], nan_ok=True)
    # They are not taken for labels.
    assert source.classes == ["a", "b"]
    dataset = prepare(config, cache_dir=cache)
    for images, part in ((dataset.pool, "pool"), (dataset.test, "test")):
        for row, path in enumerate(images.paths):
            wanted = found.attributes[int(Path(path).stem)]
            own = dataset.annotations(part).attributes[row]
            assert own == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        (
            {"attribute_columns": ["red"]},
            "maybe,1,2",
            r"images\.csv:14: found 'maybe' in column",
        ),
        ({"point_columns": ["beak"]}, "1,4,", r"images\.csv:14: found beak_x .*beak_y ''.*or two"),
        ({"point_columns": ["beak"]}, "1,4,wide", r"allowed two numbers or two empty cells"),
        ({"point_columns": ["tail"]}, "1,4,5", r"data\.point_columns: no column tail_x, but"),
        ({"attribute_columns": ["blue"]}, "1,4,5", r"data\.attribute_columns: no column blue"),
    ],
)
def test_wrong_annotations_of_a_table(tmp_path, cache, columns, row, message):
    fill(tmp_path, {"images": 13})
    rows = [f"images/{n:03d}.png,{'ab'[n % 2]},1,2,3" for n in range(12)]
    file = table(tmp_path, "file,label,red,beak_x,beak_y", [*rows, f"images/012.png,a,{row}"])
    with pytest.raises(UserError, match=message):
        create_source(configure("csv", file, **columns), cache).annotations()


def cub(root: Path) -> Path:
    """Three images in the official layout, with attributes.txt beside the folder."""
    folder = root / "CUB_200_2011"
    names = ["001.Wren/0.jpg", "001.Wren/1.jpg", "002.Robin/2.jpg"]
    for number, name in enumerate(names):
        save(folder / "images" / name, number)

    def lines(file, rows):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("\n".join(rows) + "\n")

    # Numbers that are not those of the rows.
    numbers = [4, 7, 9]
    lines("images.txt", [f"{n} {name}" for n, name in zip(numbers, names, strict=True)])
    lines("image_class_labels.txt", ["4 1", "7 1", "9 2"])
    lines("train_test_split.txt", ["4 1", "7 0", "9 1"])
    lines("classes.txt", ["1 001.Wren", "2 002.Robin"])
    lines("parts/parts.txt", ["1 back", "2 left eye"])
    lines(
        "parts/part_locs.txt",
        ["4 1 10.0 11.5 1", "4 2 0.0 0.0 0", "7 1 0.0 0.0 0", "7 2 3.0 4.0 1", "9 2 5.5 6.0 1"],
    )
    (root / "attributes.txt").write_text("1 has_bill_shape::curved\n2 has_wing_color::blue\n")
    lines(
        "attributes/image_attribute_labels.txt",
        # Number, attribute, there or not, certainty, seconds; some official lines have more words.
        ["4 1 1 3 27.7", "4 2 0 1 27.7", "7 1 0 4 1.5 0 0", "7 2 1 2 1.5", "9 2 1 4 1.0"],
    )
    return folder


def test_parts_and_attributes_of_cub(tmp_path):
    found = CubSource(str(cub(tmp_path))).annotations()
    assert found.part_names == ["back", "left eye"]
    assert found.points.reshape(3, 4) == pytest.approx(
        np.array([[10, 11.5, NAN, NAN], [NAN, NAN, 3, 4], [NAN, NAN, 5.5, 6]]), nan_ok=True
    )
    assert found.attribute_names == ["has_bill_shape::curved", "has_wing_color::blue"]
    # The annotator could not see the wing of the first.
    assert found.attributes == pytest.approx(np.array([[1, NAN], [0, 1], [NAN, 1]]), nan_ok=True)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("parts/part_locs.txt", "4 3 1.0 2.0 1", r"part_locs\.txt:6: found part 3, allowed"),
        ("parts/part_locs.txt", "4 1 1.0", r"part_locs\.txt:6: found '4 1 1\.0', allowed an image"),
        ("parts/part_locs.txt", "4 1 here 2.0 1", r"part_locs\.txt:6: found 'here 2\.0', allowed"),
        ("attributes/image_attribute_labels.txt", "4 1 2 3 1.0", r"labels\.txt:6: .*0 or 1"),
    ],
)
def test_wrong_lines_of_cub(tmp_path, file, line, message):
    folder = cub(tmp_path)
    with (folder / file).open("a") as lines:
        lines.write(line + "\n")
    with pytest.raises(UserError, match=message):
        CubSource(str(folder)).annotations()


def test_what_is_left_out_takes_its_annotations_along(tmp_path, cache):
    fill(tmp_path, {"images": 20})
    rows = [f"images/{n:03d}.png,{'ab'[n % 2]},{n}" for n in range(20)]
    file = table(tmp_path, "file,label,number", rows)
    (tmp_path / "leave.txt").write_text("images/000.png\nimages/007.png\n")
    config = configure(
        "csv", file, exclude=str(tmp_path / "leave.txt"), attribute_columns=["number"]
    )
    dataset = prepare(config, cache_dir=cache)
    for images, part in ((dataset.pool, "pool"), (dataset.test, "test")):
        numbers = dataset.annotations(part).attributes[:, 0].astype(int).tolist()
        assert numbers == [int(Path(path).stem) for path in images.paths]


def keypoints(root: Path, **changes) -> Path:
    fill(root, {"images": 8})
    annotation = {"id": 1, "image_id": 0, "category_id": 0, "bbox": [1, 1, 8, 8]}
    annotations = [
        {**annotation, "id": n, "image_id": n, "category_id": n % 2,
         "keypoints": [n + 1, 2, 2, 0, 0, 0] if n % 2 == 0 else [5, n, 1]}
        for n in range(8)
    ]  # fmt: skip
    annotations[0] |= changes
    content = {
        "images": [{"id": n, "file_name": f"images/{n:03d}.png"} for n in range(8)],
        "annotations": annotations,
        "categories": [
            {"id": 0, "name": "cat", "keypoints": ["nose", "tail"]},
            {"id": 1, "name": "fish", "keypoints": ["fin"]},
        ],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root / "instances.json"


def test_keypoints_of_coco(tmp_path):
    found = CocoSource(str(keypoints(tmp_path))).annotations()
    assert found.part_names == ["nose", "tail", "fin"]
    assert found.points[2].ravel() == pytest.approx([3, 2, NAN, NAN, NAN, NAN], nan_ok=True)
    assert found.points[3].ravel() == pytest.approx([NAN, NAN, NAN, NAN, 5, 3], nan_ok=True)
    assert found.boxes[0] == pytest.approx([1, 1, 9, 9])


@pytest.mark.parametrize("value", [[1, 2], [1, 2, "x", 0, 0, 0], 7])
def test_wrong_keypoints_are_named(tmp_path, value):
    source = CocoSource(str(keypoints(tmp_path, keypoints=value)))
    assert any("keypoints are not x, y, visibility" in each for each in source.problems)


@pytest.fixture
def dogs(tmp_path):
    """Two breeds in Stanford's layout; the second photograph of each shows two dogs."""
    from scipy.io import savemat

    root = tmp_path / "stanford_dogs"
    folders = ["n02085620-Chihuahua", "n02086240-Shih-Tzu"]
    names, labels = [], []
    for label, folder in enumerate(folders, start=1):
        for number in range(4):
            name = f"{folder}/{folder.partition('-')[0]}_{number}.jpg"
            save(root / "Images" / name, 10 * label + number)
            box = "<object><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>14</ymax>"
            box += "</bndbox></object>"
            file = root / "Annotation" / name.removesuffix(".jpg")
            file.parent.mkdir(parents=True, exist_ok=True)
            count = 2 if number == 1 else 1
            file.write_text(f"<annotation>{count * box}</annotation>")
            names.append(name)
            labels.append(label)
    for part in ("train", "test"):
        chosen = [n for n in range(8) if (n % 4 == 3) == (part == "test")]
        savemat(
            root / f"{part}_list.mat",
            {
                "file_list": np.array([[names[n]] for n in chosen], dtype=object),
                "labels": np.array([[labels[n]] for n in chosen]),
            },
        )
    return root


def test_boxes_of_dogs(dogs):
    whole = DogsSource(str(dogs))
    assert len(whole.samples) == 8
    boxes = whole.annotations().boxes
    # Of a photograph of two dogs none is meant.
    assert np.isnan(boxes).all(1).sum() == 2
    assert boxes[0] == pytest.approx([2, 3, 12, 14])
    cropped = DogsSource(str(dogs), crop=True)
    assert len(cropped.samples) == 10
    assert all(sample.box == (2, 3, 12, 14) for sample in cropped.samples)
    assert len({sample.path for sample in cropped.samples}) == 10


def test_a_broken_box_of_dogs_is_named(dogs):
    next((dogs / "Annotation").rglob("*_0")).write_text("<annotation><object>")
    with pytest.raises(UserError, match=r"_0: cannot be read as XML with boxes"):
        DogsSource(str(dogs), crop=True)


def described(root: Path, cache: Path, name: str, text: str):
    fill(root / "photos", {"Épervier": 8, "wren": 8})
    (root / name).write_text(text, encoding="utf-8")
    config = configure("folder", root / "photos", class_text=str(root / name))
    return prepare(config, cache_dir=cache)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("texts.csv", 'class,text\nwren,"small, brown"\nE\u0301pervier,a hawk\n'),
        ("texts.json", json.dumps({"wren": "small, brown", "Épervier": "a hawk"})),
    ],
)
def test_descriptions_of_classes(tmp_path, cache, name, text):
    dataset = described(tmp_path, cache, name, text)
    texts = dict(zip(dataset.classes, dataset.class_texts, strict=True))
    assert texts == {"wren": "small, brown", "Épervier": "a hawk"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,text\nwren,brown\n", r"no text for 1 of 2 classes: Épervier"),
        (
            "class,text\nwren,a\nÉpervier,b\nwrenn,c\n",
            r"found 1 not among the 2 classes of the data: wrenn",
        ),
        ("class,text\nwren,a\nÉpervier,b\nwren,c\n", r"several texts for 1 of 2 classes: wren"),
        ("name,about\nwren,a\n", r"found the columns name, about, allowed class and text"),
    ],
)
def test_wrong_descriptions(tmp_path, cache, text, message):
    with pytest.raises(UserError, match=message):
        described(tmp_path, cache, "texts.csv", text).summary()


def test_data_shows_what_there_is(birds, tmp_path):
    settings = ["data.point_columns=[beak]", "data.attribute_columns=[crest]"]
    overrides = [word for each in settings for word in ("--set", each)]
    shown = gsfl_tune(tmp_path, "data", birds, *overrides)
    assert shown.returncode == 0, shown.stderr
    assert "boxes: 24 of 24 images" in shown.stdout
    assert "points of 1 part, 1.0 seen an image: beak" in shown.stdout
    assert "1 attribute, 100% of the values known: crest" in shown.stdout
    told = gsfl_tune(tmp_path, "data", birds, *overrides, "--json")
    assert json.loads(told.stdout)["annotations"] == {
        "boxes": 24, "parts": {"beak": 24}, "attributes": {"crest": 24},
    }  # fmt: skip
