"""Folders that cannot be read and places that cannot be written: one message, and exit code 2."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.data.conftest import fill
from tests.export.conftest import CLASSES

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """The command writes into the current directory."""
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def folder(tmp_path) -> Path:
    return fill(tmp_path / "pets", dict.fromkeys(CLASSES[:3], 8))


@pytest.fixture
def ask(command, bundle_path, folder, here):
    """Runs a command of each kind that lists the images of a folder."""
    (here / "x.yaml").write_text(f"name: x\ndata: {{source: folder, path: '{folder}'}}\n")

    def run(name):
        words = {
            "data": ["data", folder],
            "init": ["init", folder, "-o", "new.yaml"],
            "check": ["check", "x.yaml"],
            "evaluate": ["evaluate", bundle_path, folder],
            "embed": ["embed", bundle_path, folder, "-o", "f.parquet"],
        }
        return command(*words[name])

    return run


COMMANDS = ["data", "init", "check", "evaluate", "embed"]


def refused(answer, name: str, said: str) -> None:
    if name == "check":
        # It says what it knows of a file whose images are elsewhere.
        assert (answer.code, f"Warning: {said}" in answer.out) == (0, True), answer
        return
    assert (answer.code, answer.err.splitlines()[-1]) == (2, said)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_link_to_itself_is_named(ask, folder, name):
    place = folder / CLASSES[0] / "again.png"
    place.symlink_to(place.name)
    refused(ask(name), name, f"{place} cannot be read: Too many levels of symbolic links")


@pytest.mark.skipif(ROOT, reason="root may read every folder")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_without_the_right_to_read_is_named(ask, folder, name):
    place = folder / CLASSES[0]
    place.chmod(0)
    try:
        refused(ask(name), name, f"{place} cannot be read: Permission denied")
    finally:
        place.chmod(0o755)


def test_a_name_that_no_disk_holds_is_refused(command):
    name = "a" * 300
    answer = command("data", name)
    assert (answer.code, answer.err) == (2, f"{name} cannot be read: File name too long\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sheet", "folder"], "--sheet folder: is a directory, allowed is a file"),
        (["--sheet", "file/a.png"], "--sheet file/a.png: file is a file, allowed is a directory"),
        (["--samples", "file"], "--samples file: is a file, allowed is a directory"),
        (["--issues", "--out", "file"], "--out file: is a file, allowed is a directory"),
        (
            ["--issues", "--out", "taken"],
            f"--out {Path('taken', 'issues.csv')}: is a directory, allowed is a file",
        ),
    ],
)
def test_a_place_that_is_taken_is_refused_before_the_work(command, folder, here, words, said):
    (here / "folder").mkdir()
    (here / "file").write_text("mine")
    (here / "taken" / "issues.csv").mkdir(parents=True)
    answer = command("data", folder, *words)
    assert (answer.code, answer.out, answer.err) == (2, "", f"{said}\n")
    assert (here / "file").read_text() == "mine"
    assert not list(here.glob("*.png"))


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--sheet pets-contact-sheet.png: cannot be written"),
        (["--samples", "some"], "--sheet pets-contact-sheet.png: cannot be written"),
        (["--issues"], "--out pets-issues: cannot be written"),
    ],
)
def test_a_current_directory_that_is_not_ours_is_refused(command, folder, here, words, said):
    here.chmod(0o555)
    try:
        answer = command("data", folder, *words)
    finally:
        here.chmod(0o755)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(said)


def test_what_only_shows_at_the_end_is_one_message_too(command, folder, here):
    name = f"{'b' * 300}.png"
    answer = command("data", folder, "--sheet", name)
    assert answer.code == 2
    assert answer.err.endswith(f"{name}: cannot be written (File name too long)\n")


def test_a_sheet_is_written_over_and_folders_are_made(command, folder, here):
    (here / "sheet.png").write_bytes(b"old")
    words = ("--sheet", "sheet.png", "--samples", "new/some", "--json")
    answer = command("data", folder, *words)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["samples"] == str(here / "new" / "some")
    assert (here / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((here / "new" / "some").iterdir())) == 3
