from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.data import formats, load_square, prepare
from gsfl_tune.data.sources import FolderSource, create_source
from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.training import Workspace
from tests.data.conftest import configure, fill, picture, save


def listed(source):
    return sorted(
        (source.classes[sample.label], sample.part, sample.path.rsplit("/", 1)[-1])
        for sample in source.samples
    )


def test_class_folders_without_split(tmp_path):
    fill(tmp_path, {"b b": 1, "a": 2})
    save(tmp_path / "a" / "deeper" / "x.PNG", 9)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "._000.png").write_bytes(b"of a Mac")
    fill(tmp_path, {".hidden": 1, "__MACOSX": 1})
    source = FolderSource(str(tmp_path))
    assert source.classes == ["a", "b b"]
    assert listed(source) == [
        ("a", None, "000.png"),
        ("a", None, "001.png"),
        ("a", None, "x.PNG"),
        ("b b", None, "000.png"),
    ]
    assert not source.problems
    assert source.left_out == {".txt": 1, "hidden": 1, "in .hidden/": 1, "in __MACOSX/": 1}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path, name):
    fill(tmp_path, {"train/a": 1, "train/b": 1, f"{name}/a": 1, "test/b": 1})
    source = create_source(configure("folder", tmp_path), tmp_path)
    assert listed(source) == [
        ("a", "train", "000.png"),
        ("a", "validation", "000.png"),
        ("b", "test", "000.png"),
        ("b", "train", "000.png"),
    ]


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, {"train": 2, "tram": 2})
    assert FolderSource(str(tmp_path)).classes == ["train", "tram"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"train/a": 1, "train/b": 1, "tset/a": 1}, "neither val/ nor test/: tset"),
        ({"train/a": 1, "train/b": 1, "val/c": 1}, "classes that train/ does not have: c"),
        ({"test/a": 1, "val/a": 1}, "no train/ with class folders"),
        ({}, "no class folders"),
    ],
)
def test_wrong_layouts(tmp_path, folders, message):
    fill(tmp_path, folders)
    assert any(message in problem for problem in FolderSource(str(tmp_path)).problems)


def test_wrong_paths(tmp_path):
    with pytest.raises(UserError, match=r"data\.path is missing"):
        FolderSource(None)
    with pytest.raises(UserError, match="does not exist"):
        FolderSource(str(tmp_path / "nothing"))
    save(tmp_path / "file.png", 1)
    with pytest.raises(UserError, match="not a folder"):
        FolderSource(str(tmp_path / "file.png"))
    with pytest.raises(UserError, match="not a list"):
        FolderSource([str(tmp_path)])


def test_paths_may_be_relative_or_hold_variables(tmp_path, monkeypatch):
    fill(tmp_path / "images", {"a": 1, "b": 1})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", "images")
    for path in ("images", "~/images", "$WHERE", "${HOME}/$WHERE"):
        assert FolderSource(path).classes == ["a", "b"]


def kinds(source):
    return {(name, part) for name, part, _ in listed(source)}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train", "seg_test"),
        ("train_set", "test_set"),
        ("train_images", "test_images"),
        ("cars_train", "cars_test"),
        ("train", "testing"),
        ("trainval", "eval"),
        ("TrainImages", "TestImages"),
    ],
)
def test_split_words_anywhere_in_a_name(tmp_path, train, test):
    fill(tmp_path, {f"{train}/a": 1, f"{train}/b": 1, f"{test}/a": 1})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").touch()
    source = FolderSource(str(tmp_path))
    assert not source.problems
    assert kinds(source) == {("a", "train"), ("b", "train"), ("a", "test")}
    assert source.left_out == {".txt": 1}


def test_two_folders_that_may_be_the_training_part(tmp_path):
    fill(tmp_path, {"train_a/x": 1, "train_a/y": 1, "train_b/x": 1, "test/x": 1})
    (problem,) = FolderSource(str(tmp_path)).problems
    assert "train_a/, train_b/ look like the train part each" in problem


@pytest.mark.parametrize(
    ("twins", "part"),
    [
        (["train", "train_masks"], "train"),
        (["Training", "train_small"], "train"),
        (["train", "test", "test_blurred"], "test"),
        (["train", "val", "valid"], "validation"),
    ],
)
def test_a_second_folder_of_a_part_is_refused_beside_train(tmp_path, twins, part):
    fill(tmp_path, {f"{top}/{name}": 1 for top in twins for name in "ab"})
    (problem,) = FolderSource(str(tmp_path)).problems
    said = f"{twins[-2]}/, {twins[-1]}/ look like the {part} part each"
    assert problem.startswith(f"{tmp_path}: {said}")


