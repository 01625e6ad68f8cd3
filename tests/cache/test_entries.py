"""What a cache keeps, what it lets go of, and what it says when it cannot."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import textwrap
import time

import pytest

from gsfl_tune.cache import acquire
from gsfl_tune.cache import entries as entries_module
from gsfl_tune.cache.entries import cache_limit, entries, make_room, parse_limit, remove, sweep
from gsfl_tune.experiment.errors import EnvironmentProblem, UserError

from .processes import python


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("GSFL_TUNE_CACHE_LIMIT", raising=False)
    return tmp_path / "cache"


def keep(cache, name, size=1000, kind="features", **options):
    """Builds an entry and lets go of it; one second after the one before."""
    path = cache / kind / name
    acquire(path, lambda target: target.write_bytes(b"x" * size) and None, **options).close()
    seconds = time.time() - 1000 + len(list(cache.rglob("*.json")))
    os.utime(path.with_name(f"{name}.json"), (seconds, seconds))
    return path


def names(cache):
    return {entry.path.name for entry in entries(cache)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, 0.5),
        ("50GB", 50 * 10**9),
        (" 1.5 tb", 1_500_000_000_000),
        ("2 GiB", 2 * 1024**3),
        ("700B", 700),
        ("20%", 0.2),
        ("none", None),
    ],
)
def test_limits(text, expected):
    assert parse_limit(text) == expected


@pytest.mark.parametrize("text", ["50", "much", "-1GB", "0GB", "0%", "120%", "nanGB", "1 GB 2"])
def test_what_is_no_limit_is_refused_before_anything_is_built(cache, monkeypatch, text):
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", text)
    with pytest.raises(UserError, match=r"GSFL_TUNE_CACHE_LIMIT: found .* allowed .* 50GB"):
        acquire(cache / "features" / "a", lambda path: path.touch())
    assert not cache.exists()


def test_the_default_limit_is_half_a_disk_but_at_most_100_gb(cache, monkeypatch):
    limit = cache_limit(cache)
    assert limit is not None
    assert 0 < limit <= 100 * 10**9
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "100%")
    assert cache_limit(cache) >= 2 * limit or limit == 100 * 10**9


def test_what_was_not_used_for_longest_goes_first(cache, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "3500B")
    for name in ("a", "b", "c"):
        keep(cache, name)
    acquire(cache / "features" / "a", lambda path: pytest.fail("it is there")).close()
    keep(cache, "d")
    assert names(cache) == {"a", "c", "d"}
    # Nothing else stays of it.
    assert not list(cache.rglob("b*"))


def test_small_and_large_kinds_share_one_limit(cache, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "10kB")
    keep(cache, "images", 6000, "decoded")
    keep(cache, "groups", 100, "groups")
    keep(cache, "features", 6000)
    assert names(cache) == {"groups", "features"}


def test_room_is_made_before_a_file_is_written_whose_size_is_known(cache, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "3kB")
    keep(cache, "old", 2000)

    def build(path):
        assert names(cache) == set()
        path.write_bytes(b"x" * 2000)

    acquire(cache / "features" / "new", build, size=2000)
    assert names(cache) == {"new"}


def test_a_directory_is_an_entry_like_a_file(cache, monkeypatch):
    def build(path):
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "file").write_bytes(b"x" * 1000)

    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "1500B")
    acquire(cache / "prefix" / "folder", build).close()
    assert [entry.size for entry in entries(cache)] == [1000]
    keep(cache, "other")
    assert names(cache) == {"other"}


def test_what_this_process_reads_stays_until_the_reader_is_gone(cache, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "1500B")

    class Reader:
        pass

    reader = Reader()
    lock = acquire(cache / "features" / "read", lambda path: path.write_bytes(b"x" * 1000) and None)
    lock.keep_with(reader)
    del lock
    keep(cache, "other")
    assert names(cache) == {"read", "other"}
    assert {entry.state for entry in entries(cache) if entry.path.name == "read"} == {"in use"}
    del reader
    make_room(cache)
    assert len(names(cache)) == 1


USER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from gsfl_tune.cache.building import acquire

    lock = acquire(Path(sys.argv[1]), lambda path: None)
    print("in use", flush=True)
    sys.stdin.read()
    """
)


def test_what_another_process_uses_is_never_removed_until_it_dies(cache, monkeypatch):
    path = keep(cache, "used")
    user = python(USER, path)
    try:
        assert user.stdout is not None
        assert user.stdout.readline() == "in use\n"
        monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "1500B")
        keep(cache, "other")
        (entry,) = [entry for entry in entries(cache) if entry.path == path]
        assert entry.state == "in use"
        assert not remove(entry)
        assert path.exists()
    finally:
        os.kill(user.pid, signal.SIGKILL)
        user.communicate(timeout=60)
    assert remove(entry)
    assert names(cache) == {"other"}


