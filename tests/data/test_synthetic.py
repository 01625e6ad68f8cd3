"""``data.synthetic``: images that join the training part, and never another."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from gsfl_tune.data import prepare, square
from gsfl_tune.data.digests import Contents, read_contents
from gsfl_tune.data.folds import Fold, fold_of
from gsfl_tune.data.labelled_images import open_for_evaluation
from gsfl_tune.data.sources import create_source
from gsfl_tune.data.training_images import training_images
from gsfl_tune.experiment.errors import UserError

from .conftest import configure
from .sources.test_torchvision_sets import make_aircraft
from .synthetic_folder import write_synthetic


def scene(seed: int) -> Image.Image:
    """A picture with large shapes, as copies are found by."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path) -> Path:
    for label, name in enumerate("ab"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(10):
            scene(100 * label + index).save(folder / f"{index}.png", compress_level=1)
    return tmp_path / "photos"


@pytest.fixture
def plain(photos, cache):
    return prepare(configure("folder", photos), cache_dir=cache)


def of_each(photos: Path, folder: Path, *, start: int = 500) -> Path:
    """One image of every photograph, and one of the first two of a class."""
    listed = [
        (name, scene(start + 100 * label + index), [photos / name / f"{index}.png"])
        for label, name in enumerate("ab")
        for index in range(10)
    ]
    return write_synthetic(folder, listed)


def parts(dataset) -> dict[str, set[str]]:
    paths, test = dataset.pool.paths, dataset.test.paths
    return {
        "train": {paths[row] for row in dataset.train_index},
        "validation": {paths[row] for row in dataset.validation_index},
        "test": set(test),
    }


def sources_of(folder: Path, photos: Path) -> dict[str, str]:
    """The photograph of every synthetic image, by path."""
    records = json.loads((folder / "synthetic.json").read_text())["records"]
    by_number = [str(photos / name / f"{i}.png") for name in "ab" for i in range(10)]
    return {str(folder / each["file"]): by_number[each["number"]] for each in records[:-1]}


def test_they_join_the_training_part_if_their_sources_are_in_it(photos, tmp_path, cache, plain):
    folder = of_each(photos, tmp_path / "made")
    made = sources_of(folder, photos)
    dataset = prepare(configure("folder", photos, synthetic=str(folder)), cache_dir=cache)
    before, after = parts(plain), parts(dataset)
    expected = {path for path, photo in made.items() if photo in before["train"]}
    assert 0 < len(expected) < 20
    # The split of photographs is what it was.
    assert after["train"] == before["train"] | expected
    assert after["validation"] == before["validation"]
    assert after["test"] == before["test"]
    labels = {path: name for name in "ab" for path in made if f"-{name}/" in path}
    for row in dataset.train_index.tolist():
        path = dataset.pool.paths[row]
        if path in labels:
            assert dataset.classes[dataset.pool.labels[row]] == labels[path]
    assert len(dataset.final_index) == len(plain.final_index) + len(expected)
    told = "\n".join(dataset.notices)
    assert f"data.synthetic: {len(expected)} synthetic images join the training part" in told
    assert f"{20 - len(expected)} of 20 images are left out, as they were made from" in told
    assert dataset.summary()["synthetic"] == len(expected)
    assert plain.summary()["synthetic"] == 0
    assert dataset.digest != plain.digest
    # What a bundle has seen is known by the photographs, which an evaluation compares.
    seen = dataset.trained_on(validation=True)
    assert seen == plain.trained_on(validation=True)


def test_the_pixels_are_those_of_the_file(photos, tmp_path, cache, plain):
    name = Path(plain.pool.paths[int(plain.train_index[0])])
    label = plain.classes[plain.pool.labels[int(plain.train_index[0])]]
    red = Image.new("RGB", (96, 96), (200, 10, 30))
    folder = write_synthetic(tmp_path / "made", [(label, red, [name])])
    dataset = prepare(configure("folder", photos, synthetic=[str(folder)]), cache_dir=cache)
    row = dataset.pool.paths.index(str(folder / f"0000-{label}/00000.png"))
    square = dataset.pool.gather(np.array([row]))[0]
    assert (square == np.array([200, 10, 30])).all()


def test_another_split_leaves_out_others(photos, tmp_path, cache):
    folder = of_each(photos, tmp_path / "made")
    made = sources_of(folder, photos)
    kept = []
    for seed in range(3):
        data = configure("folder", photos, synthetic=str(folder), split={"seed": seed})
        found = parts(prepare(data, cache_dir=cache))
        own = {path for path in found["train"] if path in made}
        assert own == {path for path, photo in made.items() if photo in found["train"]}
        kept.append(own)
    assert len(set(map(frozenset, kept))) > 1


def test_copies_of_held_out_images_are_left_out(photos, tmp_path, cache, plain):
    held = plain.pool.paths[int(plain.validation_index[0])]
    trained = Path(plain.pool.paths[int(plain.train_index[0])])
    name = plain.classes[plain.pool.labels[int(plain.train_index[0])]]
    near = Image.open(held).resize((80, 80)).point(lambda v: min(255, round(1.05 * v)))
    folder = write_synthetic(
        tmp_path / "made", [(name, near, [trained]), (name, scene(900), [trained])]
    )
    dataset = prepare(configure("folder", photos, synthetic=str(folder)), cache_dir=cache)
    assert dataset.summary()["synthetic"] == 1
    assert "1 of 2 images are left out, as they are copies" in "\n".join(dataset.notices)


def test_images_of_two_sources_need_both(photos, tmp_path, cache, plain):
    trained = [Path(plain.pool.paths[row]) for row in plain.train_index.tolist()]
    held = Path(plain.pool.paths[int(plain.validation_index[0])])
    listed = [("a", scene(900), trained[:2]), ("a", scene(901), [trained[0], held])]
    folder = write_synthetic(tmp_path / "made", listed)
    dataset = prepare(configure("folder", photos, synthetic=str(folder)), cache_dir=cache)
    assert dataset.summary()["synthetic"] == 1


def test_few_shots_take_no_images_of_those_that_are_left_out(photos, tmp_path, cache):
    folder = of_each(photos, tmp_path / "made")
    made = sources_of(folder, photos)
    data = configure("folder", photos, synthetic=str(folder), shots=2)
    dataset = prepare(data, cache_dir=cache)
    train = parts(dataset)["train"]
    assert len(train - set(made)) == 4
    assert {made[path] for path in train & set(made)} == train - set(made)


def test_folds_hold_out_no_synthetic_image_nor_its_sources(photos, tmp_path, cache):
    folder = of_each(photos, tmp_path / "made")
    made = sources_of(folder, photos)
    whole = prepare(configure("folder", photos, synthetic=str(folder)), cache_dir=cache)
    plain = prepare(configure("folder", photos), cache_dir=cache)
    held: list[str] = []
    for number in range(3):
        fold = fold_of(whole, Fold(number, 3))
        found, other = parts(fold), parts(fold_of(plain, Fold(number, 3)))
        assert found["validation"] == other["validation"]
        assert found["train"] - set(made) == other["train"]
        for path in found["train"] & set(made):
            assert made[path] in found["train"]
        assert fold.pool is whole.pool
        held += found["validation"]
    assert Counter(held).most_common(1)[0][1] == 1


def test_marked_images_of_the_path_are_left_out_and_counted(photos, tmp_path, cache, plain):
    folder = of_each(photos, tmp_path / "made")
    shutil.copy(next(iter(sources_of(folder, photos))), photos / "a" / "copied.png")
    dataset = prepare(configure("folder", photos), cache_dir=cache)
    assert parts(dataset) == parts(plain)
    assert "synthetic, made by gsfl-tune synthesize (data.synthetic takes them) 1" in "\n".join(
        dataset.notices
    )


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_given_part_with_marked_images_is_refused(tmp_path, cache, part):
    for number, each in enumerate(["train", "validation", "test"]):
        for label, name in enumerate("ab"):
            folder = tmp_path / "photos" / each / name
            folder.mkdir(parents=True)
            for index in range(3):
                scene(1000 * number + 100 * label + index).save(
                    folder / f"{index}.png", compress_level=1
                )
    photos = tmp_path / "photos"
    made = write_synthetic(
        tmp_path / "made", [("a", scene(7777), [photos / "train" / "a" / "0.png"])]
    )
    shutil.copy(made / "0000-a/00000.png", photos / part / "a" / "x.png")
    with pytest.raises(UserError, match=f"1 synthetic images in the given {part} part.*x.png"):
        prepare(configure("folder", photos), cache_dir=cache)


def test_synthetic_images_alone_are_refused(photos, tmp_path, cache):
    folder = of_each(photos, tmp_path / "made")
    (folder / "0000-b").rename(folder / "0001-b")
    with pytest.raises(UserError, match="found synthetic images alone"):
        prepare(configure("folder", folder), cache_dir=cache)


def test_an_evaluation_scores_no_synthetic_image(photos, tmp_path, cache):
    folder = of_each(photos, tmp_path / "made")
    with pytest.raises(UserError, match="found synthetic images alone"):
        open_for_evaluation(folder, 18, "crop", cache)
    shutil.copy(next(iter(sources_of(folder, photos))), photos / "a" / "copied.png")
    found = open_for_evaluation(photos, 18, "crop", cache)
    assert len(found.images) == len(found.contents) == 20
    assert "synthetic, made by gsfl-tune synthesize 1" in "\n".join(found.notices)


def test_they_are_no_images_without_labels(photos, tmp_path, cache):
    folder = of_each(photos, tmp_path / "made")
    scene(4000).save(folder / "0000-a" / "photo.png", compress_level=1)
    data = configure("folder", photos, unlabelled=str(folder))
    dataset = prepare(data, cache_dir=cache)
    assert [Path(path).name for path in dataset.unlabelled.paths] == ["photo.png"]
    assert "data.unlabelled: 20 images are left out: synthetic" in "\n".join(dataset.notices)


def test_what_cannot_be_used_is_left_out_with_the_reason(photos, tmp_path, cache, plain):
    trained = [Path(plain.pool.paths[int(plain.train_index[0])])]
    listed = [("a", scene(900 + number), trained) for number in range(3)]
    folder = write_synthetic(tmp_path / "made", [*listed, ("wolf", scene(950), trained)])
    (folder / "0000-a/00000.png").unlink()
    scene(901).save(folder / "0000-a/00001.png", compress_level=1)
    dataset = prepare(configure("folder", photos, synthetic=str(folder)), cache_dir=cache)
    told = "\n".join(dataset.notices)
    for reason in (
        "of a class that the data does not have",
        "whose file is missing",
        "without the mark of a synthetic image",
    ):
        assert f"{reason} 1" in told
    assert dataset.summary()["synthetic"] == 1


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (None, "cannot be read"),
        ("not JSON", "is damaged"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 2, "records": []}', "found format 2, allowed 1"),
        ('{"format": 1, "records": []}', "found no image that can be used"),
        (
            '{"format": 1, "records": [{"file": "../x.png", "class": "a", '
            '"sources": [{"digest": "00"}]}]}',
            "found a file outside the folder",
        ),
        (
            '{"format": 1, "records": [{"file": "x.png", "class": "a", "sources": []}]}',
            "without the images that it was made from",
        ),
    ],
)
def test_other_folders_are_refused(photos, tmp_path, cache, change, found):
    folder = tmp_path / "made"
    folder.mkdir()
    if change is not None:
        (folder / "synthetic.json").write_text(change)
    with pytest.raises(UserError, match=f"data.synthetic: .*{found}"):
        prepare(configure("folder", photos, synthetic=str(folder)), cache_dir=cache)