def test_a_folder_of_annotations_of_a_part_is_no_second_one(tmp_path):
    fill(tmp_path, {"train/a": 1, "train/b": 1, "test/a": 1})
    (tmp_path / "train_labels" / "a").mkdir(parents=True)
    (tmp_path / "train_labels" / "a" / "000.txt").touch()
    source = FolderSource(str(tmp_path))
    assert not source.problems
    assert kinds(source) == {("a", "train"), ("b", "train"), ("a", "test")}


@pytest.mark.parametrize("name", ["train_test", "mytrain", "traintest"])
def test_a_folder_that_may_be_two_parts_is_refused(tmp_path, name):
    fill(tmp_path, {f"{name}/x": 1, f"{name}/y": 1, "other/x": 1})
    (problem,) = FolderSource(str(tmp_path)).problems
    assert f"{name}/ may be one part or another" in problem
    assert len(FolderSource(str(tmp_path), classes="path").classes) == 3


def test_classes_whose_names_hold_such_words(tmp_path):
    fill(tmp_path, {"bullet train/shinkansen": 1, "bullet train/tgv": 1, "car": 1, "ship": 1})
    source = FolderSource(str(tmp_path))
    assert source.classes == ["bullet train", "car", "ship"]
    assert not source.problems


def test_a_test_folder_alone_is_used_without_a_split(tmp_path):
    fill(tmp_path, {"test/a": 1, "test/b": 1})
    source = FolderSource(str(tmp_path))
    assert kinds(source) == {("a", None), ("b", None)}
    assert "used as images without a split" in source.notices[0]
    scored = FolderSource(str(tmp_path), scoring=True)
    assert kinds(scored) == {("a", "test"), ("b", "test")}


def test_scoring_knows_the_classes_of_the_test_part(tmp_path):
    fill(tmp_path, {"train/a": 1, "train/b": 1, "test/a": 1, "test/zebra": 1})
    source = FolderSource(str(tmp_path), scoring=True)
    assert source.classes == ["a", "b", "zebra"]
    assert ("zebra", "test") in kinds(source)


@pytest.mark.parametrize(
    ("folders", "meant"),
    [
        ({"images/cat": 2, "images/dog": 2, "masks/cat": 2}, "images"),
        ({"color/a": 2, "color/b": 2, "grayscale/a": 1, "segmented/a": 1}, "color"),
        ({"raw/a": 1, "raw/b": 1, "labels": 1}, "raw"),
    ],
)
def test_folders_that_are_no_classes_are_refused_with_what_is_meant(tmp_path, folders, meant):
    fill(tmp_path, folders)
    (problem,) = FolderSource(str(tmp_path)).problems
    assert "not like classes" in problem
    assert f"probably meant: data.path: {tmp_path / meant};" in problem
    # Somebody may want to tell them apart all the same.
    assert not FolderSource(str(tmp_path), classes="path").problems


def test_kinds_of_files_are_no_classes_although_a_class_lies_beside_them(tmp_path):
    fill(tmp_path, {f"{kind}/{name}": 1 for kind in ("images", "crops") for name in "ab"})
    fill(tmp_path, {"misc": 4, "images/a": 2}, seed=9000)
    (problem,) = FolderSource(str(tmp_path)).problems
    assert "crops/, images/ hold the same folders" in problem
    assert f"probably meant: data.path: {tmp_path / 'images'};" in problem


@pytest.mark.parametrize("inside", ["", "seg_train/"])
def test_a_folder_beside_parts_makes_them_no_classes(tmp_path, inside):
    """Kaggle's Intel images: what has no label lies in seg_pred/."""
    folders = {f"seg_train/{inside}{name}": 1 for name in "ab"}
    folders |= {f"seg_test/{inside.replace('train', 'test')}{name}": 1 for name in "ab"}
    fill(tmp_path, folders | {"seg_pred/seg_pred": 3})
    problem = FolderSource(str(tmp_path)).problems[0]
    assert (
        "seg_test/, seg_train/ are parts, and the folders beside them are not: seg_pred/" in problem
    )
    assert not FolderSource(str(tmp_path), classes="path").problems