CHURN = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from gsfl_tune.cache import locks
    from gsfl_tune.cache.entries import entries, remove
    from gsfl_tune.cache.building import acquire

    locks.NOTICE_SECONDS = 600
    cache, role = Path(sys.argv[1]), sys.argv[2]
    path, removed, built = cache / "features" / "a", 0, 0
    done = cache / "done"

    def build(target):
        global built
        built += 1
        with target.open("w") as file:
            file.write("first half, ")
            file.flush()
            file.write("second half")

    while not done.exists():
        if role == "remove":
            removed += sum(remove(entry) for entry in entries(cache))
            if removed >= 30:
                done.touch()
        else:
            with acquire(path, build) as there:
                assert there.read_text() == "first half, second half", there.read_text()
    print(removed if role == "remove" else built)
    """
)


def test_opening_never_meets_a_removal_halfway(cache):
    cache.mkdir()
    processes = [python(CHURN, cache, role) for role in ("remove", "read", "read")]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [error for _, error in outputs] == ["", "", ""]
    removed, *built = [int(output) for output, _ in outputs]
    assert removed <= sum(built) <= removed + 1


def test_an_entry_above_the_limit_is_built_with_a_notice(cache, monkeypatch, caplog):
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "1kB")
    lock = acquire(
        cache / "features" / "big",
        lambda path: path.write_bytes(b"x" * 5000) and None,
        what="resnet50, birds",
        size=5000,
    )
    assert lock.path.stat().st_size == 5000
    assert "features (resnet50, birds) takes 5.0 kB, more than the whole cache" in caplog.text
    assert "GSFL_TUNE_CACHE_LIMIT: 1.0 kB" in caplog.text


def test_a_disk_that_is_too_small_is_told_before_anything_is_written_or_evicted(cache):
    keep(cache, "kept")
    with pytest.raises(EnvironmentProblem) as caught:
        acquire(
            cache / "features" / "a",
            lambda path: pytest.fail("nothing can be written"),
            what="resnet50, birds",
            size=10**18,
        )
    assert str(cache) in str(caught.value)
    assert "features (resnet50, birds) takes 1000000 TB" in str(caught.value)
    assert "GSFL_TUNE_CACHE" in str(caught.value)
    assert names(cache) == {"kept"}


def test_a_disk_that_fills_up_is_the_machines_problem_and_names_the_cache(cache):
    def build(path):
        path.write_text("half")
        with open("/dev/full", "w") as file:
            file.write("x")

    with pytest.raises(EnvironmentProblem) as caught:
        acquire(cache / "features" / "a", build)
    assert str(cache) in str(caught.value)
    assert "No space left" in str(caught.value)
    assert "GSFL_TUNE_CACHE names another one" in str(caught.value)
    assert names(cache) == set()
    assert not list(cache.rglob("a*.tmp"))
    assert not list(cache.rglob("*.json"))


def test_errors_of_other_files_stay_what_they_are(cache, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        acquire(cache / "features" / "a", lambda path: (tmp_path / "gone").read_bytes() and None)


def test_leftovers_are_swept_and_living_builders_are_not(cache):
    folder = cache / "features"
    folder.mkdir(parents=True)
    for name in ("dead.1.tmp", "gone.npy.1-evicted.tmp", "old.lock", "old.json", "alive.2.tmp"):
        (folder / name).write_text("{}")
    (cache / "elsewhere").mkdir()
    (cache / "elsewhere" / "mine.1.tmp").touch()
    descriptor = os.open(folder / "alive.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert [(e.path.name, e.state) for e in entries(cache)] == [("alive", "building")]
        sweep(cache)
        assert {path.name for path in folder.iterdir()} == {"alive.2.tmp", "alive.lock"}
    finally:
        os.close(descriptor)
    sweep(cache)
    assert not list(folder.iterdir())
    assert (cache / "elsewhere" / "mine.1.tmp").exists()


def test_what_others_keep_beside_a_cache_is_left_alone(cache, monkeypatch):
    for other in (cache / "notes.txt", cache / "mine" / "data.npy"):
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(b"x" * 10_000)
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "1B")
    keep(cache, "a")
    keep(cache, "b")
    assert (cache / "notes.txt").exists()
    assert (cache / "mine" / "data.npy").exists()
    assert names(cache) == {"b"}


def test_without_locks_everything_works_and_nothing_is_evicted(cache, monkeypatch, caplog):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(entries_module, "_said", set())
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "1500B")
    keep(cache, "a")
    keep(cache, "b")
    assert names(cache) == {"a", "b"}
    assert "more than its limit" in caplog.text


def test_removing_a_file_by_hand_while_it_is_read_holds_nobody_up(cache):
    lock = acquire(cache / "features" / "a", lambda path: path.write_text("one") and None)
    lock.path.unlink()
    with acquire(cache / "features" / "a", lambda path: path.write_text("two") and None) as again:
        assert again.read_text() == "two"
    lock.close()