def test_rows_that_a_source_cuts_off_are_not_cut_off_synthetic_images(tmp_path, cache):
    """The photographer's line of FGVC-Aircraft; nothing black takes its place."""
    make_aircraft(tmp_path)
    files = sorted((tmp_path / "fgvc-aircraft-2013b" / "data" / "images").iterdir())
    for number, file in enumerate(files):
        scene(number).save(file, compress_level=1)
    folder = write_synthetic(tmp_path / "made", [("707-320", scene(99), [files[0]])])
    dataset = prepare(configure("aircraft", tmp_path, synthetic=str(folder)), cache_dir=cache)
    row = dataset.pool.paths.index(str(folder / "0000-707-320" / "00000.png"))
    assert row in dataset.train_index
    assert dataset.pool.sizes[[row, 0]].tolist() == [[96, 96], [96, 76]]
    expected = square(scene(99), dataset.pool.side)
    np.testing.assert_array_equal(dataset.pool.gather(np.array([row]))[0], expected)


def test_nothing_is_known_of_their_boxes(photos, tmp_path, cache):
    rows = ["file,label,xmin,ymin,xmax,ymax"]
    rows += [f"{name}/{index}.png,{name},1,2,30,40" for name in "ab" for index in range(10)]
    (photos / "list.csv").write_text("\n".join(rows))
    folder = of_each(photos, tmp_path / "made")
    data = configure("csv", photos / "list.csv", synthetic=str(folder), crop="box")
    dataset = prepare(data, cache_dir=cache)
    known = np.isfinite(dataset.annotations("pool").boxes).all(1)
    assert dataset.summary()["synthetic"] > 0
    assert known.sum() == len(dataset.pool) - dataset.summary()["synthetic"]


def test_digests_of_an_earlier_version_are_still_read(photos, tmp_path, cache):
    source = create_source(configure("folder", photos), cache)
    found = read_contents(source, cache)
    [file] = (cache / "digests").glob("*.arrow")
    table = pa.ipc.open_file(file.read_bytes()).read_all().drop_columns(["marked"])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    source.readers = None  # nothing is read again
    assert read_contents(source, cache) == found
    assert Contents([b"a", b"b", b"c"], {2: (0, 1)}, {0, 2}).rows([1, 2]) == Contents(
        [b"b", b"c"], {1: (0, 1)}, {1}
    )


def test_training_images_come_in_an_order_of_their_content(photos, tmp_path, cache):
    folder = of_each(photos, tmp_path / "made")
    data = configure("folder", photos, synthetic=str(folder))
    dataset = prepare(data, cache_dir=cache)
    found = training_images(dataset)
    paths = {image.path for images in found for image in images}
    assert paths == parts(dataset)["train"] - set(sources_of(folder, photos))
    for label, images in enumerate(found):
        assert [each.digest for each in images] == sorted(each.digest for each in images)
        for image in images:
            assert dataset.pool.labels[image.row] == label
            assert dataset.pool.paths[image.row] == image.path