def test_parts_inside_class_folders_are_refused(tmp_path):
    fill(tmp_path, {f"{name}/{part}": 2 for name in "abc" for part in ("train", "test")})
    (problem,) = FolderSource(str(tmp_path)).problems
    assert "the class folders hold folders that are called for parts: test/, train/" in problem
    assert "(train/CLASS/)" in problem


@pytest.mark.parametrize("images", ["", "/images"])
@pytest.mark.parametrize("above", ["", "train/"])
def test_masks_inside_class_folders_are_refused(tmp_path, images, above):
    """Kaggle's COVID-19 radiographs have images/ and masks/ in each class."""
    folders = {f"{above}{name}{images}": 2 for name in "ab"}
    fill(tmp_path, folders | {f"{above}{name}/masks": 2 for name in "ab"})
    (problem,) = FolderSource(str(tmp_path)).problems
    assert "the class folders hold masks/ beside their images" in problem


def test_finer_classes_may_have_such_names(tmp_path):
    fill(tmp_path, {"vehicle/train": 2, "vehicle/car": 2, "exam/test": 2, "exam/quiz": 2, "x": 2})
    fill(tmp_path, {"paper/labels": 2, "paper/cards": 2}, seed=9000)
    source = FolderSource(str(tmp_path))
    assert not source.problems
    assert source.classes == ["exam", "paper", "vehicle", "x"]


def test_the_path_that_is_meant_may_lie_deeper(tmp_path):
    fill(
        tmp_path, {f"archive/data/{part}/{name}": 1 for part in ("train", "test") for name in "ab"}
    )
    source = FolderSource(str(tmp_path))
    (problem,) = source.problems
    assert f"probably meant: data.path: {tmp_path / 'archive' / 'data'}" in problem
    # Leaves of the test part are no advice.
    assert not source.notices


def test_variants_side_by_side_are_pointed_out(tmp_path):
    fill(tmp_path, {f"{variant}/{name}": 1 for variant in ("uncut", "tight") for name in "abc"})
    source = FolderSource(str(tmp_path))
    assert source.classes == ["tight", "uncut"]
    assert "hold the same 3 folders" in source.notices[0]


def test_the_folder_of_pets_is_known(tmp_path):
    fill(tmp_path, {"images": 2, "annotations/trimaps": 2})
    for name in ("trainval", "test"):
        (tmp_path / "annotations" / f"{name}.txt").touch()
    (problem,) = FolderSource(str(tmp_path)).problems
    assert "the layout of Oxford-IIIT Pet; set data.source: pets" in problem


NESTED = {
    "train/Fruit/Apple/Golden": 1,
    "train/Fruit/Apple/Red": 1,
    "train/Fruit/Pear/Red": 1,
    "train/Milk/Oat": 1,
    "test/Fruit/Pear/Red": 1,
}


def test_nested_classes(tmp_path):
    fill(tmp_path, NESTED)
    top = FolderSource(str(tmp_path))
    assert top.classes == ["Fruit", "Milk"]
    assert "2 classes, the uppermost folders, whose images all lie in 4 folders" in top.notices[0]
    assert "`data.classes: leaf`" in top.notices[0]
    leaf = FolderSource(str(tmp_path), classes="leaf")
    assert leaf.classes == ["Golden", "Oat", "Red"]
    assert "Red" in leaf.problems[0]
    assert "Fruit/Apple/Red" in leaf.problems[0]
    path = FolderSource(str(tmp_path), classes="path")
    assert path.classes == ["Fruit/Apple/Golden", "Fruit/Apple/Red", "Fruit/Pear/Red", "Milk/Oat"]
    assert path.known_groups == ["Fruit/Apple", "Fruit/Apple", "Fruit/Pear", "Milk"]
    assert ("Fruit/Pear/Red", "test") in kinds(path)


