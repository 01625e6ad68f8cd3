"""Crops of boxes: the same pixels however a file is stored, and samples that are told apart."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image

from gsfl_tune.data import load_image, load_square, prepare, square
from gsfl_tune.data.image_file import region
from gsfl_tune.data.labelled_images import open_for_evaluation
from gsfl_tune.data.sources import count_classes, create_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, picture, save


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=file_format, **options)
    return stream.getvalue()


def waves(width: int, height: int) -> Image.Image:
    """Smooth content, another colour everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [np.sin(x / 97), np.cos(y / 83), np.sin((x + y) / 131)]
    return Image.fromarray(((np.stack(channels, axis=-1) + 1) * 127).astype(np.uint8))


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_box_is_what_somebody_would_have_cut_out(fit):
    image = picture(1, (60, 50))
    pixels, size = load_square(encoded(image), 24, fit, box=(10, 20, 40, 45))
    assert size == (30, 25)
    np.testing.assert_array_equal(pixels, square(image.crop((10, 20, 40, 45)), 24, fit))


def test_the_margin_is_a_share_of_the_sides_and_ends_with_the_image():
    assert region((10, 20, 40, 40), 0.1, (100, 100)) == (7, 18, 43, 42)
    assert region((0, 20, 40, 40), 0.5, (50, 45)) == (0, 10, 50, 45)
    # Boxes that reach beyond the image, and thin ones, still have a pixel.
    assert region((-5, -5, 3, 200), 0.0, (50, 45)) == (0, 0, 3, 45)
    assert region((49.6, 10, 49.9, 12), 0.0, (50, 45)) == (49, 10, 50, 12)


