"""What belongs together is held out together: copies, bursts, groups, and what looks alike."""

from __future__ import annotations

import io
import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image, ImageFilter

from gsfl_tune.data import prepare
from gsfl_tune.data.held_out import optimistic
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, save

REAL = os.environ.get("GSFL_TUNE_REAL_DATA")
real_data = pytest.mark.skipif(not REAL, reason="GSFL_TUNE_REAL_DATA is not set")


def scene(seed: int) -> Image.Image:
    """A picture with large shapes, as photographs have them."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


def parts_of(dataset) -> dict[str, str]:
    """The part of every image, by the name of its file."""
    parts = {}
    for name, index in (("train", dataset.train_index), ("validation", dataset.validation_index)):
        parts |= {dataset.pool.paths[i]: name for i in index}
    return parts | dict.fromkeys(dataset.test.paths, "test")


def test_copies_of_other_size_and_quality_never_straddle_a_split(tmp_path, cache):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(20):
            image = scene(100 * label + number)
            image.save(root / name / f"{number:02d}.png", compress_level=1)
            image.resize((100, 75)).save(root / name / f"{number:02d}-small.jpg", quality=60)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    parts = {Path(path).stem: [] for path in parts_of(dataset)}
    for path, part in parts_of(dataset).items():
        parts[Path(path).stem].append((Path(path).parent.name, part))
    for number in range(20):
        for name in "ab":
            (large,) = [p for n, p in parts[f"{number:02d}"] if n == name]
            (small,) = [p for n, p in parts[f"{number:02d}-small"] if n == name]
            assert large == small
    near = dataset.near_duplicates()
    assert len(near.groups) == 40
    assert not near.conflicting
    # Byte for byte they differ.
    assert not dataset.duplicates.groups


def test_copies_under_another_label_are_found(tmp_path, cache):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(10):
            scene(100 * label + number).save(root / name / f"{number}.png", compress_level=1)
    scene(3).save(root / "b" / "wrong.jpg", quality=80)
    near = prepare(configure("folder", root), cache_dir=cache).near_duplicates()
    assert near.conflicting == [[str(root / "a" / "3.png"), str(root / "b" / "wrong.jpg")]]


def test_drawings_on_white_are_not_all_copies(tmp_path, cache):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(10):
            blank = Image.new("RGB", (64, 64), "white")
            blank.putpixel((label * 10 + number, 30), (0, 0, 0))
            blank.save(root / name / f"{number}.png", compress_level=1)
    assert not prepare(configure("folder", root), cache_dir=cache).near_duplicates().groups


def photograph(path: Path, seed: int, taken: datetime | None, camera: str = "X1") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = camera
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken.strftime(
            "%Y:%m:%d %H:%M:%S"
        )
    scene(seed).filter(ImageFilter.GaussianBlur(1)).save(path, exif=exif)


def test_bursts_are_held_out_whole(tmp_path, cache):
    """Twelve bursts of four photographs a class, ten seconds apart, an hour between bursts."""
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        for burst in range(12):
            for number in range(4):
                taken = datetime(2026, 5, 1) + timedelta(hours=burst, seconds=10 * number)
                file = root / name / f"{burst:02d}-{number}.jpg"
                photograph(file, 1000 * label + 10 * burst + number, taken)
    for by in ("auto", "time"):
        dataset = prepare(configure("folder", root, split={"by": by}), cache_dir=cache)
        bursts: dict[str, set[str]] = {}
        for path, part in parts_of(dataset).items():
            key = f"{Path(path).parent.name} {Path(path).stem.split('-')[0]}"
            bursts.setdefault(key, set()).add(part)
        assert len(bursts) == 24
        assert all(len(parts) == 1 for parts in bursts.values())
        assert set.union(*bursts.values()) == {"train", "validation", "test"}
    told = prepare(configure("folder", root), cache_dir=cache).notices
    assert any("24 bursts of photographs" in line for line in told)
    alone = prepare(configure("folder", root, split={"by": "image"}), cache_dir=cache)
    assert not any("bursts" in line for line in alone.notices)


def test_photographs_of_two_cameras_are_bursts_of_their_own(tmp_path, cache):
    """One takes four in two minutes, the other two, which only the first one's would join."""
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        for hour in range(6):
            taken = [("X1", 40 * number) for number in range(4)] + [("X2", 20), ("X2", 100)]
            for number, (camera, seconds) in enumerate(taken):
                when = datetime(2026, 5, 1) + timedelta(hours=hour, seconds=seconds)
                file = root / name / f"{hour}-{number}.jpg"
                photograph(file, 1000 * label + 10 * hour + number, when, camera)
    told = prepare(configure("folder", root), cache_dir=cache).notices
    assert any(line.startswith("36 bursts of photographs") for line in told)


