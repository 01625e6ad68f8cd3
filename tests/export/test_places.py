"""Exported files say nothing of the machine that made them."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

import gsfl_tune
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.export import exported_file, onnx_file
from gsfl_tune.export.graph import Deployed
from tests.export.conftest import SIDE


def deployed(network) -> Deployed:
    how = Preprocessing(32, SIDE, "crop", [0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    return Deployed(network, how, inside=False)


def folders() -> list[bytes]:
    """Where this package and those of others are installed."""
    return [str(place).encode() for place in (Path(gsfl_tune.__file__).parent, sys.prefix)]


def test_an_onnx_file(network, tmp_path):
    pytest.importorskip("onnxruntime")
    onnx_file.write_onnx(deployed(network), tmp_path / "model.onnx")
    onnx_file.write_metadata(tmp_path / "model.onnx", {"name": "zoo"})
    content = (tmp_path / "model.onnx").read_bytes()
    assert not [place for place in folders() if place in content]


def test_a_program(network, tmp_path):
    module = deployed(network)
    program = exported_file.capture(module, module.example())
    exported_file.write_program(program, tmp_path / "model.pt2", {"name": "zoo"})
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert "model/models/model.json" in contents
    for name, content in contents.items():
        assert not [place for place in folders() if place in content], name