def test_a_box_outside_the_image_is_a_broken_image():
    with pytest.raises(ValueError, match=r"its box \(30, 0, 40, 9\) lies outside .* 20 x 16"):
        load_square(encoded(picture(1)), 16, box=(30, 0, 40, 9), margin=2.0)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_and_reduced_jpegs_give_the_box_of_the_upright_image(fit, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(waves(1200, 800), "JPEG", quality=95, exif=exif)
    upright = load_image(content)
    assert upright.size == ((800, 1200) if orientation >= 5 else (1200, 800))
    box = (130.0, 340.0, 610.0, 740.0)
    pixels, size = load_square(content, 40, fit, box=box, margin=0.1)
    assert size == (576, 480)
    expected = square(upright.crop((82, 300, 658, 780)), 40, fit)
    assert np.abs(pixels.astype(int) - expected.astype(int)).mean() < 1.5


def test_a_box_where_only_the_upright_image_reaches():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = encoded(waves(1200, 800), "JPEG", quality=95, exif=exif)
    pixels, size = load_square(content, 40, box=(100, 900, 400, 1200), margin=0.1)
    assert size == (360, 330)
    expected = square(load_image(content).crop((70, 870, 430, 1200)), 40)
    assert np.abs(pixels.astype(int) - expected.astype(int)).mean() < 1.5
    with pytest.raises(ValueError, match="outside the image of 800 x 1200 pixels"):
        load_square(content, 40, box=(900, 100, 1200, 400))


def test_a_jpeg_is_reduced_no_more_than_its_box_allows():
    # Of noise, reduced decoding would leave next to nothing.
    content = encoded(picture(3, (1600, 1600)), "JPEG", quality=95)
    box = (400.0, 400.0, 480.0, 480.0)
    expected = square(load_image(content).crop((400, 400, 480, 480)), 40)
    np.testing.assert_array_equal(load_square(content, 40, box=box)[0], expected)


@pytest.fixture
def crowd(tmp_path):
    """Photographs with two boxes each, of a cat on the left and a dog on the right."""
    lines = ["file_name,label,xmin,ymin,xmax,ymax"]
    for number in range(8):
        save(tmp_path / "table" / f"{number}.png", number, (40, 20))
        lines += [f"{number}.png,cat,0,0,18,20", f"{number}.png,dog,20,0,40,20"]
    (tmp_path / "table" / "boxes.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "table"


def test_every_box_is_a_sample(crowd, cache):
    dataset = prepare(configure("csv", crowd, crop="box", crop_margin=0.0), cache_dir=cache)
    assert dataset.summary()["class_counts"] == {
        "cat": {"train": 5, "validation": 1, "test": 2},
        "dog": {"train": 5, "validation": 1, "test": 2},
    }
    for images in (dataset.pool, dataset.test):
        for place, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
            file, line = path.split("#")
            assert int(line) % 2 == label
            box = (20, 0, 40, 20) if label else (0, 0, 18, 20)
            expected = square(Image.open(file).convert("RGB").crop(box), 19)
            np.testing.assert_array_equal(images.gather(np.array([place]))[0], expected)


def test_a_photograph_never_straddles_parts_and_its_boxes_are_no_twins(crowd, cache):
    dataset = prepare(configure("csv", crowd, crop="box"), cache_dir=cache)
    parts = {
        "train": [dataset.pool.paths[i] for i in dataset.train_index],
        "validation": [dataset.pool.paths[i] for i in dataset.validation_index],
        "test": dataset.test.paths,
    }
    files = [{path.split("#")[0] for path in paths} for paths in parts.values()]
    assert not files[0] & files[1]
    assert not (files[0] | files[1]) & files[2]
    assert dataset.duplicates.groups == []
    # Two equal files with equal boxes are.
    (crowd / "again.png").write_bytes((crowd / "0.png").read_bytes())
    with (crowd / "boxes.csv").open("a") as table:
        table.write("again.png,cat,0,0,18,20\nagain.png,dog,21,0,40,20\n")
    again = prepare(configure("csv", crowd, crop="box"), cache_dir=cache)
    assert again.duplicates.groups == [[f"{crowd}/0.png#2", f"{crowd}/again.png#18"]]


def test_a_class_that_is_seldom_alone_gets_its_share(tmp_path, cache):
    """Each photograph has a common class first; the rare one is in four of them."""
    lines = ["file_name,label,xmin,ymin,xmax,ymax"]
    for number in range(30):
        save(tmp_path / "t" / f"{number}.png", number, (40, 20))
        lines.append(f"{number}.png,sparrow{number % 3},0,0,18,20")
        if number < 4:
            lines.append(f"{number}.png,eagle,20,0,40,20")
    (tmp_path / "t" / "boxes.csv").write_text("\n".join(lines) + "\n")
    dataset = prepare(configure("csv", tmp_path / "t", crop="box"), cache_dir=cache)
    assert dataset.summary()["class_counts"]["eagle"] == {"train": 2, "validation": 1, "test": 1}


def test_boxes_and_margins_have_squares_and_digests_of_their_own(crowd, cache):
    plain = prepare(configure("csv", crowd, crop="box", crop_margin=0.0), cache_dir=cache)
    wide = prepare(configure("csv", crowd, crop="box", crop_margin=0.3), cache_dir=cache)
    assert plain.digest == wide.digest  # the margin is geometry
    assert plain.pool.digest != wide.pool.digest
    every = np.arange(len(plain.pool))
    assert (plain.pool.gather(every) != wide.pool.gather(every)).any()
    table = crowd / "boxes.csv"
    table.write_text(table.read_text().replace("0,0,18,20", "0,0,17,20"))
    moved = prepare(configure("csv", crowd, crop="box", crop_margin=0.0), cache_dir=cache)
    assert moved.digest != plain.digest
    assert moved.pool.digest != plain.pool.digest
    cats = np.flatnonzero(plain.pool.labels == 0)
    assert plain.pool.paths == moved.pool.paths
    assert (plain.pool.gather(cats) != moved.pool.gather(cats)).any()


def test_without_crop_boxes_change_nothing(tmp_path, cache):
    """What is known of boxes does not decode whole images again."""
    fill(tmp_path / "t", {"images": 8})
    rows = [(f"{n:03d}.png", "ab"[n % 2]) for n in range(8)]
    bare, boxed = tmp_path / "t" / "bare.csv", tmp_path / "t" / "boxed.csv"
    bare.write_text("file_name,label\n" + "".join(f"{f},{c}\n" for f, c in rows))
    boxed.write_text("file_name,label,x,y,w,h\n" + "".join(f"{f},{c},1,1,4,4\n" for f, c in rows))
    first, second = (prepare(configure("csv", path), cache_dir=cache) for path in (bare, boxed))
    assert first.digest == second.digest
    assert len(list((cache / "decoded").glob("*.arrow"))) == 1
    assert create_source(configure("csv", boxed), cache).samples[0].box == (1, 1, 5, 5)


@pytest.mark.parametrize("source", ["folder", "auto", "csv"])
def test_a_source_without_boxes_is_refused(tmp_path, cache, source):
    fill(tmp_path / "d", {"a": 3, "b": 3})
    path = tmp_path / "d"
    if source == "csv":
        path = path / "t.csv"
        path.write_text("file_name,label\na/000.png,a\nb/000.png,b\n")
    with pytest.raises(UserError, match=r"data\.crop: found box, but .* has no boxes; allowed"):
        prepare(configure(source, path, crop="box"), cache_dir=cache)


def test_an_evaluation_cuts_boxes_as_the_training_did(crowd, cache):
    table = str(crowd / "boxes.csv")
    cut = open_for_evaluation(table, 19, "crop", cache, margin=0.0)
    assert len(cut.images) == 16
    expected = square(picture(0, (40, 20)).crop((0, 0, 18, 20)), 19)
    np.testing.assert_array_equal(cut.images.gather(np.array([0]))[0], expected)
    fill(crowd / "plain", {"cat": 2, "dog": 2})
    whole = open_for_evaluation(str(crowd / "plain"), 19, "crop", cache, margin=0.0)
    assert any("trained on boxes" in notice for notice in whole.notices)
    np.testing.assert_array_equal(
        whole.images.gather(np.array([0]))[0], load_square(whole.images.paths[0], 19)[0]
    )


def test_boxes_of_no_size_or_none_are_left_out_and_counted(crowd, cache):
    with (crowd / "boxes.csv").open("a") as table:
        table.write("0.png,cat,5,5,5,9\n1.png,cat,,,,\n2.png,dog,30,5,20,9\n")
    source = create_source(configure("csv", crowd, crop="box"), cache)
    assert source.left_out == {"with a box of less than a pixel": 2, "without a box": 1}
    assert len(source.samples) == 16
    assert source.told()[-1] == (
        "left out: 3 rows: with a box of less than a pixel 2, without a box 1"
    )


def test_which_numbers_a_box_is(tmp_path, cache):
    save(tmp_path / "0.png", 0)
    save(tmp_path / "1.png", 1)

    def boxes(name, text, **values):
        (tmp_path / name).write_text(text)
        path = tmp_path / name
        kind = "csv" if name.endswith("csv") else "jsonl"
        return [each.box for each in create_source(configure(kind, path, **values), cache).samples]

    table = "file_name,label,a,b,c,d\n0.png,x,2,3,10,12\n1.png,y,2,3,10,12\n"
    four = {"box_columns": ["a", "b", "c", "d"]}
    assert boxes("t.csv", table, **four, box_format="xywh") == [(2, 3, 12, 15)] * 2
    assert boxes("t.csv", table, **four, box_format="xyxy") == [(2, 3, 10, 12)] * 2
    with pytest.raises(UserError, match=r"t\.csv: data\.box_format: a, b, c, d do not say"):
        boxes("t.csv", table, **four)
    with pytest.raises(UserError, match=r"data\.box_columns: no column e, but the columns file_"):
        boxes("t.csv", table, box_columns=["e"])
    rows = [{"file_name": f"{n}.png", "label": n, "bbox": [2, 3, 10, 12]} for n in range(2)]
    text = "\n".join(map(json.dumps, rows))
    assert boxes("t.jsonl", text, box_columns=["bbox"], box_format="xywh") == [(2, 3, 12, 15)] * 2


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("1,x,3,4", r"t\.csv:2: found the box 1, x, 3, 4, allowed four numbers"),
        ("0.1,0.2,0.3,0.9", r"t\.csv: found boxes in shares of the image .* allowed pixels"),
    ],
)
def test_boxes_that_are_not_understood(tmp_path, cache, cells, message):
    save(tmp_path / "0.png", 0)
    (tmp_path / "t.csv").write_text(f"file_name,label,xmin,ymin,xmax,ymax\n0.png,a,{cells}\n")
    with pytest.raises(UserError, match=message):
        prepare(configure("csv", tmp_path / "t.csv", crop="box"), cache_dir=cache)


def test_count_classes_needs_no_boxes(crowd):
    assert count_classes(configure("csv", crowd, crop="box")) == 2