def test_numbers_of_a_camera_tell_bursts_too(tmp_path, cache):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        for burst in range(10):
            for number in range(3):
                file = root / name / f"IMG_{1000 + 20 * burst + number:04d}.jpg"
                photograph(file, 1000 * label + 10 * burst + number, None)
    dataset = prepare(configure("folder", root, split={"by": "time"}), cache_dir=cache)
    bursts: dict[tuple[str, int], set[str]] = {}
    for path, part in parts_of(dataset).items():
        key = Path(path).parent.name, (int(Path(path).stem[4:]) - 1000) // 20
        bursts.setdefault(key, set()).add(part)
    assert all(len(parts) == 1 for parts in bursts.values())


def test_a_series_of_names_is_held_out_in_pieces_of_neighbours(tmp_path, cache):
    """Without a gap a series is a whole class; with gaps its runs are held out whole."""
    root = tmp_path / "data"
    for number in range(1, 21):
        save_scene(root / "milk" / f"Milk_{number:03d}.png", number)
    for burst in range(10):
        for number in range(3):
            file = root / "bread" / f"Bread {20 * burst + number:03d}.png"
            save_scene(file, 100 + 10 * burst + number)
    dataset = prepare(configure("folder", root, split={"by": "time"}), cache_dir=cache)
    numbers: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    runs: dict[int, set[str]] = {}
    for path, part in parts_of(dataset).items():
        number = int(Path(path).stem[-3:])
        if Path(path).parent.name == "milk":
            numbers[part].append(number)
        else:
            runs.setdefault(number // 20, set()).add(part)
    assert len(runs) == 10
    assert all(len(parts) == 1 for parts in runs.values())
    assert set.union(*runs.values()) == {"train", "validation", "test"}
    for part in ("validation", "test"):
        first = min(numbers[part])
        assert sorted(numbers[part]) == list(range(first, first + 4))
    # Many collections are numbered in no order, so these names alone change no split.
    auto, image = (
        prepare(configure("folder", root, split={"by": by}), cache_dir=cache)
        for by in ("auto", "image")
    )
    assert auto.digest == image.digest


def test_a_class_of_one_camera_series_can_be_held_out(tmp_path, cache):
    root = tmp_path / "data"
    for label, name in enumerate("ab"):
        for number in range(20):
            save_scene(root / name / f"IMG_{number:04d}.png", 100 * label + number)
    dataset = prepare(configure("folder", root), cache_dir=cache)
    counts = dataset.summary()["class_counts"]
    assert all(count == {"train": 12, "validation": 4, "test": 4} for count in counts.values())


def given_parts(root: Path, *, near: bool) -> Path:
    """Three given parts; with `near` the validation images are training images, a bit changed."""
    for label, name in enumerate("ab"):
        for number in range(30):
            seed = 1000 * label + number
            save_scene(root / "train" / name / f"{number}.png", seed)
            save_scene(root / "test" / name / f"{number}.png", 200 + seed)
            image = scene(400 + seed)
            if near:
                image = Image.blend(scene(seed), image, 0.35)
            (root / "val" / name).mkdir(parents=True, exist_ok=True)
            image.save(root / "val" / name / f"{number}.png", compress_level=1)
    return root


def test_a_given_validation_part_that_is_too_near_is_pointed_out(tmp_path, cache):
    dataset = prepare(
        configure("folder", given_parts(tmp_path / "near", near=True)), cache_dir=cache
    )
    (told,) = [line for line in dataset.notices if "nearer to the training images" in line]
    assert told.startswith("the given validation images are nearer to the training images than")
    assert "validation is too optimistic" in told
    assert "data.split.validation: resplit" in told
    # It is a word only.
    assert dataset.summary()["counts"] == {"train": 60, "validation": 60, "test": 60}
    root = given_parts(tmp_path / "far", near=False)
    told = prepare(configure("folder", root), cache_dir=cache).notices
    assert not any("nearer to the training images" in line for line in told)


def test_a_copy_of_a_given_part_is_left_out_of_training(tmp_path, cache):
    root = given_parts(tmp_path / "data", near=False)
    kept = prepare(configure("folder", root), cache_dir=cache).digest
    for part, number in (("test", 3), ("val", 5)):
        image = Image.open(root / part / "a" / f"{number}.png")
        image.resize((100, 75)).save(root / "train" / "a" / f"copy-{part}.jpg", quality=60)
    # A copy of a test image in the validation part, with another label.
    scene(1208).resize((120, 90)).save(root / "val" / "a" / "copy.jpg")
    dataset = prepare(configure("folder", root), cache_dir=cache)
    copies = {"train/a/copy-test.jpg", "train/a/copy-val.jpg", "val/a/copy.jpg"}
    assert {path.removeprefix(f"{root}/") for path in dataset.duplicates.dropped} == copies
    assert dataset.summary()["counts"] == {"train": 60, "validation": 60, "test": 60}
    assert dataset.digest == kept
    (told,) = [line for line in dataset.notices if "left out" in line]
    assert told.startswith("3 images are left out, of which a given test or validation part has a")
    alone = prepare(configure("folder", root, split={"by": "image"}), cache_dir=cache)
    assert alone.summary()["counts"] == {"train": 62, "validation": 61, "test": 60}


def test_groups_of_a_column_and_folders(tmp_path, cache):
    rows = []
    for animal in range(30):
        for number in range(4):
            stream = io.BytesIO()
            scene(10 * animal + number).save(stream, "PNG", compress_level=1)
            row = {"image": {"bytes": stream.getvalue(), "path": f"{animal}-{number}.png"}}
            rows.append(row | {"label": animal % 2, "animal": f"cow {animal}"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "cows.parquet")
    file = tmp_path / "cows.parquet"
    config = configure("parquet", file, group_column="animal", label_column="label")
    dataset = prepare(config, cache_dir=cache)
    animals: dict[str, set[str]] = {}
    for path, part in parts_of(dataset).items():
        animals.setdefault(path.split("(")[1].split("-")[0], set()).add(part)
    assert len(animals) == 30
    assert all(len(parts) == 1 for parts in animals.values())
    assert any("images of one group are held out together" in line for line in dataset.notices)

    root = tmp_path / "folders"
    for animal in range(20):
        fill(root, {f"{'ab'[animal % 2]}/animal {animal}": 4}, seed=5000 * (animal + 1))
    dataset = prepare(configure("folder", root, split={"by": "folder"}), cache_dir=cache)
    folders: dict[str, set[str]] = {}
    for path, part in parts_of(dataset).items():
        folders.setdefault(str(Path(path).parent), set()).add(part)
    assert len(folders) == 20
    assert all(len(parts) == 1 for parts in folders.values())


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("time", "only 0 of 20 images say when they were taken"),
        ("group", "the source says no group; data.group_column"),
        ("folder", "the images of every class lie in one folder"),
    ],
)
def test_what_the_images_do_not_say_is_refused(tmp_path, cache, by, message):
    root = fill(tmp_path / "data", {"a": 10, "b": 10})
    with pytest.raises(UserError, match=message):
        prepare(configure("folder", root, split={"by": by}), cache_dir=cache).split  # noqa: B018