def test_upper_folders_are_the_taxonomy(tmp_path):
    """One file, from its text to the groups that a training has."""
    fill(tmp_path / "shelf", {"Fruit/Apple": 5, "Fruit/Pear": 5, "Milk/Oat": 5, "Milk/Soy": 5})
    text = (
        f"name: shelf\ndata: {{path: '{tmp_path / 'shelf'}', image_size: 32, classes: leaf}}\n"
        "model: {backbone: test_efficientnet, weights: none, groups: {method: taxonomy}}\n"
    )
    for source in ("", "data: {source: folder,"):  # `auto` finds the same
        given = text.replace("data: {", source or "data: {")
        config = Experiment.parse(given, file="shelf.yaml").defaults()
        workspace = Workspace.open(config.data, cache_dir=tmp_path / "cache")
        assert workspace.dataset.classes == ["Apple", "Oat", "Pear", "Soy"]
        assert workspace.dataset.known_groups == ["Fruit", "Milk", "Fruit", "Milk"]
        assert workspace.groups(config).tolist() == [0, 1, 0, 1]
    # The uppermost folders have none above them.
    with pytest.raises(ExperimentError, match=r"folders above the classes \(data\.classes: leaf"):
        Experiment.parse(text.replace("leaf", "top"), file="shelf.yaml")


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    root = tmp_path / "data"
    fill(root, {"a": 4, "b": 4, "a/@eaDir": 3, ".thumbnails": 4})
    for name in ("a/Thumbs.db", "a/notes.txt", "b/more.txt", "b/nothing"):
        (root / name).write_text("no image")
    save(root / "stray.png", 99)
    picture(7).save(root / "a" / "unnamed", format="PNG")
    dataset = prepare(configure("folder", root), cache_dir=tmp_path / "cache")
    # A file without a suffix that begins like an image is one.
    assert sum(dataset.summary()["counts"].values()) == 9
    assert dataset.notices == [
        "left out: 12 files: in .thumbnails/ 4, in @eaDir/ 3, .txt 2, Thumbs.db 1, beside the "
        "class folders 1, no suffix 1"
    ]


def test_links_are_followed_and_circles_noticed(tmp_path):
    fill(tmp_path / "store", {"more": 2})
    fill(tmp_path / "data", {"a": 1, "b": 1})
    (tmp_path / "data" / "a" / "linked").symlink_to(tmp_path / "store" / "more")
    (tmp_path / "data" / "b" / "circle").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "b" / "x.png").symlink_to(tmp_path / "nothing")
    source = FolderSource(str(tmp_path / "data"))
    assert [name for name, _, _ in listed(source)] == ["a", "a", "a", "b"]
    assert source.left_out == {"links to a folder above them": 1, "links that lead nowhere": 1}


def test_a_name_is_the_same_composed_and_decomposed(tmp_path):
    composed, decomposed = "\u00c9pervier", "E\u0301pervier"
    fill(tmp_path, {f"train/{composed}": 1, "train/b": 1, f"test/{decomposed}": 1})
    source = FolderSource(str(tmp_path))
    assert not source.problems
    assert (composed, "test") in kinds(source)


def test_a_pointer_of_git_lfs_is_no_image(tmp_path):
    root = tmp_path / "data"
    fill(root, {"a": 4, "b": 4})
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (root / "a" / "x.png").write_text(pointer)
    dataset = prepare(configure("folder", root, max_broken=0.5), cache_dir=tmp_path / "cache")
    (broken,) = dataset.broken
    assert "a git-LFS pointer" in broken.reason


def test_reasons_come_before_what_is_missing(tmp_path):
    root = tmp_path / "data"
    fill(root, {"a": 4, "b": 4})
    for file in (root / "a").iterdir():
        file.write_bytes(f"junk {file.name}".encode())
    config = configure("folder", root, max_broken=1.0)
    with pytest.raises(UserError) as error:
        prepare(config, cache_dir=tmp_path / "cache").split  # noqa: B018
    lines = str(error.value).splitlines()
    assert lines[0].endswith("a/000.png: not an image that Pillow can read")
    assert "after 4 broken image(s) were skipped: 1 class has no images: a" in lines


def test_heic_of_phones_is_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    root = fill(tmp_path / "data", {"a": 4, "b": 4})
    smooth = Image.new("RGB", (64, 48), (200, 120, 40))
    pillow_heif.from_pillow(smooth).save(root / "a" / "phone.HEIC", quality=95)
    dataset = prepare(configure("folder", root), cache_dir=tmp_path / "cache")
    assert not dataset.broken
    every = [*dataset.pool.paths, *dataset.test.paths]
    assert sum(path.endswith("phone.HEIC") for path in every) == 1
    square, size = load_square(root / "a" / "phone.HEIC", 16)
    assert size == (64, 48)
    assert np.abs(square.astype(int) - (200, 120, 40)).max() <= 6


def test_without_the_package_heic_is_counted_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats.heif.cache_clear()
    try:
        fill(tmp_path, {"a": 1, "b": 1})
        (tmp_path / "a" / "phone.heic").write_bytes(b"not read")
        source = FolderSource(str(tmp_path))
        assert source.left_out == {".heic (needs the extra `heic`)": 1}
    finally:
        formats.heif.cache_clear()
