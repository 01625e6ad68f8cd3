"""`gsfl-tune cache`: what is there, what it takes, and what goes."""

from __future__ import annotations

import json
import os
import time

import pytest

from gsfl_tune.data import acquire


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GSFL_TUNE_CACHE_LIMIT", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "cache"
    for kind, name, size, days, what in (
        ("decoded", "d.arrow", 3_000_000, 40, "birds, 5,994 images, 258 px, crop"),
        ("features", "f.npy", 2000, 0, "tf_efficientnet_lite0, package, 224 px, birds, view 3"),
        ("features", "g.npy", 500, 3, "resnet50, imagenet, 224 px, birds"),
    ):
        path = folder / kind / name
        acquire(path, lambda p, s=size: p.write_bytes(b"x" * s) and None, what=what).close()
        seconds = time.time() - days * 86400
        os.utime(path.with_name(f"{name}.json"), (seconds, seconds))
    return folder


def left(cache):
    return {path.name for path in cache.rglob("*") if path.suffix in (".npy", ".arrow")}


def test_list_is_the_default_and_fits_80_columns(cache, command):
    answer = command("cache")
    assert answer.code == 0
    assert answer == command("cache", "list")
    *table, total = answer.out.splitlines()
    assert all(len(line) <= 80 for line in table)
    rows = [line for line in table if "birds" in line or "efficientnet" in line]
    assert rows[0].split()[:2] == ["features", "2.0"]
    assert "40 days ago" in answer.out
    assert "birds, 5,994 images, 258 px, crop" in answer.out
    assert total == f"3.0 MB in {cache}"


def test_texts_of_classes_are_listed_evicted_and_cleared(cache, command, monkeypatch):
    def embed(name, size):
        path = cache / "texts" / name
        acquire(path, lambda p: p.write_bytes(b"x" * size) and None, what="texts of birds").close()

    embed("t.npy", 700)
    assert "texts of birds" in command("cache").out
    kinds = json.loads(command("cache", "size", "--json").out)["kinds"]
    assert kinds["texts"] == {"entries": 1, "bytes": 700}
    os.utime(cache / "texts" / "t.npy.json", (0, 0))
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "3003000B")
    embed("u.npy", 500)
    assert not (cache / "texts" / "t.npy").exists()
    assert "removed 1 entries" in command("cache", "clear", "--kind", "texts", "--yes").out
    assert left(cache) == {"d.arrow", "f.npy", "g.npy"}


def test_list_says_what_is_in_use(cache, command):
    with acquire(cache / "features" / "g.npy", lambda path: None):
        (line,) = [line for line in command("cache").out.splitlines() if "resnet50" in line]
        assert line.rstrip().endswith("in use")
    states = {entry["what"]: entry["state"] for entry in json.loads(command("cache", "--json").out)}
    assert set(states.values()) == {"free"}


def test_size_has_totals_and_the_limit(cache, command, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "50GB")
    answer = command("cache", "size")
    words = [line.split() for line in answer.out.splitlines()]
    assert ["features", "2", "2.5", "kB"] in words
    assert ["all", "3", "3.0", "MB"] in words
    assert "limit: 50 GB (GSFL_TUNE_CACHE_LIMIT)" in answer.out
    sizes = json.loads(command("cache", "size", "--json").out)
    assert sizes["kinds"]["features"] == {"entries": 2, "bytes": 2500}
    assert sizes["limit"] == 50 * 10**9


def test_clear_removes_everything_and_says_what_it_freed(cache, command):
    answer = command("cache", "clear", "--yes")
    assert (answer.code, answer.out) == (0, "removed 3 entries, freed 3.0 MB\n")
    assert left(cache) == set()
    assert "empty" in command("cache").out


def test_clear_one_kind_or_what_is_old(cache, command):
    assert "removed 1 entries" in command("cache", "clear", "--older-than", "30d", "--yes").out
    assert left(cache) == {"f.npy", "g.npy"}
    arguments = ("--kind", "features", "--older-than", "2d", "--yes", "--json")
    answer = command("cache", "clear", *arguments)
    assert json.loads(answer.out) == {"removed": 1, "bytes": 500, "in_use": 0}
    assert left(cache) == {"f.npy"}


def test_clear_keeps_what_is_in_use(cache, command):
    with acquire(cache / "features" / "g.npy", lambda path: None):
        answer = command("cache", "clear", "--yes")
    assert answer.code == 0
    assert "removed 2 entries" in answer.out
    assert "kept 1" in answer.out
    assert left(cache) == {"g.npy"}


def test_clear_does_not_guess_without_a_terminal(cache, command):
    answer = command("cache", "clear")
    assert answer.code == 2
    assert "remove 3 entries (3.0 MB)" in answer.err
    assert "--yes" in answer.err
    assert len(left(cache)) == 3


def test_what_is_wrong_is_the_users_error(cache, command, monkeypatch):
    answer = command("cache", "--kind", "feature")
    assert answer.code == 2
    assert answer.err.startswith("--kind: found 'feature', allowed decoded, features")
    monkeypatch.setenv("GSFL_TUNE_CACHE_LIMIT", "lots")
    answer = command("cache", "size")
    assert answer.code == 2
    assert answer.err.startswith("GSFL_TUNE_CACHE_LIMIT: found 'lots', allowed")
