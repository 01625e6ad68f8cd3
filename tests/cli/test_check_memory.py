"""Answers of `check` that are kept: what they are kept for, and when they are asked anew.

That a second check imports neither PyTorch nor timm is asked in test_import_cost.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.cli import _check_memory, main

TEXT = """\
name: tiny
data: {source: typefaces, image_size: 32}
model: {backbone: test_efficientnet, weights: none, dropout: {choice: [0.1, 0.2]}}
search: {trials: 4}
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checks"


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return path


def checked(capsys: Any, *arguments: object) -> str:
    assert main(["check", *map(str, arguments)]) == 0
    return str(capsys.readouterr().out)


def test_damaged_and_older_files_are_ignored(file, cache, capsys):
    first = checked(capsys, file)
    (kept,) = cache.glob("*.json")
    whole = json.loads(kept.read_text())
    older = {"notes": [], "price": {}}
    for content in ("", "{", "[]", "null", json.dumps(older), json.dumps(whole | {"rows": None})):
        kept.write_text(content)
        assert checked(capsys, file) == first
        assert json.loads(kept.read_text()) == whole


def test_another_experiment_and_another_number_of_images_are_checked_anew(
    tmp_path, cache, capsys, pictures
):
    path = tmp_path / "photos.yaml"
    path.write_text(
        f"name: photos\ndata: {{path: {pictures}, image_size: 32}}\n"
        "model: {backbone: test_efficientnet, weights: none}\n"
    )
    first = checked(capsys, path)
    checked(capsys, path, "--set", "search.trials=7")
    assert len(list(cache.glob("*.json"))) == 2
    some = next(pictures.rglob("*.png"))
    (some.parent / "further.png").write_bytes(some.read_bytes())
    assert "13 images" in checked(capsys, path)
    assert "12 images" in first
    assert len(list(cache.glob("*.json"))) == 3


@pytest.fixture
def pictures(tmp_path) -> Path:
    from PIL import Image

    for name in ("one", "two"):
        for number in range(6):
            place = tmp_path / "photos" / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (40 * number, 10, 99)).save(place)
    return tmp_path / "photos"


def test_problems_are_said_each_time_and_not_kept(file, cache, capsys):
    for _ in range(2):
        assert main(["check", str(file), "--set", "model.backbone=nonesuch"]) == 2
        assert "nonesuch" in capsys.readouterr().err
    assert not cache.exists()


def test_experiments_that_name_further_files_are_checked_anew(file, cache, tmp_path, capsys):
    import torch

    from gsfl_tune.models import create_backbone

    weights = tmp_path / "own.pt"
    torch.save(create_backbone("test_efficientnet", "none").model.state_dict(), weights)
    checked(capsys, file, "--set", f"model.weights={weights}")
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_stops_no_check(file, tmp_path, monkeypatch, capsys):
    (tmp_path / "in the way").write_text("")
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "in the way"))
    assert "valid, experiment tiny" in checked(capsys, file)


def test_only_the_latest_answers_are_kept(file, cache, monkeypatch, capsys):
    monkeypatch.setattr(_check_memory, "_MOST", 2)
    made: list[Path] = []
    for trials in (5, 6, 7):
        checked(capsys, file, "--set", f"search.trials={trials}")
        [new] = set(cache.glob("*.json")) - set(made)
        made.append(new)
        os.utime(new, (1e9 + trials,) * 2)
    assert set(cache.glob("*.json")) == set(made[1:])


@pytest.mark.parametrize("part", ["_machine", "_code", "_files"])
def test_another_machine_other_code_and_other_files_are_checked_anew(
    file, cache, monkeypatch, capsys, part
):
    checked(capsys, file)
    monkeypatch.setattr(_check_memory, part, lambda *_: "other")
    checked(capsys, file)
    assert len(list(cache.glob("*.json"))) == 2


def test_nodes_of_other_gpus_do_not_share_an_answer(file, cache, monkeypatch, capsys, tmp_path):
    """Their caches may be one folder; another GPU may be too small for the model."""
    monkeypatch.setattr(_check_memory, "_GPUS", tmp_path / "gpus")

    def node(model: str, bus: str) -> int:
        shutil.rmtree(tmp_path / "gpus", ignore_errors=True)
        (tmp_path / "gpus" / bus).mkdir(parents=True)
        about = f"Model: \t\t {model}\nIRQ:   \t\t 99\nBus Location: \t {bus}\n"
        (tmp_path / "gpus" / bus / "information").write_text(about)
        checked(capsys, file)
        return len(list(cache.glob("*.json")))

    assert node("NVIDIA A100-SXM4-40GB", "0000:01:00.0") == 1
    assert node("NVIDIA A100-SXM4-40GB", "0000:41:00.0") == 1
    assert node("NVIDIA A100-SXM4-80GB", "0000:01:00.0") == 2


def test_a_check_lists_a_folder_once(tmp_path, cache, capsys, pictures, monkeypatch):
    path = tmp_path / "photos.yaml"
    path.write_text(
        f"name: photos\ndata: {{source: folder, path: {pictures}, image_size: 32}}\n"
        "model: {backbone: test_efficientnet, weights: none}\n"
    )
    first = checked(capsys, path)
    walked: list[str] = []
    walk = os.scandir
    monkeypatch.setattr(os, "scandir", lambda each: (walked.append(str(each)), walk(each))[1])
    assert checked(capsys, path) == first
    assert walked.count(str(pictures / "one")) == 1
