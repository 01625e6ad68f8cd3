"""Layouts of much used archives, which would be read as other classes."""

from __future__ import annotations

import pytest

from gsfl_tune.data.sources import FolderSource, create_source, detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, save

NAMES = [f"ISIC_{number:04d}" for number in range(8)]


def labels_of(source):
    return [source.classes[sample.label] for sample in source.samples]


def test_a_table_and_pieces_of_one_folder_of_images(tmp_path, cache):
    """HAM10000: both folders hold images of all classes."""
    for number, name in enumerate(NAMES):
        save(tmp_path / f"HAM10000_images_part_{1 + number // 4}" / f"{name}.png", number)
    rows = [f"HAM_{n // 2},{name},{'ab'[n // 2 % 2]},histo,40" for n, name in enumerate(NAMES)]
    header = "lesion_id,image_id,dx,dx_type,age"
    (tmp_path / "HAM10000_metadata.csv").write_text("\n".join([header, *rows]))
    assert detect_source(str(tmp_path)) == "csv"
    source = create_source(configure("auto", tmp_path, label_column="dx"), cache)
    assert labels_of(source) == ["a", "a", "b", "b"] * 2
    # Without the table they are no classes either.
    (problem,) = FolderSource(str(tmp_path)).problems
    assert "HAM10000_images_part_1/, HAM10000_images_part_2/ look like kinds of files" in problem


def test_a_table_that_cannot_be_read_is_not_replaced_by_pieces_of_a_folder(tmp_path, cache):
    """NIH's chest radiographs: the labels are in one of three columns."""
    for number, name in enumerate(NAMES):
        save(tmp_path / f"images_{1 + number // 4:03d}" / "images" / f"{name}.png", number)
    rows = [f"{name}.png,{'ab'[n % 2]},0,{n}" for n, name in enumerate(NAMES)]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID"
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join([header, *rows]))
    with pytest.raises(UserError, match=r"labels: Finding Labels, .* data\.label_column names"):
        create_source(configure("auto", tmp_path), cache)
    chosen = configure("auto", tmp_path, label_column="Finding Labels")
    assert labels_of(create_source(chosen, cache)) == ["a", "b"] * 4


def test_numbered_classes_are_classes(tmp_path):
    fill(tmp_path, {"part_1": 1, "part_2": 1})
    source = FolderSource(str(tmp_path))
    assert not source.problems
    assert source.classes == ["part_1", "part_2"]


def test_the_class_folders_once_more_in_a_folder_beside_them(tmp_path):
    """Flowers Recognition: flowers/ holds all classes again."""
    fill(tmp_path, {f"{above}{name}": 1 for above in ("", "flowers/") for name in "abcd"})
    (problem,) = FolderSource(str(tmp_path)).problems
    assert "flowers/ holds folders of the same names as the class folders beside it" in problem


def test_ids_with_a_code(tmp_path, cache):
    """APTOS: train.csv with `id_code`, and a test part without labels."""
    for number, name in enumerate(NAMES):
        save(tmp_path / "train_images" / f"{name}.png", number)
    save(tmp_path / "test_images" / "t.png", 99)
    rows = [f"{name},{number % 2}" for number, name in enumerate(NAMES)]
    (tmp_path / "train.csv").write_text("\n".join(["id_code,diagnosis", *rows]))
    (tmp_path / "test.csv").write_text("id_code\nt\n")
    source = create_source(configure("auto", tmp_path), cache)
    assert labels_of(source) == ["0", "1"] * 4
    assert source.left_out == {"without a label (test part)": 1}


def test_a_column_of_class_ids(tmp_path, cache):
    """GTSRB of Kaggle: `ClassId` beside sizes and four columns of boxes."""
    header = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"
    for part in ("Train", "Test"):
        files = [f"{part}/{number}.png" for number in range(4)]
        for number, file in enumerate(files):
            save(tmp_path / file, number + 10 * (part == "Test"))
        rows = [f"20,16,2,2,9,9,{number % 2},{file}" for number, file in enumerate(files)]
        (tmp_path / f"{part}.csv").write_text("\n".join([header, *rows]))
    source = create_source(configure("csv", tmp_path), cache)
    assert labels_of(source) == ["0", "1"] * 4
    assert [sample.part for sample in source.samples] == ["test"] * 4 + ["train"] * 4
