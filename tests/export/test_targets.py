"""Where an export goes: mounts, links, the current directory, and places that refuse it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gsfl_tune.bundles import files
from gsfl_tune.cli import main
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import export_run, load_bundle
from gsfl_tune.export import run as exporting
from gsfl_tune.run import RunDirectory


@pytest.fixture
def run(tmp_path, bundle_path) -> RunDirectory:
    """A run with a bundle."""
    run = RunDirectory(tmp_path / "a run")
    run.path.mkdir()
    run.experiment_file.write_text("name: zoo\ndata: {source: typefaces}\n")
    bundle_path.rename(run.best)
    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_current_directory_stays_where_it_is(run, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert main(["export", "../a run", "."]) == 0
    assert Path.cwd() == tmp_path / "out"
    assert names(Path.cwd()) == names(run.best)
    assert load_bundle(".").classes


def test_a_mounted_directory_is_filled(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    rename = os.rename

    def busy(source, target):
        if Path(source) == out or Path(target) == out:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(out))
        rename(source, target)

    monkeypatch.setattr(os, "rename", busy)
    export_run(run.path, out)
    assert names(out) == names(run.best)


def test_a_link_stays_a_link(run, tmp_path):
    (tmp_path / "large disk").mkdir()
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "large disk")
    export_run(run.path, out)
    assert out.is_symlink()
    assert names(tmp_path / "large disk") == names(run.best)


def test_a_place_below_a_file_is_refused_before_the_work(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(exporting, "load_bundle", lambda *given, **named: pytest.fail("it worked"))
    assert main(["export", str(run.path), str(tmp_path / "file" / "out")]) == 2
    said = f"OUT {tmp_path / 'file' / 'out'}: {tmp_path / 'file'} is a file, allowed is a directory"
    assert capsys.readouterr().err.strip().endswith(said)


def test_a_disk_that_fails_in_the_end_is_told(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        export_run(run.path, tmp_path / "file" / "out")


def test_what_was_there_is_back_if_its_successor_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "best"
    files.replace_directory(target, lambda folder: (folder / "a").write_text("old") and None)
    rename = os.rename

    def failing(source, given):
        if Path(source).name == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, given)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="Input/output"):
        files.replace_directory(target, lambda folder: (folder / "a").write_text("new") and None)
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["best"]
