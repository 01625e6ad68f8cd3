"""The disk below a run directory fills up, turns read-only or vanishes while a search runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Watcher
from gsfl_tune.search.study.journal import read_studies
from tests.search.experiments import experiment, searched, states

OVERRIDES = (
    "search.trials=5",
    "search.scheduler.name=none",
    "search.sampler.name=random",
    "training.head.epochs=20",
)


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


class Disk:
    """A file system of 30 MB, mounted where a run is."""

    def __init__(self, folder: Path) -> None:
        self.store, self.mount = folder / "store", folder / "mount"
        self.store.mkdir()
        self.mount.mkdir()
        _run("mount", "-t", "tmpfs", "-o", "size=30m", "none", self.store)
        _run("mount", "--bind", self.store, self.mount)

    def fill(self) -> None:
        with suppress(OSError), (self.store / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    def empty(self) -> None:
        (self.store / "ballast").unlink()

    def write_protect(self) -> None:
        _run("mount", "-o", "remount,bind,ro", self.mount)

    def allow_writing(self) -> None:
        _run("mount", "-o", "remount,bind,rw", self.mount)

    def vanish(self) -> None:
        _run("umount", "-l", self.mount)

    def come_back(self) -> None:
        for path in sorted(self.mount.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        _run("mount", "--bind", self.store, self.mount)

    def close(self) -> None:
        for folder in (self.mount, self.store):
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        disk = Disk(tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("may not mount")
    yield disk
    disk.close()


@pytest.mark.parametrize(
    ("spoil", "mend", "word"),
    [
        pytest.param("fill", "empty", "No space left", marks=pytest.mark.slow),
        pytest.param("write_protect", "allow_writing", "Read-only", marks=pytest.mark.slow),
        pytest.param("vanish", "come_back", "No such file", marks=pytest.mark.slow),
    ],
)
def test_a_search_on_a_disk_that_fails_stops_and_goes_on_when_it_is_mended(
    ray_of_tests: None,
    disk: Disk,
    cache_dir: Path,
    one_slot: Slots,
    tmp_path: Path,
    spoil: str,
    mend: str,
    word: str,
) -> None:
    run = RunDirectory(disk.mount / "run")
    kept = RunDirectory(disk.store / "run")
    before: list[Any] = []

    class Saboteur(Watcher):
        def ended(self, number: int) -> None:
            if number == 1:
                before.extend(trial.value for trial in read_studies(run.journal)["search"][:2])
                getattr(disk, spoil)()

    options: dict[str, Any] = {"resources": one_slot, "cache_dir": cache_dir}
    with pytest.raises((EnvironmentProblem, OSError), match=word):
        searched(experiment(*OVERRIDES), run, watchers=[Saboteur()], **options)
    getattr(disk, mend)()
    trials = read_studies(kept.journal)["search"]
    assert [trial.value for trial in trials[:2]] == before
    assert not any(trial.state.name == "FAIL" for trial in trials)
    mended = states(searched(experiment(*OVERRIDES), run, **options).study)
    whole = RunDirectory(tmp_path / "whole")
    assert mended == states(searched(experiment(*OVERRIDES), whole, **options).study)
