"""Broken images of an experiment whose test part is evaluated."""

from __future__ import annotations

import json

from tests.data.conftest import fill
from tests.export.conftest import CLASSES


def test_those_of_other_parts_do_not_count(command, bundle_path, tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    names = CLASSES[:5]
    fill(tmp_path / "zoo" / "train", dict.fromkeys(names, 6))
    fill(tmp_path / "zoo" / "val", dict.fromkeys(names, 3), seed=100)
    fill(tmp_path / "zoo" / "test", dict.fromkeys(names, 4), seed=200)
    for image in ("train/{}/002.png", "train/{}/001.png", "val/{}/000.png", "test/{}/003.png"):
        (tmp_path / "zoo" / image.format(names[1])).write_bytes(b"nothing")
    file = tmp_path / "zoo.yaml"
    path = tmp_path / "zoo"
    file.write_text(f"name: zoo\ndata: {{source: folder, path: '{path}', max_broken: 0.2}}\n")
    answer = command("evaluate", bundle_path, file, "--json")
    assert answer.code == 0, answer.err
    content = json.loads(answer.out)
    assert (content["part"], content["images"], content["broken"]) == ("test", 19, 1)
    (image,) = content["broken_images"]
    assert image["path"] == str(path / "test" / names[1] / "003.png")
    # Where the test part is chosen, a broken image might have been in it.
    words = ("--set", f"data.path={path / 'train'}", "--json")
    assert json.loads(command("evaluate", bundle_path, file, *words).out)["broken"] == 2