def test_the_split_depends_neither_on_the_size_nor_on_a_second_start(tmp_path, cache):
    root = tmp_path / "data"
    for label, name in enumerate("abc"):
        for number in range(30):
            save_scene(root / name / f"{number}.png", 100 * label + number)
    config = {"split": {"by": "near_duplicate"}}
    first = prepare(configure("folder", root, **config), cache_dir=cache)
    larger = prepare(configure("folder", root, image_size=64, **config), cache_dir=cache)
    elsewhere = prepare(configure("folder", root, **config), cache_dir=tmp_path / "other")
    assert first.digest == larger.digest == elsewhere.digest


def save_scene(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(seed).save(path, compress_level=1)


def test_broken_images_do_not_keep_the_others_from_being_compared(tmp_path, cache):
    root = fill(tmp_path / "data", {"a": 12, "b": 12})
    (root / "a" / "x.png").write_bytes(b"junk")
    save(root / "a" / "000.png", 1)
    dataset = prepare(configure("folder", root, max_broken=0.5), cache_dir=cache)
    assert len(dataset.broken) == 1
    assert len(dataset.pool) + len(dataset.test) == 24


def real(name: str, **split):
    # In the order of a folder, as which others read them: all that was computed is shared.
    files = [
        Path(REAL or "") / name / f"{part}.parquet" for part in ("test", "train", "validation")
    ]
    paths = [str(file) for file in files if file.exists()]
    return configure("parquet", paths, label_column="label", split=split)


@real_data
@pytest.mark.parametrize(
    ("name", "advised"),
    [("grocery", True), ("clothing", False)],
)
@pytest.mark.slow
def test_bursts_are_pointed_out_without_a_test_part_too(photographs, name, advised):
    config = real(name)
    config = config.model_copy(update={"path": str(Path(REAL or "") / name / "train.parquet")})
    notices = prepare(config, cache_dir=photographs).notices
    assert any("photographs probably come in bursts" in line for line in notices) == advised


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({}, False),
        ({"validation_nearer": 0.7, "validation_nearer_p": 1e-5}, True),
        ({"validation_nearer": 0.7, "validation_nearer_p": 0.2}, False),
        ({"validation_nearer": 0.37, "validation_nearer_p": 1e-9}, False),
        (
            {"validation_nearer": 0.9, "validation_nearer_p": 0, "validation_nearer_clusters": 0.5},
            False,
        ),
        ({"nearest_right": 0.9, "accuracy_falls": 0.5}, True),
        ({"nearest_right": 0.9, "accuracy_falls": 0.1}, False),
    ],
)
def test_validation_is_too_optimistic_if_its_images_are_too_near(measured, expected):
    assert optimistic(measured) is expected


