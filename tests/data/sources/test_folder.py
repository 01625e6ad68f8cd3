from __future__ import annotations

import pytest

from gsfl_tune.data.sources import FolderSource, create_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, save


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
