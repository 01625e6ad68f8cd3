"""`check` reads the annotations where a method learns parts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.cli import main

TEXT = """name: t
data: {source: csv, path: images.csv, image_size: 64}
model: {backbone: test_efficientnet, weights: none}
training: {method: part_rcnn, finetune: {epochs: 1}}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = ["file,label,beak_x,beak_y"]
    for number in range(40):
        pixels = random.integers(0, 255, (70, 70, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'ab'[number % 2]},{20 + number},30")
    (tmp_path / "images.csv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "t.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_images_without_parts_are_an_error(file, capsys, flags):
    assert main(["check", file.name, *flags]) == 2
    told = capsys.readouterr()
    said = " ".join(told.err.split())
    assert "t.yaml:4: training.method: found part_rcnn, but no image has a known part" in said
    assert "data.point_columns" in said
    assert not told.out


def test_points_are_enough(file, capsys):
    file.write_text(TEXT.replace("image_size", "point_columns: [beak], image_size"))
    assert main(["check", file.name]) == 0
    assert "valid" in capsys.readouterr().out