@real_data
@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param(
            "grocery",
            "farther from the training images than test images in 63 % of pairs (50 % would be "
            "equal): validation may be harder than the test",
            marks=pytest.mark.slow,
        ),
        (
            "clothing",
            "nearer to the training images than test images in 60 % of pairs (50 % would be equal)",
        ),
    ],
)
def test_how_near_the_published_validation_part_is_to_training(photographs, name, told):
    """Grocery's is from elsewhere too, as its test part: nothing is to be advised."""
    dataset = prepare(real(name), cache_dir=photographs)
    assert f"the given validation images are {told}" in dataset.notices
    assert dataset.summary()["split_optimistic"] is False
    assert not dataset.duplicates.dropped


@pytest.mark.slow
@real_data
def test_clusters_are_held_out_where_single_images_would_be_too_near(photographs):
    """Grocery's photographs come in bursts of a shelf; its test part is from elsewhere."""
    dataset = prepare(real("grocery", validation="resplit"), cache_dir=photographs)
    assert any("would be more similar to the training images" in line for line in dataset.notices)
    single = prepare(real("grocery", validation="resplit", by="image"), cache_dir=photographs)
    assert single.digest != dataset.digest
    share = len(dataset.validation_index) / len(dataset.pool)
    assert 0.15 < share < 0.27


@real_data
@pytest.mark.parametrize("name", ["clothing"])
def test_nothing_changes_where_parts_are_equally_near(photographs, name):
    dataset = prepare(real(name, validation="resplit"), cache_dir=photographs)
    assert not any("more similar" in line for line in dataset.notices)
    single = prepare(real(name, validation="resplit", by="image"), cache_dir=photographs)
    differ = set(dataset.validation_index) ^ set(single.validation_index)
    # But for a pair of copies in clothing.
    assert len(differ) <= 4
