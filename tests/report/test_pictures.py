"""Pictures are put into the page, as long as they are pictures of the run and not too many."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from gsfl_tune.report.pictures import load_pictures


def picture(path, side=64):
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=90)
    return path.stat().st_size


def test_a_picture_is_embedded_as_it_is(tmp_path):
    picture(tmp_path / "a.jpg")
    entry = {"kind": "confused", "file": "a.jpg", "title": "t", "classes": ["x", "y"]}
    found = load_pictures(tmp_path, [entry])
    (shown,) = found.shown
    assert base64.b64decode(shown.source.partition(",")[2]) == (tmp_path / "a.jpg").read_bytes()
    assert shown.source.startswith("data:image/jpeg;base64,")
    assert (shown.width, shown.height) == (64, 64)
    assert found.pair(["y", "x"]) is shown
    assert found.pair(["x", "z"]) is None
    assert found.problems == []


def test_many_pictures_become_smaller_until_they_fit(tmp_path):
    size = sum(picture(tmp_path / f"{n}.jpg", 200) for n in range(6))
    entries = [{"kind": "group", "file": f"{n}.jpg"} for n in range(6)]
    found = load_pictures(tmp_path, entries, budget=size // 2)
    assert len(found.shown) == 6
    embedded = [base64.b64decode(each.source.partition(",")[2]) for each in found.shown]
    assert sum(map(len, embedded)) <= size // 2
    with Image.open(io.BytesIO(embedded[0])) as image:
        assert image.size == (found.shown[0].width, found.shown[0].height)
        assert 90 <= image.size[0] < 200
    tiny = load_pictures(tmp_path, entries, budget=size // 20)
    assert len(tiny.shown) < 6
    assert len(tiny.problems) == 6 - len(tiny.shown)
    assert "too large" in tiny.problems[0]


def test_what_is_no_picture_of_the_run_is_said_and_left_out(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    picture(tmp_path / "outside.jpg")
    (run / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (run / "page.jpg").write_text("<svg onload=alert(1)>")
    (run / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0 and nothing else")
    names = ["../outside.jpg", "link.jpg", "page.jpg", "half.jpg", "none.jpg", ""]
    found = load_pictures(run, [{"kind": "group", "file": name} for name in names])
    assert found.shown == []
    assert len(found.problems) == 6
    assert load_pictures(run, None).shown == []
