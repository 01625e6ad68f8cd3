"""Images that are the same picture by their features, and no copies to the eye."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.experiment.config import Config, ModelConfig
from gsfl_tune.issues import alike as module
from gsfl_tune.issues import find_issues
from gsfl_tune.issues._base import Images
from gsfl_tune.issues.alike import alike, alike_limit
from tests.data.conftest import configure


class Part:
    """Paths and labels of images, without pixels."""

    def __init__(self, labels):
        self.paths = [f"{number}.jpg" for number in range(len(labels))]
        self.labels = np.asarray(labels)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def features(near, count=60, seed=0):
    """Unit features in clusters, and the last ones as near to the first as `near` says."""
    random = np.random.default_rng(seed)
    middles = random.normal(size=(6, 24))
    rows = middles[np.arange(count) % 6] + 0.8 * random.normal(size=(count, 24))
    copies = rows[: len(near)] + np.asarray(near)[:, None] * random.normal(size=(len(near), 24))
    return unit(np.concatenate([rows, copies]))


def images(labels, parts=None):
    names = parts or ["train"] * len(labels)
    return Images([(Part(labels), names)], ["a", "b"])


def test_what_was_hardly_changed_is_found_with_what_it_is_of():
    f = features([0.05, 0.05, 0.9])
    labels = [number % 2 for number in range(60)] + [0, 0, 0]
    parts = ["train"] * 60 + ["test", "train", "train"]
    found = alike(images(labels, parts), f, np.arange(63))
    sets = {}
    for issue in found:
        sets.setdefault(issue.set_number, []).append(issue.path)
    assert sorted(sets.values()) == [["0.jpg", "60.jpg"], ["1.jpg", "61.jpg"]]
    first, second = (
        next(each for each in found if each.path == path) for path in ("0.jpg", "1.jpg")
    )
    # Labels that contradict each other weigh more than parts.
    assert second.suggestion == "compare the labels"
    assert first.suggestion == "keep in one part"
    assert second.score > first.score
    assert first.reason == "alike by its features: 60.jpg (a, test)"


def test_of_different_things_in_one_place_none_is_suggested_to_go():
    """Each image is alike the next one, the first and the last are not."""
    steps = np.linspace(0, 1.2, 13)[:, None]
    chain = np.concatenate([np.cos(steps), np.sin(steps), np.zeros((13, 22))], 1)
    f = np.concatenate([features([]), unit(chain)])
    found = alike(images([0] * 73), f, np.arange(73))
    found = [each for each in found if int(each.path.removesuffix(".jpg")) >= 60]
    assert len({each.set_number for each in found}) == 1
    assert len(found) == 13
    assert float(chain[0] @ chain[-1]) < alike_limit(f, np.arange(73))
    assert {each.suggestion for each in found} == {""}


def inner_of(width, height, share):
    edges = (share * width, share * height, (1 - share) * width, (1 - share) * height)
    return tuple(round(edge) for edge in edges)


@pytest.mark.skipif("GSFL_TUNE_REAL_DATA" not in os.environ, reason="needs real photographs")
def test_changed_photographs_are_listed_with_the_originals(tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    [test] = Path(os.environ["GSFL_TUNE_REAL_DATA"], "clothing").glob("*test*.parquet")
    contents = [row["bytes"] for row in pq.read_table(test).column("image").to_pylist()[:90]]
    for number, content in enumerate(contents):
        image = Image.open(io.BytesIO(content)).convert("RGB")
        folder = tmp_path / "photos" / f"class {number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number:02d}.jpg", quality=95)
        w, h = image.size
        if number < 3:
            mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mirrored.save(folder / f"mirrored-{number}.jpg", quality=95)
        elif number < 6:
            image.crop(inner_of(w, h, 0.03)).save(folder / f"cut-{number}.jpg", quality=95)
        elif number < 9:
            turned = image.rotate(4, Image.Resampling.BICUBIC)
            turned.crop(inner_of(w, h, 0.06)).save(folder / f"turned-{number}.jpg", quality=95)
    data = configure("folder", tmp_path / "photos").model_copy(update={"image_size": 224})
    model = ModelConfig(backbone="tf_efficientnet_lite0", weights="package")
    dataset = prepare(data, cache_dir=tmp_path / "cache")
    found = find_issues(dataset, Config(name="t", data=data, model=model))
    wanted = {
        "near_duplicate": [{f"{n:02d}", f"{'mirrored' if n < 3 else 'cut'}-{n}"} for n in range(6)],
        # What is no copy to the eye.
        "alike": [{f"{n:02d}", f"turned-{n}"} for n in range(6, 9)],
    }
    for kind, pairs in wanted.items():
        sets = {}
        for issue in found.of(kind):
            sets.setdefault(issue.set_number, set()).add(Path(issue.path).stem)
        assert sum(each in sets.values() for each in pairs) >= len(pairs) - 1, kind
        # Hardly anything else is.
        assert len(found.of(kind)) <= 2 * len(pairs) + 2


def test_copies_to_the_eye_are_listed_elsewhere_and_move_no_limit():
    f = features([0.05])
    numbers = np.arange(61)
    limit = alike_limit(f, numbers)
    numbers[60] = 0
    assert alike(images([0] * 61), f, numbers) == []
    assert abs(alike_limit(f, numbers) - limit) < 0.02


def test_where_everything_is_alike_little_is_listed():
    """Bursts: every image has neighbours that are nearly the same."""
    random = np.random.default_rng(0)
    moments = random.normal(size=(12, 24))
    rows = unit(np.repeat(moments, 5, 0) + 0.1 * random.normal(size=(60, 24)))
    assert len(alike(images([0] * 60), rows, np.arange(60))) <= 6


def test_rows_at_a_time_give_what_all_at_once_does(monkeypatch):
    f = features([0.05, 0.05, 0.05])
    whole = alike(images([0] * 63), f, np.arange(63))
    monkeypatch.setattr(module, "_ROWS", 7)
    assert alike(images([0] * 63), f, np.arange(63)) == whole


def test_a_picture_or_two_say_nothing():
    f = features([], count=2)
    assert alike(images([0, 1]), f, np.arange(2)) == []
    assert alike(images([0, 1]), f, np.zeros(2, np.int64)) == []
